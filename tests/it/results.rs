//! What work brings: results and where to find them, what it used, and the history of attempts.

use std::collections::HashSet;

use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};

use crate::verbs::{
    claim_one, executions, id, pass_until_status, post, put_status, queue, settle, shown, time, token,
};

/// Creates a task and completes it.
async fn completed(server: &TestServer, task: Value, completion: Value) -> Value {
    let task = server.create(task).await;
    let held = claim_one(server, &task, json!({})).await;
    settle(server, &held, "complete", completion).await.ok();
    shown(server, &task).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_kept_exactly_as_sent() {
    let server = TestServer::start().await;
    for result in [
        "null",
        "false",
        "\"\"",
        "[]",
        r#"{"z":1,"a":{"$set":{"x.y":1}},"n":123456789012345678901234567890,"f":1.10,"e":1E2}"#,
        r#""$lease""#,
        r#"[1.0,-0,"\u00e9","é"]"#,
    ] {
        let task = server.create(json!({})).await;
        let held = claim_one(&server, &task, json!({})).await;
        let body = format!(r#"{{"lease_token":"{}","result":{result}}}"#, token(&held));
        server.post(&format!("/tasks/{}/complete", id(&task))).json_text(body).send().await.ok();
        let answer = server.get(&format!("/tasks/{}", id(&task))).send().await;
        assert_eq!(answer.raw("result"), result);
        assert_eq!(answer.json()["status"], "completed");
    }

    // None at all is null, and a result may be kept elsewhere.
    let without = completed(&server, json!({}), json!({})).await;
    assert_eq!((&without["result"], &without["result_id"]), (&Value::Null, &Value::Null));
    let elsewhere = completed(&server, json!({}), json!({"result_id": "s3://bucket/key"})).await;
    assert_eq!((&elsewhere["result"], &elsewhere["result_id"]), (&Value::Null, &json!("s3://bucket/key")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_found_by_its_result() {
    let server = TestServer::start().await;
    let find = |result_id: &str| server.get(&format!("/tasks/by-result/{result_id}"));

    let task =
        completed(&server, json!({"user_id": "ann"}), json!({"result_id": "r-1", "result": [1]})).await;
    assert_eq!(find("r-1").send().await.ok(), task, "as GET by its id shows it");
    find("r-2").send().await.problem(404, "task_not_found");
    find("r-").send().await.problem(404, "task_not_found");
    find("r-1").tenant("other").send().await.problem(404, "task_not_found");
    find("r-1").user("bob").send().await.problem(404, "task_not_found");
    assert_eq!(find("r-1").user("ann").send().await.ok()["id"], task["id"]);
    let limited = server.issue_key(&["viewer"], json!({"task_types": [unique_type()]})).await;
    find("r-1").key(&limited).send().await.problem(404, "task_not_found");

    // Of several with the same id it is the one created last, not the one completed last.
    let older = server.create(json!({})).await;
    let newer = completed(&server, json!({}), json!({"result_id": "shared"})).await;
    let held = claim_one(&server, &older, json!({})).await;
    settle(&server, &held, "complete", json!({"result_id": "shared"})).await.ok();
    assert_eq!(find("shared").send().await.ok()["id"], newer["id"]);
    assert_eq!(server.delete(&format!("/tasks/{}", id(&newer))).send().await.status, 204);
    assert_eq!(find("shared").send().await.ok()["id"], older["id"], "a deleted one is not found");

    // Whatever characters it has.
    let strange = completed(&server, json!({}), json!({"result_id": "a b/ü%?#$.x"})).await;
    let found = find("a%20b%2F%C3%BC%25%3F%23%24.x").send().await.ok();
    assert_eq!(found["id"], strange["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_used_is_summed_over_the_attempts() {
    let server = TestServer::start().await;
    let nothing = json!({"credits_consumed": 0.0, "tokens_used": 0, "api_calls_made": 0});
    let task = server.create(json!({"max_attempts": 5})).await;
    assert_eq!(numbers(&task["usage"]), numbers(&nothing));

    let mut held = Vec::new();
    for (verb, usage, sum) in [
        ("fail", json!({"credits_consumed": 0.5, "tokens_used": 10}), (0.5, 10, 0)),
        ("fail", json!({"api_calls_made": 3}), (0.5, 10, 3)),
        ("release", Value::Null, (0.5, 10, 3)),
        ("complete", json!({"credits_consumed": 1.25, "tokens_used": 1, "api_calls_made": 1}), (1.75, 11, 4)),
    ] {
        let attempt = claim_one(&server, &task, json!({})).await;
        let more = if usage.is_null() { json!({}) } else { json!({"usage": usage}) };
        settle(&server, &attempt, verb, more.clone()).await.ok();
        settle(&server, &attempt, verb, more).await.ok();
        let now = shown(&server, &task).await;
        assert_eq!(numbers(&now["usage"]), sum, "sent twice it counts once");
        if now["status"] == "scheduled" {
            post(&server, &task, "execute", json!({})).await.ok();
        }
        held.push(attempt);
    }
    let history = executions(&server, &task).await;
    let each: Vec<_> = history.iter().map(|execution| numbers(&execution["usage"])).collect();
    assert_eq!(each, [(1.25, 1, 1), (0.0, 0, 0), (0.0, 0, 3), (0.5, 10, 0)]);

    // After `execute` it goes on adding up.
    post(&server, &task, "execute", json!({})).await.ok();
    assert_eq!(numbers(&shown(&server, &task).await["usage"]), (1.75, 11, 4));
    let again = claim_one(&server, &task, json!({})).await;
    settle(&server, &again, "complete", json!({"usage": {"tokens_used": 1}})).await.ok();
    assert_eq!(numbers(&shown(&server, &task).await["usage"]), (1.75, 12, 4));
}

/// The three numbers of a usage.
fn numbers(usage: &Value) -> (f64, u64, u64) {
    let whole = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{name} is expected in {usage}"));
    let credits = usage["credits_consumed"].as_f64().expect("credits");
    (credits, whole("tokens_used"), whole("api_calls_made"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_in_the_history_newest_first() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 9})).await;
    assert_eq!(executions(&server, &task).await, [] as [Value; 0]);

    let error = json!({"message": "no", "code": "E1", "details": {"at": [1, 2]}});
    let first = claim_one(&server, &task, json!({"worker_id": "w1"})).await;
    let running = executions(&server, &task).await;
    assert_eq!((running.len(), &running[0]["status"]), (1, &json!("processing")));
    assert_eq!((&running[0]["completed_at"], &running[0]["duration_ms"]), (&Value::Null, &Value::Null));
    settle(&server, &first, "fail", json!({"error": error, "usage": {"tokens_used": 3}})).await.ok();
    post(&server, &task, "execute", json!({})).await.ok();

    let expired = claim_one(&server, &task, json!({"worker_id": "w2", "lease_seconds": 1})).await;
    pass_until_status(&server, &task, "pending").await;
    let released = claim_one(&server, &task, json!({"worker_id": "w3"})).await;
    settle(&server, &released, "release", json!({})).await.ok();
    let last = claim_one(&server, &task, json!({"worker_id": "w4"})).await;
    settle(&server, &last, "complete", json!({"result_id": "r-1"})).await.ok();

    let history = executions(&server, &task).await;
    let summary: Vec<_> = history
        .iter()
        .map(|execution| (execution["status"].as_str(), execution["worker_id"].as_str()))
        .collect();
    let expected = [("completed", "w4"), ("released", "w3"), ("lost", "w2"), ("failed", "w1")];
    assert_eq!(summary, expected.map(|(status, worker)| (Some(status), Some(worker))));
    for (execution, attempt) in history.iter().zip([&last, &released, &expired, &first]) {
        assert_eq!(execution["attempt"], attempt["attempt"], "{execution}");
        let (begun, ended) = (time(&execution["started_at"]), time(&execution["completed_at"]));
        assert_eq!(begun, time(&attempt["started_at"]), "{execution}");
        let took = execution["duration_ms"].as_i64().expect("a duration");
        assert!((took - (ended - begun).num_milliseconds()).abs() <= 1, "{execution}");
    }
    assert_eq!((&history[3]["error"], &history[3]["usage"]["tokens_used"]), (&error, &json!(3)));
    assert_eq!((&history[0]["error"], &history[0]["result_id"]), (&Value::Null, &json!("r-1")));
    let names: HashSet<&str> =
        history.iter().filter_map(|execution| execution["execution_id"].as_str()).collect();
    assert_eq!(names.len(), 4, "each has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_say_what_started_and_what_ended_them() {
    let server = TestServer::start().await;
    let newest = async |task: &Value| executions(&server, task).await.remove(0);

    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "fail", json!({})).await.ok();
    assert_eq!(newest(&task).await["trigger"], "claim");

    let retried = server.create(json!({})).await;
    let held = claim_one(&server, &retried, json!({})).await;
    settle(&server, &held, "fail", json!({"retry_after_seconds": 0})).await.ok();
    pass_until_status(&server, &retried, "pending").await;
    let held = server.claim(queue(&retried)).await;
    settle(&server, &held, "cancel", json!({})).await.ok();
    let last = newest(&retried).await;
    assert_eq!((&last["trigger"], &last["status"]), (&json!("retry"), &json!("cancelled")));

    post(&server, &retried, "execute", json!({})).await.ok();
    claim_one(&server, &retried, json!({})).await;
    assert_eq!(newest(&retried).await["trigger"], "manual");

    let managed = server.create(json!({})).await;
    put_status(&server, &managed, json!({"status": "processing"})).await.ok();
    let last = newest(&managed).await;
    assert_eq!((&last["trigger"], &last["worker_id"]), (&json!("self_managed"), &Value::Null));

    let slow = server.create(json!({"timeout_seconds": 1, "max_attempts": 1})).await;
    claim_one(&server, &slow, json!({})).await;
    pass_until_status(&server, &slow, "failed").await;
    let last = newest(&slow).await;
    assert_eq!((&last["status"], &last["error"]["code"]), (&json!("timeout"), &json!("timeout")));
}
