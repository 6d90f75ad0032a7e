//! A slow database keeps nobody waiting for longer than one deadline, however many steps a request has.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::fail_point::FailPoint;
use crate::verbs::{id, ids, post_head, with};

/// The deadline of a request is between one and two of these.
fn slow() -> Document {
    doc! { "blockConnection": true, "blockTimeMS": 2500 }
}

async fn impatient_server() -> TestServer {
    TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 4000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_create_has_one_deadline() {
    let server = impatient_server().await;
    let create = async || {
        let body = json!({"task_type": "slow"});
        server.post("/tasks").header("Idempotency-Key", "once").json(&body).send().await
    };
    let first = create().await.ok();
    // The key is found to be taken, and then the task is read that it made.
    let broken = FailPoint::set_all(&server, "tasks", &["insert", "find"], "alwaysOn", slow()).await;
    create().await.problem(503, "unavailable");
    broken.end().await;
    assert_eq!(create().await.ok()["id"], first["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_out_who_calls_counts_as_well() {
    let server = impatient_server().await;
    let key = server.issue_key(&["admin"], json!({})).await;
    // The key is looked up, and then all keys are read.
    let broken = FailPoint::set_on(&server, "api_keys", "find", "alwaysOn", slow()).await;
    server.get("/keys").key(&key).send().await.problem(503, "unavailable");
    broken.end().await;
    server.get("/keys").key(&key).send().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_end_of_a_task_does_not_use_the_deadline_up() {
    let server = impatient_server().await;
    let task = server.create(json!({"task_type": "long"})).await;
    let read = server.get(&format!("/tasks/{}?wait_ms=4500", id(&task))).send().await.ok();
    assert_eq!(read["status"], "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_slowly_does_not_use_the_deadline_up() {
    let server = impatient_server().await;
    let key = server.issue_key(&["producer"], json!({})).await;
    let body = json!({"task_type": "long"}).to_string();
    let mut caller = post_head(&server, "/tasks", &key, body.len()).await;
    let began = Instant::now();
    eventually("longer than the deadline", async || began.elapsed() > Duration::from_millis(4500)).await;
    caller.write_all(body.as_bytes()).await.expect("it is sent");
    let mut answer = [0; 12];
    caller.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, *b"HTTP/1.1 201");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_work_does_not_use_the_deadline_up() {
    let server = impatient_server().await;
    let queue = unique_type();
    let claim = json!({
        "task_types": [queue], "worker_id": "w", "wait_ms": 6000, "claim_id": Uuid::now_v7(),
    });
    let began = Instant::now();
    // The second waits for the end of the first, and is done when its own wait is over.
    let (first, second, with_outcomes) = tokio::join!(
        server.post("/tasks/claim").json(&claim).send(),
        server.post("/tasks/claim").json(&claim).send(),
        server.post("/tasks/outcomes").json(&json!({"outcomes": [], "claim": claim_apart(&claim)})).send(),
    );
    for answer in [first, second, with_outcomes] {
        assert_eq!(ids(&answer.ok()), Vec::<&str>::new());
    }
    assert!(began.elapsed() < Duration::from_secs(9), "one wait, and not two: {:?}", began.elapsed());
}

/// The same claim under another id.
fn claim_apart(claim: &Value) -> Value {
    with(claim.clone(), json!({"claim_id": Uuid::now_v7()}))
}
