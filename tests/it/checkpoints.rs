//! Checkpoints: what an attempt leaves for the next one, kept as sent, fenced by the attempt, gone when the task is final.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, raw};

use crate::verbs::{claim, claim_one, id, pass_until_status, post, settle, shown, tasks, token};

async fn beat(server: &TestServer, held: &Value, checkpoint: Value) -> Value {
    settle(server, held, "heartbeat", json!({"checkpoint": checkpoint})).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_comes_with_the_next_claim_as_it_was_sent() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "t"})).await;
    assert_eq!(shown(&server, &task).await["checkpoint"], Value::Null);
    let held = claim_one(&server, &task, json!({})).await;
    assert_eq!(held["checkpoint"], Value::Null);
    let version = shown(&server, &task).await["version"].clone();
    let text = r#"{"b":1.0,"a":[12345678901234567890123,"$x.y"],"c":null}"#;
    let body = format!(r#"{{"lease_token":"{}","checkpoint":{text}}}"#, token(&held));
    server.post(&format!("/tasks/{}/heartbeat", id(&task))).json_text(body).send().await.ok();
    let get = server.get(&format!("/tasks/{}", id(&task))).send().await;
    assert_eq!(get.raw("checkpoint"), text);
    assert_eq!(get.ok()["version"], version, "alone it is no version");
    let list = server.get("/tasks").query(&[("status", "any"), ("include", "payload")]).send().await.ok();
    assert!(tasks(&list)[0].get("checkpoint").is_none(), "{list}");
    settle(&server, &held, "release", json!({})).await.ok();
    let body = json!({"task_types": ["t"], "worker_id": "w2"});
    let claimed = server.post("/tasks/claim").json(&body).send().await;
    let again = raw(&claimed.text(), "tasks");
    assert!(again.contains(text), "{again}");
    let held = tasks(&claimed.ok())[0].clone();
    settle(&server, &held, "fail", json!({"checkpoint": {"step": 2}, "retry_after_seconds": 0})).await.ok();
    pass_until_status(&server, &task, "pending").await;
    let held = claim_one(&server, &task, json!({})).await;
    assert_eq!(held["checkpoint"], json!({"step": 2}));
    settle(&server, &held, "release", json!({"checkpoint": [3]})).await.ok();
    let held = claim(&server, "t", json!({})).await["tasks"][0].clone();
    assert_eq!(held["checkpoint"], json!([3]));
    settle(&server, &held, "complete", json!({})).await.ok();
    assert_eq!(shown(&server, &task).await["checkpoint"], Value::Null, "it is final");
    post(&server, &task, "execute", json!({})).await.ok();
    assert_eq!(claim_one(&server, &task, json!({})).await["checkpoint"], Value::Null, "it starts over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_and_null_removes_it() {
    let server = TestServer::start().await;
    let new = async || server.create(json!({"task_type": "t"})).await;
    let (one, two) = (new().await, new().await);
    let held = claim(&server, "t", json!({"limit": 2})).await;
    let (first, second) = (&tasks(&held)[0], &tasks(&held)[1]);
    let beats = json!({"heartbeats": [
        {"id": id(first), "lease_token": token(first), "checkpoint": 1},
        {"id": id(second), "lease_token": token(second), "checkpoint": 2},
        {"id": id(second), "lease_token": "strange", "checkpoint": 3},
    ]});
    let answer = server.post("/tasks/heartbeat").json(&beats).send().await.ok();
    assert_eq!(answer["results"][2]["problem"]["code"], "lease_lost");
    assert_eq!(
        (&shown(&server, &one).await["checkpoint"], &shown(&server, &two).await["checkpoint"]),
        (&json!(1), &json!(2))
    );
    beat(&server, first, Value::Null).await;
    assert_eq!(shown(&server, &one).await["checkpoint"], Value::Null);
    let outcomes = json!({"outcomes": [
        {"id": id(first), "lease_token": token(first), "outcome": "released", "checkpoint": "a"},
        {"id": id(second), "lease_token": token(second), "outcome": "failed", "error": {"message": "m"}, "checkpoint": "b"},
    ], "claim": {"task_types": ["t"], "worker_id": "w2"}});
    let answer = server.post("/tasks/outcomes").json(&outcomes).send().await.ok();
    assert_eq!(answer["tasks"][0]["checkpoint"], "a");
    post(&server, &two, "execute", json!({})).await.ok();
    assert_eq!(claim_one(&server, &two, json!({})).await["checkpoint"], "b", "a scheduled task keeps it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_one_never_replaces_a_newer_one() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let old = claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    beat(&server, &old, json!("old")).await;
    pass_until_status(&server, &task, "pending").await;
    let other = server.sibling().await;
    let new = claim_one(&other, &task, json!({})).await;
    assert_eq!(new["checkpoint"], "old");
    beat(&other, &new, json!("new")).await;
    settle(&server, &old, "heartbeat", json!({"checkpoint": "late"})).await.problem(409, "lease_lost");
    settle(&server, &old, "release", json!({"checkpoint": "late"})).await.problem(409, "lease_lost");
    assert_eq!(shown(&server, &task).await["checkpoint"], "new");
    // As a server does that has found the token good and stood still before it wrote.
    let checkpoints = server.database().collection::<bson::Document>("tasks_checkpoints");
    let stored = checkpoints.find_one(bson::doc! {}).await.unwrap().unwrap();
    let fence = stored.get_i64("fence").unwrap();
    let late = bson::doc! { "_id": stored.get("_id"), "fence": { "$lte": fence - 1 } };
    let written = checkpoints.update_one(late, bson::doc! { "$set": { "text": "0" } }).await.unwrap();
    assert_eq!(written.matched_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_checkpoint_is_refused_and_changes_nothing() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    beat(&server, &held, json!("good")).await;
    let deep = (0..33).fold(json!(1), |inner, _| json!([inner]));
    for bad in [json!("x".repeat(64 << 10)), deep] {
        for verb in ["heartbeat", "release", "fail"] {
            let problem = settle(&server, &held, verb, json!({"checkpoint": bad}))
                .await
                .problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["loc"], json!(["body", "checkpoint"]), "{problem}");
        }
    }
    settle(&server, &held, "complete", json!({"checkpoint": 1})).await.problem(422, "validation_failed");
    let outcome = json!({"outcomes": [{"id": id(&task), "lease_token": token(&held), "outcome": "completed", "checkpoint": 1}]});
    let answer = server.post("/tasks/outcomes").json(&outcome).send().await.ok();
    assert_eq!(answer["results"][0]["problem"]["code"], "validation_failed");
    assert_eq!(shown(&server, &task).await["checkpoint"], "good");
    let largest = "x".repeat((64 << 10) - 2);
    beat(&server, &held, json!(largest)).await;
    assert_eq!(shown(&server, &task).await["checkpoint"], largest);
}
