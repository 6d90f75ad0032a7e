//! `execute`: a task that waits is ready now, and a final one is ready again.

use serde_json::{Value, json};
use task_repo_client::{ErrorCode, Execute, NewRetryPolicy, NewTask, Reason, Status, TaskEdit};
use task_repo_tests::{TestServer, id_of, in_seconds, unique_type};

use crate::verbs::{
    assert_in_seconds, assert_receipt, assert_seconds_after, claim_one, executions, pass_until_status, post,
    put_status, settle, shown, time,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_is_ready_now() {
    let server = TestServer::start().await;
    let delayed = server.create(json!({"delay_seconds": 3600})).await;
    let retrying = server.create(json!({"max_attempts": 2})).await;
    let held = claim_one(&server, &retrying, json!({})).await;
    settle(&server, &held, "fail", json!({"retry_after_seconds": 3600})).await.ok();

    for (task, attempt) in [(&delayed, 0), (&retrying, 1)] {
        let receipt = post(&server, task, "execute", json!({})).await.ok();
        let now = shown(&server, task).await;
        assert_receipt(&receipt, &now);
        assert_eq!((&now["status"], &now["reason"]), (&json!("pending"), &Value::Null));
        assert_eq!(now["attempt"], attempt, "the attempts it has had still count");
        let refused = post(&server, task, "execute", json!({})).await.problem(409, "invalid_transition");
        assert_eq!(refused["current_status"], "pending");
        assert_eq!(shown(&server, task).await, now);
    }
    let last = claim_one(&server, &retrying, json!({})).await;
    assert_eq!(settle(&server, &last, "fail", json!({})).await.ok()["reason"], "exhausted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_task_is_ready_again_with_all_its_attempts() {
    let server = TestServer::start().await;
    for end in ["completed", "failed", "lost", "cancelled"] {
        let task = server.create(json!({"max_attempts": 1, "priority": 70, "request": {"n": 1}})).await;
        let lease = if end == "lost" { json!({"lease_seconds": 1}) } else { json!({}) };
        let held = claim_one(&server, &task, lease).await;
        let progress = json!({"progress": {"value": 0.5, "text": "half"}});
        settle(&server, &held, "heartbeat", progress).await.ok();
        let usage = json!({"tokens_used": 7});
        match end {
            "completed" => {
                let work = json!({"result": {"is": "kept"}, "result_id": "r-1", "usage": usage});
                settle(&server, &held, "complete", work).await.ok();
            }
            "failed" => drop(settle(&server, &held, "fail", json!({"usage": usage})).await.ok()),
            "cancelled" => {
                post(&server, &task, "cancel", json!({})).await.ok();
                settle(&server, &held, "cancel", json!({})).await.ok();
            }
            _ => drop(pass_until_status(&server, &task, "failed").await),
        }
        let ended = shown(&server, &task).await;
        let history = executions(&server, &task).await;

        let receipt = post(&server, &task, "execute", json!({})).await.ok();
        let again = shown(&server, &task).await;
        assert_receipt(&receipt, &again);
        assert_eq!(again["status"], "pending", "{end}");
        for (field, fresh) in [
            ("attempt", json!(0)),
            ("losses", json!(0)),
            ("reason", json!(null)),
            ("error", json!(null)),
            ("progress", json!(null)),
            ("completed_at", json!(null)),
            ("cancel_requested_at", json!(null)),
            ("run_at", json!(null)),
            ("lease", json!(null)),
        ] {
            assert_eq!(again[field], fresh, "{field} after {end}");
        }
        for field in [
            "result",
            "result_id",
            "usage",
            "started_at",
            "created_at",
            "request",
            "priority",
            "max_attempts",
        ] {
            assert_eq!(again[field], ended[field], "{field} after {end}");
        }
        assert_eq!(executions(&server, &task).await, history, "the history is kept");

        // The budget is a fresh one: the one attempt is there again, and used up again.
        let held = claim_one(&server, &task, json!({})).await;
        assert_eq!(held["attempt"], 1);
        settle(&server, &held, "fail", json!({})).await.ok();
        let failed = shown(&server, &task).await;
        assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("exhausted")));
        let longer = executions(&server, &task).await;
        assert_eq!((longer.len(), &longer[1..]), (history.len() + 1, &history[..]));
        assert_eq!(longer[0]["trigger"], "manual");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_stay_until_they_are_overwritten() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "complete", json!({"result": [1], "result_id": "r-1"})).await.ok();
    post(&server, &task, "execute", json!({})).await.ok();

    let held = claim_one(&server, &task, json!({})).await;
    assert_eq!((&held["result"], &held["result_id"]), (&json!([1]), &json!("r-1")));
    settle(&server, &held, "complete", json!({"result": [2], "result_id": "r-2"})).await.ok();
    let now = shown(&server, &task).await;
    assert_eq!((&now["result"], &now["result_id"]), (&json!([2]), &json!("r-2")));
    assert_eq!(server.get("/tasks/by-result/r-2").send().await.ok()["id"], id_of(&task));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_a_service_ran_itself_can_be_executed_again() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    put_status(&server, &task, json!({"status": "processing"})).await.ok();
    let refused = post(&server, &task, "execute", json!({})).await.problem(409, "invalid_transition");
    assert_eq!(refused["current_status"], "processing");
    put_status(&server, &task, json!({"status": "failed", "error_message": "no"})).await.ok();

    post(&server, &task, "execute", json!({})).await.ok();
    let again = put_status(&server, &task, json!({"status": "processing"})).await.ok();
    assert_eq!((&again["attempt"], &again["error"]), (&json!(1), &Value::Null));
    put_status(&server, &task, json!({"status": "completed"})).await.ok();
    let history = executions(&server, &task).await;
    let ends: Vec<_> = history.iter().filter_map(|execution| execution["status"].as_str()).collect();
    assert_eq!(ends, ["completed", "failed"]);
}

