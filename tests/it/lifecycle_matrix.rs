//! Every status × every verb: where it leads or how it is refused, and that a refused call changes nothing.

use std::fmt::Write as _;

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer};

use crate::verbs::{STRANGE_TOKEN, claim_one, id, post, put_status, settle, shown, token, with};

/// What a call leads to.
#[derive(Clone, Copy)]
enum Then {
    /// 200: the task stands there, one version on.
    To(&'static str),
    /// 200: no change is stored.
    Stays,
    /// 204: the task is there no longer.
    Gone,
    /// Refused like that; nothing has changed.
    Refused(u16, &'static str),
}

use Then::{Gone, Refused, Stays, To};

const PENDING: Then = To("pending");
const SCHEDULED: Then = To("scheduled");
const RUNNING: Then = To("processing");
const COMPLETED: Then = To("completed");
const FAILED: Then = To("failed");
const CANCELLED: Then = To("cancelled");
const BUSY: Then = Refused(409, "task_not_claimable");
const LOST: Then = Refused(409, "lease_lost");
const NO: Then = Refused(409, "invalid_transition");
const MISS: Then = Refused(404, "task_not_found");

const STATES: [&str; 9] = [
    "pending",
    "delayed",
    "retrying",
    "leased",
    "self-managed",
    "completed",
    "failed",
    "cancelled",
    "deleted",
];

/// Where a worker has held the task, its token is shown, and elsewhere a strange one.
#[rustfmt::skip]
const MATRIX: [(&str, [Then; 9]); 14] = [
    // verb             pending    delayed    retrying   leased     self-mgd.  completed failed   cancelled deleted
    ("claim",          [RUNNING,   BUSY,      BUSY,      BUSY,      BUSY,      BUSY,     BUSY,    BUSY,     MISS]),
    ("complete",       [LOST,      LOST,      LOST,      COMPLETED, LOST,      Stays,    LOST,    LOST,     MISS]),
    ("fail",           [LOST,      LOST,      Stays,     SCHEDULED, LOST,      LOST,     Stays,   LOST,     MISS]),
    ("release",        [LOST,      LOST,      LOST,      PENDING,   LOST,      LOST,     LOST,    LOST,     MISS]),
    ("heartbeat",      [LOST,      LOST,      LOST,      Stays,     LOST,      LOST,     LOST,    LOST,     MISS]),
    ("acknowledge",    [LOST,      LOST,      LOST,      CANCELLED, LOST,      LOST,     LOST,    LOST,     MISS]),
    ("cancel",         [CANCELLED, CANCELLED, CANCELLED, RUNNING,   CANCELLED, NO,       NO,      Stays,    MISS]),
    ("execute",        [NO,        PENDING,   PENDING,   NO,        NO,        PENDING,  PENDING, PENDING,  MISS]),
    ("edit",           [PENDING,   SCHEDULED, SCHEDULED, NO,        NO,        NO,       NO,      NO,       MISS]),
    ("delete",         [Gone,      Gone,      Gone,      NO,        NO,        Gone,     Gone,    Gone,     MISS]),
    ("force-delete",   [Gone,      Gone,      Gone,      Gone,      Gone,      Gone,     Gone,    Gone,     MISS]),
    ("put-processing", [RUNNING,   NO,        NO,        NO,        NO,        NO,       NO,      NO,       MISS]),
    ("put-completed",  [NO,        NO,        NO,        NO,        COMPLETED, NO,       NO,      NO,       MISS]),
    ("put-failed",     [NO,        NO,        NO,        NO,        FAILED,    NO,       NO,      NO,       MISS]),
];

/// A task in that state, with the token a worker held it by, if one did.
async fn reach(server: &TestServer, state: &str) -> Value {
    let retry = json!({"backoff": "fixed", "base_seconds": 3600, "jitter": 0});
    let max_attempts = if state == "failed" { 1 } else { 3 };
    let task = server.create(json!({"retry": retry, "max_attempts": max_attempts})).await;
    match state {
        "pending" => task,
        "delayed" => server.create(json!({"delay_seconds": 3600})).await,
        "self-managed" => put_status(server, &task, json!({"status": "processing"})).await.ok(),
        "cancelled" => {
            post(server, &task, "cancel", json!({})).await.ok();
            task
        }
        "deleted" => {
            assert_eq!(server.delete(&format!("/tasks/{}", id(&task))).send().await.status, 204);
            task
        }
        held => {
            let task = claim_one(server, &task, json!({})).await;
            match held {
                "leased" => {}
                "completed" => drop(settle(server, &task, "complete", json!({})).await.ok()),
                "retrying" | "failed" => drop(settle(server, &task, "fail", json!({})).await.ok()),
                other => panic!("there is no state {other}"),
            }
            task
        }
    }
}

async fn call(server: &TestServer, task: &Value, verb: &str) -> HttpAnswer {
    let one = format!("/tasks/{}", id(task));
    let token = if task["lease"].is_object() { token(task) } else { STRANGE_TOKEN };
    let shown = json!({"lease_token": token});
    match verb {
        "claim" => post(server, task, "claim", json!({"worker_id": "w2"})).await,
        "complete" | "release" | "heartbeat" => post(server, task, verb, shown).await,
        "fail" => post(server, task, "fail", with(shown, json!({"error": {"message": "it broke"}}))).await,
        "acknowledge" => post(server, task, "cancel", shown).await,
        "cancel" | "execute" => post(server, task, verb, json!({})).await,
        "edit" => server.put(&one).json(&json!({"priority": 77})).send().await,
        "delete" => server.delete(&one).send().await,
        "force-delete" => server.delete(&one).query(&[("force", "true")]).send().await,
        put => {
            let status = put.strip_prefix("put-").expect("a verb of the matrix");
            put_status(server, task, json!({"status": status})).await
        }
    }
}

/// A task without what a heartbeat may renew.
fn but_for_the_lease(mut task: Value) -> Value {
    task["updated_at"] = Value::Null;
    task["lease"]["expires_at"] = Value::Null;
    task
}

/// What `GET` says of it: the task, or its absence.
async fn look(server: &TestServer, task: &Value) -> Option<Value> {
    let answer = server.get(&format!("/tasks/{}", id(task))).send().await;
    (answer.status != 404).then(|| answer.ok())
}

/// Whether `verb` does to a task in `state` what the table says; otherwise, what it did.
async fn cell(server: &TestServer, state: &str, verb: &str, then: Then) -> Result<(), String> {
    let task = reach(server, state).await;
    let before = look(server, &task).await;
    let answer = call(server, &task, verb).await;
    let (status, text) = (answer.status, answer.text());
    let after = look(server, &task).await;
    let ensure = |holds: bool, what: &str| {
        if holds {
            return Ok(());
        }
        let mut said = format!("{verb} on {state}: {what}\n  answered {status} {text}");
        let _ = write!(said, "\n  before {before:?}\n  after {after:?}");
        Err(said)
    };
    match (then, &before, &after) {
        (To(expected), Some(before), Some(after)) => {
            ensure(status == 200, "200 is expected")?;
            ensure(after["status"] == expected, expected)?;
            let one_on = before["version"].as_u64().map(|version| version + 1);
            ensure(after["version"].as_u64() == one_on, "the version grows by one")
        }
        (Stays, Some(before), Some(after)) if verb == "heartbeat" => {
            ensure(status == 200, "200 is expected")?;
            let (before, after) = (but_for_the_lease(before.clone()), but_for_the_lease(after.clone()));
            ensure(before == after, "only the lease may change")
        }
        (Stays, Some(before), Some(after)) => {
            ensure(status == 200, "200 is expected")?;
            ensure(before == after, "nothing may change")
        }
        (Gone, Some(_), None) => ensure(status == 204, "204 is expected"),
        (Refused(expected, code), before, after) => {
            let problem: Value = serde_json::from_str(&text).unwrap_or_default();
            ensure(status == expected && problem["code"] == code, code)?;
            ensure(before == after, "a refused call changes nothing")?;
            ensure(problem["task_id"] == task["id"], "the problem names the task")?;
            let Some(before) = before else { return Ok(()) };
            ensure(problem["current_status"] == before["status"], "the problem says what stands in the way")?;
            ensure(code != "lease_lost" || problem["attempt"] == before["attempt"], "and which attempt")
        }
        _ => ensure(false, "the task should be there before the call, and after it unless it deletes"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_on_every_status_does_what_the_table_says() {
    let server = TestServer::start().await;
    let mut wrong = Vec::new();
    for (verb, row) in MATRIX {
        let cells = STATES.iter().zip(row).map(|(state, then)| cell(&server, state, verb, then));
        wrong.extend(join_all(cells).await.into_iter().filter_map(Result::err));
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_the_attempt_and_of_the_end_follow_the_status() {
    let server = TestServer::start().await;
    let pending = server.create(json!({})).await;
    assert_eq!((&pending["started_at"], &pending["completed_at"]), (&Value::Null, &Value::Null));

    for state in ["completed", "failed", "cancelled"] {
        let task = reach(&server, state).await;
        let ended = shown(&server, &task).await;
        assert!(ended["completed_at"].is_string(), "completed_at is set by {state}: {ended}");
        assert_eq!(ended["started_at"].is_string(), state != "cancelled", "{ended}");
        assert_eq!(ended["lease"], Value::Null, "{ended}");
    }
    for (state, reason) in [("delayed", "delayed"), ("retrying", "retry"), ("failed", "exhausted")] {
        let task = reach(&server, state).await;
        assert_eq!(shown(&server, &task).await["reason"], reason);
    }
    for state in ["pending", "leased", "self-managed", "completed", "cancelled"] {
        let task = reach(&server, state).await;
        assert_eq!(shown(&server, &task).await["reason"], Value::Null, "{state}");
    }
}
