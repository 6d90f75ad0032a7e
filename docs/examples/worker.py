#!/usr/bin/env python3
"""A worker for the task service that needs nothing but Python 3.9: the model that docs/workers.md explains.

    export TASK_SERVICE_KEY=...
    python3 worker.py http://127.0.0.1:8503 --concurrency 4

One thread claims, one delivers, one sends heartbeats, and as many as --concurrency says run handlers. A handler is a
function that gets a Job and returns the task's result; HANDLERS at the end of this file has one for each task type.
"""

import argparse
import http.client
import json
import logging
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
import uuid
from urllib.parse import urlsplit

WAIT_MS = 5000  # How long a claim waits for work. It is short, because a stop waits for the claim.
MAX_BODY = 1_000_000  # Bytes in a delivery, unless one result is larger: many proxies refuse more than 1 MiB.
PATIENCE = 600  # Seconds for which a finished outcome is delivered again before it is given up.
GRACE = 20  # Seconds that handlers have to end after a stop.
LAST_DELIVERY = 5  # Seconds for the last outcomes after that. Kubernetes kills after 30 s in all.

log = logging.getLogger("worker")


class Refused(Exception):
    """The service's own answer is no: a problem with a code."""

    def __init__(self, status, problem):
        super().__init__(f"{status} {problem['code']}: {problem.get('detail')} (request {problem.get('request_id')})")
        self.status, self.retryable = status, problem.get("retryable", False)
        self.retry_after = problem.get("retry_after_seconds") or 0


class Unheard(Exception):
    """No answer, or somebody else's. Whether the call took effect is unknown, so it is repeated."""

    def __init__(self, what, status=None, retry_after="0"):
        super().__init__(what)
        self.status, self.retryable = status, True
        self.retry_after = int(retry_after) if retry_after.isdigit() else 0