/// All that `execute` may set, each unlike what a task has by default.
fn new_limits() -> Value {
    json!({
        "max_attempts": 2, "timeout_seconds": 400, "lease_seconds": 500, "priority": 90,
        "retry": {"backoff": "fixed", "base_seconds": 1000, "cap_seconds": 1000, "jitter": 0.0},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_limits_come_with_the_same_write() {
    let server = TestServer::start().await;
    for status in ["scheduled", "completed", "failed", "cancelled"] {
        let task = server.create_in(status, json!({})).await;
        let receipt = post(&server, &task, "execute", new_limits()).await.ok();
        let now = shown(&server, &task).await;
        assert_receipt(&receipt, &now);
        assert_eq!(now["version"], task["version"].as_u64().unwrap() + 1, "one write: {now}");
        for (field, value) in new_limits().as_object().unwrap() {
            assert_eq!(now[field], *value, "{status}: {field}");
        }
        assert_eq!((&now["status"], &now["run_at"]), (&json!("pending"), &Value::Null));
        let held = claim_one(&server, &task, json!({})).await;
        assert_seconds_after(&held["lease"]["expires_at"], time(&held["started_at"]), 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_ahead_schedules_it_again() {
    let server = TestServer::start().await;
    for status in ["scheduled", "completed", "failed", "cancelled"] {
        for time in [json!({"run_at": in_seconds(7200)}), json!({"delay_seconds": 7200, "run_at": null})] {
            let task = server.create_in(status, json!({})).await;
            let receipt = post(&server, &task, "execute", time).await.ok();
            let now = shown(&server, &task).await;
            assert_receipt(&receipt, &now);
            assert_eq!((&now["status"], &now["reason"]), (&json!("scheduled"), &json!("delayed")), "{now}");
            assert_in_seconds(&now["run_at"], 7200);
            assert_eq!(now["completed_at"], Value::Null);
            let refused = post(&server, &task, "claim", json!({"worker_id": "w"})).await;
            refused.problem(409, "task_not_claimable");
        }
        // A time that has passed is now, as in a create.
        for time in [json!({"run_at": "2020-01-01T00:00:00.000Z"}), json!({"delay_seconds": 0})] {
            let task = server.create_in(status, json!({})).await;
            post(&server, &task, "execute", time).await.ok();
            let now = shown(&server, &task).await;
            assert_eq!((&now["status"], &now["reason"]), (&json!("pending"), &Value::Null), "{now}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_break_a_rule_change_nothing() {
    let server = TestServer::start().await;
    let task = server.create_in("completed", json!({})).await;
    for (field, body) in [
        ("max_attempts", json!({"max_attempts": 51})),
        ("max_attempts", json!({"max_attempts": "3"})),
        ("timeout_seconds", json!({"timeout_seconds": 0})),
        ("lease_seconds", json!({"lease_seconds": 86_401})),
        ("priority", json!({"priority": 101})),
        ("retry", json!({"retry": {"jitter": 2}})),
        ("run_at", json!({"run_at": "soon"})),
        ("delay_seconds", json!({"delay_seconds": -1})),
        ("delay_seconds", json!({"delay_seconds": 1, "run_at": in_seconds(60)})),
        ("retention_seconds", json!({"retention_seconds": 60})),
        ("name", json!({"name": "n"})),
    ] {
        let problem = post(&server, &task, "execute", body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"][1], field, "{problem}");
    }
    post(&server, &task, "execute", json!([])).await.problem(422, "validation_failed");
    assert_eq!(shown(&server, &task).await, task);
    // Null is as absent, and nothing is as before.
    let nulls: serde_json::Map<_, _> =
        new_limits().as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
    post(&server, &task, "execute", nulls.into()).await.ok();
    let now = shown(&server, &task).await;
    assert!(new_limits().as_object().unwrap().keys().all(|field| now[field] == task[field]), "{now}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_changes_limits() {
    let server = TestServer::start().await;
    let client = server.client();
    let task = client.create_task(&NewTask::new(unique_type())).await.unwrap();
    let retry = NewRetryPolicy { base_seconds: 9, ..NewRetryPolicy::default() };
    let edit = TaskEdit {
        lease_seconds: Some(Some(7)),
        timeout_seconds: Some(None),
        retention_seconds: Some(None),
        retry: Some(Some(retry)),
        ..TaskEdit::default()
    };
    let edited = client.edit_task(task.id, &edit).await.unwrap();
    assert_eq!(
        (edited.lease_seconds, edited.timeout_seconds, edited.retention_seconds),
        (Some(7), Some(300), None)
    );
    assert_eq!(edited.retry.map(|retry| retry.base_seconds), Some(9));
    client.cancel_task(task.id).await.unwrap();
    let execute = Execute { max_attempts: Some(1), delay_seconds: Some(3600), ..Execute::default() };
    let receipt = client.execute_task_with(task.id, &execute).await.unwrap();
    assert_eq!((receipt.status, receipt.reason), (Status::Scheduled, Some(Reason::Delayed)));
    let executed = client.get_task(task.id).await.unwrap();
    assert_eq!((executed.max_attempts, executed.lease_seconds, executed.releases), (1, Some(7), 0));
    let edit =
        client.edit_task(task.id, &TaskEdit { lease_seconds: Some(Some(0)), ..TaskEdit::default() }).await;
    assert_eq!(edit.unwrap_err().code(), Some(ErrorCode::ValidationFailed));
}
