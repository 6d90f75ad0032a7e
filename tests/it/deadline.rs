//! A slow database keeps nobody waiting for longer than one deadline, however many steps a request has.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::json;
use task_repo_tests::{TestServer, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fail_point::FailPoint;
use crate::verbs::{id, post_head};

/// The deadline of a request is between one and two of these.
fn slow() -> Document {
    doc! { "blockConnection": true, "blockTimeMS": 1500 }
}

async fn impatient_server() -> TestServer {
    TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 2000).await
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
    let read = server.get(&format!("/tasks/{}?wait_ms=2500", id(&task))).send().await.ok();
    assert_eq!(read["status"], "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_slowly_does_not_use_the_deadline_up() {
    let server = impatient_server().await;
    let key = server.issue_key(&["producer"], json!({})).await;
    let body = json!({"task_type": "long"}).to_string();
    let mut caller = post_head(&server, "/tasks", &key, body.len()).await;
    let began = Instant::now();
    eventually("longer than the deadline", async || began.elapsed() > Duration::from_millis(2500)).await;
    caller.write_all(body.as_bytes()).await.expect("it is sent");
    let mut answer = [0; 12];
    caller.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, *b"HTTP/1.1 201");
}