class Service:
    """Calls the service. Each call has a connection of its own, so that none is stale and no thread waits for another."""

    def __init__(self, url, key):
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        self.connection = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        self.address, self.base = parts.netloc, parts.path.rstrip("/") + "/api/v1"
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path, body, expected, timeout=30):
        """The answer, which has the list that is expected. Raises Refused or Unheard. Follows no redirects."""
        connection = self.connection(self.address, timeout=timeout)
        try:
            connection.request("POST", self.base + path, body.encode(), self.headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unheard(f"no answer: {error!r}") from None
        finally:
            connection.close()
        kind = response.headers.get_content_type()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            if response.status == 200 and isinstance(answer.get(expected), list):
                return answer
            if kind == "application/problem+json" and isinstance(answer.get("code"), str):
                raise Refused(response.status, answer)
        what = f"{response.status} {kind} is not an answer of the service; something between has answered"
        raise Unheard(what, response.status, response.headers.get("Retry-After", "0"))


def pause(tries, at_least=0):
    """Seconds before the next try. Drawn anew each time: workers that failed together must not come back together."""
    return at_least + random.uniform(0, min(30, 0.25 * 2 ** min(tries, 10)))


class Ended(Exception):
    """Raised in a handler that has to end."""


class GiveUp(Exception):
    """Raised by a handler when trying again would not help."""


class Job:
    """A claimed task, until its outcome is delivered."""

    def __init__(self, task, lease_seconds):
        self.id, self.type, self.attempt = task["id"], task["task_type"], task["attempt"]
        self.request, self.token = task.get("request"), task["lease"]["token"]
        now = time.monotonic()
        self.deadline = now + task["timeout_seconds"]
        self.heartbeat_at = now + lease_seconds / 3
        self.progress = None  # What the next heartbeat reports, such as {"value": 0.5, "text": "half"}.
        self.why = None  # Why the handler has to end: "cancel", "stop", "timeout" or "lost".
        self.told = threading.Event()
        self.outcome = None  # JSON text, once the handler has ended.
        self.has_result = False
        self.tries, self.deliver_at, self.give_up_at = 0, 0.0, 0.0

    def tell(self, why):
        if self.why is None and self.outcome is None:
            log.warning("%s has to end: %s", self, why)
            self.why = why
            self.told.set()

    def report(self, outcome):
        self.outcome = json.dumps({"id": self.id, "lease_token": self.token, **outcome}, allow_nan=False)
        self.has_result = outcome["outcome"] == "completed"

    def check(self):
        """For handlers: call it wherever the work can end."""
        if self.told.is_set():
            raise Ended

    def sleep(self, seconds):
        """For handlers: sleeps, and ends at once when it has to."""
        self.told.wait(seconds)
        self.check()

    def __str__(self):
        return f"{self.type} {self.id} attempt {self.attempt}"


class Worker:
    def __init__(self, service, handlers, concurrency, lease_seconds):
        self.service, self.handlers = service, handlers
        self.concurrency, self.lease_seconds = concurrency, lease_seconds
        self.name = f"{os.uname().nodename}-{os.getpid()}"
        self.jobs = {}  # By token. What is in here gets heartbeats.
        self.todo, self.finished = queue.Queue(), queue.Queue()
        self.free, self.slots = concurrency, threading.Condition()
        self.open_claims = []  # Ids of claims whose answers were lost. They are repeated before there are new ones.
        self.stopping, self.exit_code = False, 0

    def run(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        threading.excepthook = lambda args: self.end(repr(args.exc_value))
        loops = [self.claim, self.deliver, self.heartbeat] + [self.work] * self.concurrency
        threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        while not self.stopping:
            time.sleep(0.1)
        log.info("stopping")
        self.until_delivered(GRACE, claiming=threads[0])
        for job in list(self.jobs.values()):
            if job.outcome is None:
                # A thread cannot be ended, but the process can. By the end of the delay it has.
                log.error("%s does not end: released, and its thread goes with the process", job)
                self.finish(job, {"outcome": "released", "delay_seconds": LAST_DELIVERY})
        self.until_delivered(LAST_DELIVERY, claiming=threads[0])
        log.info("stopped: %d tasks are left to their leases", len(self.jobs))
        logging.shutdown()
        os._exit(self.exit_code)

    def on_signal(self, *_):
        if self.stopping:
            os._exit(1)  # A second signal is meant.
        self.stopping = True

    def end(self, error):
        """What only a person can mend ends the worker, so that whoever watches processes sees it."""
        log.error("the worker ends: %s. Look at the key, its roles and task types, and the URL", error)
        self.exit_code, self.stopping = 1, True

    def until_delivered(self, seconds, claiming):
        end = time.monotonic() + seconds
        while (self.jobs or claiming.is_alive()) and time.monotonic() < end:
            for job in list(self.jobs.values()):
                job.tell("stop")
            time.sleep(0.05)

    # Claiming.

    def wanted(self, limit, wait_ms, claim_id):
        wanted = {"task_types": list(self.handlers), "worker_id": self.name, "limit": limit, "claim_id": claim_id}
        return {**wanted, "lease_seconds": self.lease_seconds, "wait_ms": wait_ms}

    def claim(self):
        tries = 0
        while not self.stopping or self.open_claims:
            with self.slots:
                self.slots.wait_for(lambda: self.free > 0 or self.stopping, timeout=1)
                room = max(self.free, 0)
                self.free -= room
            if not self.open_claims and (self.stopping or room == 0):
                continue
            claim_id = self.open_claims.pop() if self.open_claims else str(uuid.uuid4())
            body = self.wanted(max(room, 1), 0 if self.stopping else WAIT_MS, claim_id)
            try:
                answer, tries = self.service.post("/tasks/claim", json.dumps(body), "tasks"), 0
            except (Refused, Unheard) as error:
                answer, tries = {"tasks": []}, tries + 1
                if error.retryable:
                    log.warning("no claim: %s", error)
                    self.open_claims.append(claim_id)
                    time.sleep(pause(tries, error.retry_after))
                else:
                    self.end(error)
            self.take(answer["tasks"], room)

    def take(self, tasks, room):
        for task in tasks:
            job = Job(task, self.lease_seconds)
            log.info("%s begins", job)
            self.jobs[job.token] = job
            self.todo.put(job)
        with self.slots:
            self.free += room - len(tasks)
            self.slots.notify()

    # Working.

    def work(self):
        while True:
            job = self.todo.get()
            self.finish(job, self.outcome_of(job))

    def outcome_of(self, job):
        try:
            job.check()
            outcome = {"outcome": "completed", "result": self.handlers[job.type](job)}
            json.dumps(outcome, allow_nan=False)  # What is no JSON is an error of the handler, not of the delivery.
            return outcome
        except Ended:
            # For "timeout" and "lost" the service has ended the attempt itself.
            return {"cancel": {"outcome": "cancelled"}, "stop": {"outcome": "released"}}.get(job.why)
        except Exception as error:
            log.warning("%s has failed: %r", job, error)
            details = {"traceback": traceback.format_exc()[-8000:]}
            report = {"message": str(error)[:8000] or repr(error)[:8000], "details": details}
            return {"outcome": "failed", "error": report, "retry": "never" if isinstance(error, GiveUp) else "auto"}

    def finish(self, job, outcome):
        if job.outcome is not None:
            return  # It was released while its handler went on.
        if outcome is None:
            return self.forget(job)
        job.report(outcome)
        job.give_up_at = time.monotonic() + PATIENCE
        self.finished.put(job)

    def forget(self, job, room=1):
        self.jobs.pop(job.token, None)
        with self.slots:
            self.free += room
            self.slots.notify()

    # Delivering.

    def deliver(self):
        waiting = []
        while True:
            try:
                waiting.append(self.finished.get(timeout=0.1))
                while True:
                    waiting.append(self.finished.get_nowait())
            except queue.Empty:
                pass
            now = time.monotonic()
            batch, size = [], 0
            for job in [job for job in waiting if job.deliver_at <= now]:
                if batch and size + len(job.outcome) > MAX_BODY:
                    self.send(batch)
                    batch, size = [], 0
                batch.append(job)
                size += len(job.outcome)
            if batch:
                self.send(batch)
            waiting = [job for job in waiting if job.token in self.jobs]

    def send(self, batch):
        """Delivers outcomes and claims as many tasks anew in the same call: one round trip instead of two."""
        claim_id, body = str(uuid.uuid4()), f'{{"outcomes":[{",".join(job.outcome for job in batch)}]'
        if not self.stopping:
            body += f', "claim":{json.dumps(self.wanted(len(batch), 0, claim_id))}'
        try:
            answer = self.service.post("/tasks/outcomes", body + "}", "results")
        except (Refused, Unheard) as error:
            if error.status == 413 and len(batch) > 1:
                log.warning("%d outcomes are too large for one call and are split: %s", len(batch), error)
                self.send(batch[: len(batch) // 2])
                return self.send(batch[len(batch) // 2 :])
            if error.retryable:
                if isinstance(error, Unheard) and error.status != 413:
                    self.open_claims.append(claim_id)  # It may have brought tasks that nobody knows of here.
                wait = pause(max(job.tries for job in batch) + 1, error.retry_after)
                for job in batch:
                    self.postpone(job, wait, error)
            elif error.status == 413 and batch[0].has_result:
                self.give_up_result(batch[0], error)
            else:
                for job in batch:
                    self.forget(job)
                self.end(error)
            return None
        settled = 0
        for job, result in zip(batch, answer["results"]):
            problem = result.get("problem")
            if problem and problem["retryable"]:
                self.postpone(job, pause(job.tries + 1), problem["detail"])
                continue
            if problem and problem["status"] in (413, 422) and job.has_result:
                self.give_up_result(job, problem["detail"])
                continue
            if problem:
                log.warning("%s: its outcome is refused: %s", job, problem["detail"])
            else:
                log.info("%s is %s", job, result["receipt"]["status"])
            self.forget(job, room=0)
            settled += 1
        self.take(answer.get("tasks", []), settled)
        return None

    def give_up_result(self, job, why):
        """The service will never take this result. Failing says why; saying nothing would have the task done again."""
        log.error("%s: its result is refused: %s", job, why)
        report = {"message": f"its result is refused: {why}"[:8000]}
        job.report({"outcome": "failed", "error": report, "retry": "never"})

    def postpone(self, job, wait, why):
        now = time.monotonic()
        if now > job.give_up_at:
            log.error("%s: its outcome is given up after %d s: %s", job, PATIENCE, why)
            return self.forget(job)
        log.warning("%s: its outcome is sent again: %s", job, why)
        job.tries += 1
        job.deliver_at = now + wait

    # Heartbeats.

    def heartbeat(self):
        while True:
            time.sleep(min(0.25, self.lease_seconds / 12))
            now = time.monotonic()
            jobs = list(self.jobs.values())
            for job in jobs:
                if now >= job.deadline and job.outcome is None:
                    job.tell("timeout")
            due = [job for job in jobs if job.heartbeat_at <= now][:100]  # The next round takes the others.
            if due:
                self.renew(due, now)

    def renew(self, due, now):
        beats = []
        for job in due:
            beat = {"id": job.id, "lease_token": job.token, "lease_seconds": self.lease_seconds}
            beats.append({**beat, "progress": job.progress} if job.progress else beat)
            # Until it is known to have come: soon again, and not all at once.
            job.heartbeat_at = now + self.lease_seconds * random.uniform(0.05, 0.1)
        try:
            body = json.dumps({"heartbeats": beats})
            answer = self.service.post("/tasks/heartbeat", body, "results", timeout=max(self.lease_seconds / 3, 1))
        except (Refused, Unheard) as error:
            log.warning("%d leases are not renewed: %s", len(due), error)
            if not error.retryable:
                self.end(error)
            return
        for job, result in zip(due, answer["results"]):
            problem = result.get("problem")
            if not problem:
                job.heartbeat_at = now + self.lease_seconds / 3
                if result["cancel_requested"]:
                    job.tell("cancel")
            elif not problem["retryable"] and job.token in self.jobs:
                log.warning("%s is lost: %s", job, problem["detail"])
                job.heartbeat_at = float("inf")
                job.tell("lost")


# The handlers of this example.


def add_up(job):
    return {"sum": sum(job.request["numbers"])}


def write(job):
    return "x" * job.request["length"]


def wait(job):
    """Work that can end wherever it calls `sleep`."""
    for step in range(job.request["steps"]):
        job.progress = {"value": step / job.request["steps"], "text": f"step {step}"}
        job.sleep(0.05)


HANDLERS = {"example.sum": add_up, "example.text": write, "example.wait": wait}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A worker for the task service; its key is in TASK_SERVICE_KEY.")
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--lease-seconds", type=int, default=60)
    options = parser.parse_args()
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    service = Service(options.url, os.environ["TASK_SERVICE_KEY"])
    Worker(service, HANDLERS, options.concurrency, options.lease_seconds).run()
