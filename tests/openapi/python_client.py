"""A task's life through the client that openapi-python-client makes of the service's OpenAPI document.

Called by `cargo xtask openapi`: python_client.py FOLDER URL KEY, where FOLDER holds the made package `task_service`.
"""

import sys
import uuid

folder, url, key = sys.argv[1:]
sys.path.insert(0, folder)

from task_service import AuthenticatedClient
from task_service.api.tasks import create_task, get_task, list_tasks
from task_service.api.work import claim_tasks, complete_task, heartbeat_task, settle_tasks
from task_service.models import (
    Claim,
    Claimed,
    Complete,
    Heartbeat,
    HeartbeatReceipt,
    NewTask,
    Outcome,
    OutcomeKind,
    Outcomes,
    OutcomesAnswer,
    Problem,
    Receipt,
    Task,
    TaskPage,
)


def as_kind(answer, kind):
    """The answer, if it is of that kind."""
    assert isinstance(answer, kind), f"{kind.__name__} was expected, not {answer!r}"
    return answer


task_type = f"python-{uuid.uuid4()}"
with AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True) as client:
    new = NewTask(task_type=task_type, request={"numbers": [1, 2]}, priority=70)
    created = as_kind(create_task.sync(client=client, body=new, idempotency_key=str(uuid.uuid4())), Task)
    assert (created.status, created.priority) == ("pending", 70), created

    claim = Claim(task_types=[task_type], worker_id="python", claim_id=uuid.uuid4())
    claimed = as_kind(claim_tasks.sync(client=client, body=claim), Claimed)
    [task] = claimed.tasks
    assert task.id == created.id and task.request == {"numbers": [1, 2]}, task
    token = task.lease.token

    beat = Heartbeat(lease_token=token)
    as_kind(heartbeat_task.sync(task.id, client=client, body=beat), HeartbeatReceipt)
    receipt = complete_task.sync(task.id, client=client, body=Complete(lease_token=token, result={"sum": 3}))
    assert as_kind(receipt, Receipt).status == "completed", receipt

    done = as_kind(get_task.sync(task.id, client=client), Task)
    assert (done.status, done.result) == ("completed", {"sum": 3}), done
    page = as_kind(list_tasks.sync(client=client, status=["completed"], task_type=[task_type]), TaskPage)
    assert [listed.id for listed in page.tasks] == [task.id], page

    # Several at once, with the next work in the same call; and what is refused is a problem with its code.
    as_kind(create_task.sync(client=client, body=new), Task)
    late = Outcome(id=str(task.id), lease_token="0" * 32, outcome=OutcomeKind.COMPLETED)
    batch = Outcomes(outcomes=[late], claim=Claim(task_types=[task_type], worker_id="python"))
    answer = as_kind(settle_tasks.sync(client=client, body=batch), OutcomesAnswer)
    assert answer.results[0].problem.code == "lease_lost" and len(answer.tasks) == 1, answer
    refused = as_kind(get_task.sync(uuid.uuid4(), client=client), Problem)
    assert refused.code == "task_not_found", refused

print(f"the Python client has completed {task.id}")
