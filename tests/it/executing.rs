//! `execute`: a task that waits is ready now, and a final one is ready again.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of};

use crate::verbs::{assert_receipt, claim_one, executions, post, put_status, settle, shown, until_status};

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
            _ => drop(until_status(&server, &task, "failed").await),
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
