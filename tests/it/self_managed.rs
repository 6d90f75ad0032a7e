//! `PUT /tasks/{id}/status`: services that run their own work, without a lease.

use serde_json::{Value, json};
use task_repo_tests::TestServer;

use crate::verbs::{
    STRANGE_TOKEN, assert_lease_lost, claim, claim_one, executions, id, pass_until_status, post, put_status,
    queue, settle, shown, tasks,
};

/// A task that a service has begun to work on.
async fn begun(server: &TestServer, task: Value) -> Value {
    let task = server.create(task).await;
    put_status(server, &task, json!({"status": "processing"})).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_reports_its_own_work() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let running = put_status(&server, &task, json!({"status": "processing"})).await.ok();
    assert_eq!(running, shown(&server, &task).await, "the answer is the task");
    assert_eq!((&running["status"], &running["attempt"]), (&json!("processing"), &json!(1)));
    assert_eq!((&running["lease"], &running["reason"]), (&Value::Null, &Value::Null));
    assert!(running["started_at"].is_string() && running["completed_at"].is_null(), "{running}");
    let history = executions(&server, &task).await;
    assert_eq!((history.len(), &history[0]["worker_id"]), (1, &Value::Null));
    assert_eq!((&history[0]["attempt"], &history[0]["status"]), (&json!(1), &json!("processing")));

    let work = json!({"status": "completed", "result": {"n": 1}, "result_id": "r-1"});
    let done = put_status(&server, &task, work).await.ok();
    assert_eq!(done, shown(&server, &task).await);
    assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &json!({"n": 1})));
    assert!(done["completed_at"].is_string());
    assert_eq!(done["version"].as_u64(), task["version"].as_u64().map(|version| version + 2));
    let found = server.get("/tasks/by-result/r-1").send().await.ok();
    assert_eq!(found["id"], task["id"]);
    let history = executions(&server, &task).await;
    assert_eq!((history.len(), &history[0]["status"]), (1, &json!("completed")));
    assert_eq!((&history[0]["worker_id"], &history[0]["result_id"]), (&Value::Null, &json!("r-1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_failed_has_failed_for_good() {
    let server = TestServer::start().await;
    let task = begun(&server, json!({"max_attempts": 5})).await;
    let failure = json!({"status": "failed", "error_message": "it broke"});
    let failed = put_status(&server, &task, failure).await.ok();
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("error")));
    assert_eq!(failed["error"]["message"], "it broke");
    assert!(failed["completed_at"].is_string());
    let history = executions(&server, &task).await;
    assert_eq!(
        (&history[0]["status"], &history[0]["error"]["message"]),
        (&json!("failed"), &json!("it broke"))
    );

    let unexplained = begun(&server, json!({})).await;
    let failed = put_status(&server, &unexplained, json!({"status": "failed"})).await.ok();
    assert_eq!(failed["status"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_three_statuses_can_be_set() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    for body in [
        json!({"status": "pending"}),
        json!({"status": "scheduled"}),
        json!({"status": "cancelled"}),
        json!({"status": "done"}),
        json!({"status": "Processing"}),
        json!({"status": ""}),
        json!({"status": null}),
        json!({"status": 1}),
        json!({}),
    ] {
        let problem = put_status(&server, &task, body.clone()).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], json!(["body", "status"]), "{body}");
    }
    for (body, field) in [
        (json!({"status": "processing", "worker_id": "w1"}), "worker_id"),
        (json!({"status": "completed", "result_id": ""}), "result_id"),
        (json!({"status": "completed", "result_id": "x".repeat(256)}), "result_id"),
        (json!({"status": "failed", "error_message": 7}), "error_message"),
    ] {
        let problem = put_status(&server, &task, body.clone()).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], json!(["body", field]), "{body}");
    }
    assert_eq!(shown(&server, &task).await, task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_services_keep_out_of_each_others_way() {
    let server = TestServer::start().await;
    let task = begun(&server, json!({})).await;
    assert_eq!(tasks(&claim(&server, queue(&task), json!({})).await).len(), 0, "it is not given to a worker");
    post(&server, &task, "claim", json!({"worker_id": "w1"})).await.problem(409, "task_not_claimable");
    for verb in ["complete", "release", "heartbeat", "cancel"] {
        let refused = post(&server, &task, verb, json!({"lease_token": STRANGE_TOKEN})).await;
        assert_lease_lost(&refused, &task);
    }
    assert_eq!(shown(&server, &task).await, task);

    // A worker's lease stands in the way, also with a token of before.
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    for status in ["processing", "completed", "failed"] {
        let refused = put_status(&server, &task, json!({"status": status})).await;
        assert_eq!(refused.problem(409, "invalid_transition")["current_status"], "processing");
    }
    settle(&server, &held, "release", json!({})).await.ok();
    let running = put_status(&server, &task, json!({"status": "processing"})).await.ok();
    assert_lease_lost(&settle(&server, &held, "complete", json!({})).await, &running);
    put_status(&server, &task, json!({"status": "completed"})).await.ok();
    assert_lease_lost(&settle(&server, &held, "complete", json!({})).await, &shown(&server, &task).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_holds_and_ends_the_work_for_good() {
    let server = TestServer::start().await;
    let task = begun(&server, json!({"timeout_seconds": 1, "max_attempts": 5})).await;
    // A lease does not: this one runs far longer than the lease the task asks for.
    let unleased = begun(&server, json!({"lease_seconds": 1})).await;
    let failed = pass_until_status(&server, &task, "failed").await;
    assert_eq!((&failed["reason"], &failed["error"]["code"]), (&json!("timeout"), &json!("timeout")));
    assert_eq!((&failed["attempt"], &failed["losses"]), (&json!(1), &json!(0)));
    assert!(failed["completed_at"].is_string());
    let late = put_status(&server, &task, json!({"status": "completed"})).await;
    assert_eq!(late.problem(409, "invalid_transition")["current_status"], "failed");

    let leased = server.create(json!({"lease_seconds": 1})).await;
    claim_one(&server, &leased, json!({})).await;
    pass_until_status(&server, &leased, "pending").await;
    assert_eq!(shown(&server, &unleased).await, unleased, "no lease, so none runs out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_ends_it_at_once() {
    let server = TestServer::start().await;
    let task = begun(&server, json!({})).await;
    let receipt = post(&server, &task, "cancel", json!({})).await.ok();
    assert_eq!(receipt["status"], "cancelled");
    let cancelled = shown(&server, &task).await;
    assert!(cancelled["completed_at"].is_string());
    assert_eq!(executions(&server, &task).await[0]["status"], "cancelled");
    for status in ["processing", "completed", "failed"] {
        put_status(&server, &task, json!({"status": status})).await.problem(409, "invalid_transition");
    }
    assert_eq!(shown(&server, &task).await, cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_can_be_insisted_on() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}/status", id(&task));
    let put =
        |status: &str, tag: &str| server.put(&path).header("if-match", tag).json(&json!({"status": status}));
    let seen = server.get(&format!("/tasks/{}", id(&task))).send().await;
    let tag = seen.header("etag").expect("a tag").to_owned();
    server.put(&format!("/tasks/{}", id(&task))).json(&json!({"priority": 1})).send().await.ok();
    put("processing", &tag).send().await.problem(412, "version_conflict");
    assert_eq!(shown(&server, &task).await["status"], "pending");
    put("processing", "*").send().await.ok();
    // A status that forbids the change goes first.
    put("processing", &tag).send().await.problem(409, "invalid_transition");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_makes_the_task_too_large_is_refused() {
    let server = TestServer::start().await;
    let half = "x".repeat(600 << 10);
    let task = begun(&server, json!({"request": half})).await;
    let refused = put_status(&server, &task, json!({"status": "completed", "result": half})).await;
    refused.problem(413, "payload_too_large");
    assert_eq!(shown(&server, &task).await, task);
    put_status(&server, &task, json!({"status": "completed", "result": "short"})).await.ok();
}
