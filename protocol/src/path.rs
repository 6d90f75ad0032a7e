//! Every URL, spelled once.

/// What every path of the contract begins with.
pub const BASE: &str = "/api/v1";

/// `POST` creates a task, `GET` lists tasks.
pub const TASKS: &str = "/tasks";
/// `POST` creates many tasks.
pub const TASKS_BATCH: &str = "/tasks/batch";
/// `POST` claims work.
pub const TASKS_CLAIM: &str = "/tasks/claim";
/// `POST` renews many leases.
pub const TASKS_HEARTBEAT: &str = "/tasks/heartbeat";
/// `POST` settles many tasks, and may claim the next ones.
pub const TASKS_OUTCOMES: &str = "/tasks/outcomes";
/// `GET` finds the task that produced a result.
pub const TASKS_BY_RESULT: &str = "/tasks/by-result/{result_id}";
/// `GET`, `PUT` and `DELETE` one task.
pub const TASK: &str = "/tasks/{task_id}";
/// `GET` a task's status, `PUT` it for work that a service runs itself.
pub const TASK_STATUS: &str = "/tasks/{task_id}/status";
/// `POST` claims one known task.
pub const TASK_CLAIM: &str = "/tasks/{task_id}/claim";
/// `POST` completes a task.
pub const TASK_COMPLETE: &str = "/tasks/{task_id}/complete";
/// `POST` fails a task.
pub const TASK_FAIL: &str = "/tasks/{task_id}/fail";
/// `POST` gives a task back.
pub const TASK_RELEASE: &str = "/tasks/{task_id}/release";
/// `POST` renews a task's lease.
pub const TASK_HEARTBEAT: &str = "/tasks/{task_id}/heartbeat";
/// `POST` asks for a cancellation, or acknowledges it.
pub const TASK_CANCEL: &str = "/tasks/{task_id}/cancel";
/// `POST` makes a task ready now, or again.
pub const TASK_EXECUTE: &str = "/tasks/{task_id}/execute";
/// `POST` keeps lines that a worker has logged, `GET` lists them.
pub const TASK_LOGS: &str = "/tasks/{task_id}/logs";
/// `GET` a task's attempts.
pub const TASK_EXECUTIONS: &str = "/tasks/{task_id}/executions";
/// `GET` watches a task.
pub const TASK_STREAM: &str = "/tasks/{task_id}/stream";
/// `POST` makes a token that opens a task's stream.
pub const TASK_STREAM_TOKEN: &str = "/tasks/{task_id}/stream-token";
/// `GET` watches all tasks of a tenant.
pub const STREAM: &str = "/stream";
/// `POST` makes a token that opens that stream.
pub const STREAM_TOKEN: &str = "/stream-token";
/// `POST` issues a key, `GET` lists keys.
pub const KEYS: &str = "/keys";
/// `DELETE` revokes a key.
pub const KEY: &str = "/keys/{key_id}";
/// `POST` replaces a key's secret.
pub const KEY_ROTATE: &str = "/keys/{key_id}/rotate";
/// `GET` lists task types.
pub const TASK_TYPES: &str = "/task-types";
/// `GET` shows a task type; `PUT` replaces its settings, `DELETE` removes them.
pub const TASK_TYPE: &str = "/task-types/{task_type}";
/// `POST` pauses a task type.
pub const TASK_TYPE_PAUSE: &str = "/task-types/{task_type}/pause";
/// `POST` resumes a task type.
pub const TASK_TYPE_RESUME: &str = "/task-types/{task_type}/resume";
/// `GET` lists which failures there were.
pub const FAILURES: &str = "/failures";
/// `GET` lists stored tasks that the server cannot read.
pub const UNREADABLE_TASKS: &str = "/unreadable-tasks";
/// `GET` shows one of them, `DELETE` removes it.
pub const UNREADABLE_TASK: &str = "/unreadable-tasks/{task_id}";
/// `GET`: the process lives.
pub const HEALTH: &str = "/health";
/// `GET`: the service can do its work.
pub const HEALTH_READY: &str = "/health/ready";
/// `GET`: each dependency and background job.
pub const HEALTH_DETAILED: &str = "/health/detailed";
/// `GET`: Prometheus text.
pub const METRICS: &str = "/metrics";
/// `GET`: the OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";
/// `GET`: the OpenAPI document as a page.
pub const DOCS: &str = "/docs";
/// `GET`: what that page is made of.
pub const DOCS_ASSET: &str = "/docs/{asset}";

/// Header: which tenant an all-tenant key means.
pub const TENANT_HEADER: &str = "x-tenant-id";
/// Header: the end user on whose behalf a gateway calls.
pub const USER_HEADER: &str = "x-user-id";
/// Header: the credential, where `Authorization` is not at hand.
pub const API_KEY_HEADER: &str = "x-api-key";
/// Header: the last message of a stream that a watcher has had.
pub const LAST_EVENT_ID_HEADER: &str = "last-event-id";
/// Header: makes a create safe to repeat.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// Header: marks an answer that was given before.
pub const IDEMPOTENT_REPLAYED_HEADER: &str = "idempotent-replayed";
/// Header: names a request in answers and logs.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
