//! `lease_lost` says how the attempt of the shown token ended, where it was one of the task's.

use bson::{DateTime, doc};
use serde_json::{Value, json};
use task_repo_client::{ExecutionStatus, NewTask};
use task_repo_tests::{HttpAnswer, TestServer, unique_type};

use crate::verbs::{
    STRANGE_TOKEN, claim_one, executions, id, post, settle, shown, time, token, until_status, with,
};

/// Has the lease of the task, or with `timeout` its attempt, run out now.
pub(crate) async fn run_out(server: &TestServer, task: &Value, timeout: bool) {
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 1000);
    let mut fields = doc! { "lease_until": past };
    if timeout {
        fields.insert("timeout_at", past);
    }
    let id = bson::Uuid::parse_str(id(task)).expect("a UUID");
    let tasks = server.database().collection::<bson::Document>("tasks");
    let updated = tasks.update_one(doc! { "_id": id, "status": "processing" }, doc! { "$set": fields }).await;
    assert_eq!(updated.expect("an update").modified_count, 1, "the task is held");
}

/// Checks that the answer tells how the attempt ended, as the executions show it, for that reason.
async fn assert_ended(server: &TestServer, held: &Value, problem: &Value, reason: Option<&str>) {
    assert_eq!(problem["code"], "lease_lost", "{problem}");
    let attempts = executions(server, held).await;
    let attempt = attempts
        .iter()
        .find(|attempt| attempt["started_at"] == held["started_at"])
        .expect("the attempt is one of the executions");
    let expected = json!({"status": attempt["status"], "reason": reason, "at": attempt["completed_at"]});
    assert_eq!(problem["ended"], expected, "{problem}");
}

fn lost(answer: &HttpAnswer) -> Value {
    answer.problem(409, "lease_lost")
}

/// A task of these fields, held.
async fn held(server: &TestServer, fields: Value) -> Value {
    let task = server.create(fields).await;
    claim_one(server, &task, json!({"lease_seconds": 600})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_told_how_its_attempt_ended() {
    let server = TestServer::start().await;
    for (max_attempts, timeout, cancel, status, reason) in [
        (3, false, false, "pending", None),
        (1, false, false, "failed", Some("lost")),
        (3, true, false, "scheduled", Some("retry")),
        (1, true, false, "failed", Some("timeout")),
        (3, false, true, "cancelled", None),
        (3, true, true, "cancelled", None),
    ] {
        let retry = json!({"backoff": "fixed", "base_seconds": 3600, "jitter": 0});
        let held =
            held(&server, json!({"max_attempts": max_attempts, "retry": retry, "timeout_seconds": 700}))
                .await;
        if cancel {
            post(&server, &held, "cancel", json!({})).await.ok();
        }
        run_out(&server, &held, timeout).await;
        until_status(&server, &held, status).await;
        for verb in ["heartbeat", "fail", "release", "cancel"] {
            let problem = lost(&settle(&server, &held, verb, json!({})).await);
            assert_eq!(problem["ended"]["status"], if timeout { "timeout" } else { "lost" }, "{problem}");
            assert_ended(&server, &held, &problem, reason).await;
        }
        // The same whatever became of the task later.
        if !cancel {
            if status != "pending" {
                post(&server, &held, "execute", json!({})).await.ok();
            }
            claim_one(&server, &held, json!({})).await;
            let problem = lost(&settle(&server, &held, "complete", json!({})).await);
            assert_ended(&server, &held, &problem, reason).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_worker_itself_has_said_is_told_too() {
    let server = TestServer::start().await;
    for (verb, more, status, reason) in [
        ("complete", json!({}), "completed", None),
        ("fail", json!({"retry_after_seconds": 3600}), "failed", Some("retry")),
        ("fail", json!({"retry": "never"}), "failed", Some("error")),
        ("release", json!({}), "released", None),
        ("release", json!({"delay_seconds": 3600}), "released", Some("delayed")),
        ("cancel", json!({}), "cancelled", None),
    ] {
        let held = held(&server, json!({})).await;
        settle(&server, &held, verb, more).await.ok();
        let problem = lost(&settle(&server, &held, "heartbeat", json!({})).await);
        assert_eq!(problem["ended"]["status"], status);
        assert_ended(&server, &held, &problem, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_batches_each_is_told_of_its_own() {
    let server = TestServer::start().await;
    let gone = held(&server, json!({"max_attempts": 1})).await;
    let kept = held(&server, json!({})).await;
    run_out(&server, &gone, false).await;
    until_status(&server, &gone, "failed").await;
    let of = |task: &Value, token: &str| json!({"id": task["id"], "lease_token": token});
    let items = [of(&gone, token(&gone)), of(&kept, token(&kept)), of(&gone, STRANGE_TOKEN)];
    let beats = server.post("/tasks/heartbeat").json(&json!({"heartbeats": items})).send().await.ok();
    let outcomes: Vec<_> =
        items.iter().map(|item| with(item.clone(), json!({"outcome": "completed"}))).collect();
    let settled = server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
    for results in [&beats["results"], &settled["results"]] {
        assert_ended(&server, &gone, &results[0]["problem"], Some("lost")).await;
        assert_eq!(results[1]["problem"], Value::Null, "{results}");
        assert_eq!(results[2]["problem"]["code"], "lease_lost");
        assert_eq!(results[2]["problem"].get("ended"), None, "nobody was ever given that token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_told() {
    let server = TestServer::start().await;
    let task = held(&server, json!({"user_id": "alice"})).await;
    run_out(&server, &task, false).await;
    until_status(&server, &task, "pending").await;
    let body = json!({"lease_token": token(&task)});
    let path = format!("/tasks/{}/heartbeat", id(&task));
    for (header, value) in [("X-User-ID", "bob"), ("X-Tenant-ID", "another")] {
        let answer = server.post(&path).header(header, value).json(&body).send().await;
        assert_eq!(answer.problem(404, "task_not_found").get("ended"), None);
    }
    // A token that holds the task, or that held another one, is told of no end.
    let holding = claim_one(&server, &task, json!({})).await;
    let other = held(&server, json!({})).await;
    let problem = lost(&post(&server, &other, "heartbeat", json!({"lease_token": token(&holding)})).await);
    assert_eq!(problem.get("ended"), None, "{problem}");
    assert_eq!(shown(&server, &other).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_tells_it() {
    let server = TestServer::start().await;
    let client = server.client();
    let task = client.create_task(&NewTask::new(unique_type())).await.unwrap();
    let claimed = client.claim_task(task.id, "w").await.unwrap();
    run_out(&server, &json!({"id": task.id}), false).await;
    let back = until_status(&server, &json!({"id": task.id}), "pending").await;
    let error = claimed.heartbeat(None).await.unwrap_err();
    let ended = error.attempt_end().expect("the attempt was one of the task's");
    assert_eq!((ended.status, ended.reason), (ExecutionStatus::Lost, None));
    assert_eq!(ended.at, time(&back["updated_at"]));
}
