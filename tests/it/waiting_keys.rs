//! Calls that wait end with the key that they wait under.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, id_of, in_seconds};
use uuid::Uuid;

fn secret(issued: &Value) -> &str {
    issued["key"].as_str().expect("a secret")
}

/// A call that waits for half a minute with that key, and one that waits for the end of that task.
async fn waiting_calls(server: &TestServer, key: &str, task: &str) -> [HttpAnswer; 2] {
    let body = json!({"task_types": ["nothing"], "worker_id": "w", "wait_ms": 30_000});
    let claim = server.post("/tasks/claim").key(key).json(&body).send();
    let wait = server.get(&format!("/tasks/{task}?wait_ms=30000")).key(key).send();
    let calls = async { tokio::join!(claim, wait).into() };
    tokio::time::timeout(Duration::from_secs(20), calls).await.expect("answers before the waits are over")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_end_with_their_key() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let [revoked, expiring, narrowed] = [json!({}), json!({"expires_at": in_seconds(3)}), json!({})];
    let [revoked, expiring, narrowed] =
        join_all([revoked, expiring, narrowed].map(|extra| server.issue(&["worker", "viewer"], extra)))
            .await
            .try_into()
            .expect("three keys");
    let end = async {
        // The third of them here ends by itself, perhaps before it is seen.
        server.until_claims_wait("nothing", 2).await;
        server.until_reads_wait(2).await;
        other.until_claims_wait("nothing", 1).await;
        other.until_reads_wait(1).await;
        server.delete(&format!("/keys/{}", id_of(&revoked))).send().await.success();
        // There is no call that takes a type from a key; who may write to the database can.
        let keys = server.database().collection::<Document>("api_keys");
        let id = Uuid::parse_str(id_of(&narrowed)).expect("an id");
        let narrow = doc! { "$set": { "task_types": ["another"] } };
        keys.update_one(doc! { "_id": bson::Uuid::from_bytes(id.into_bytes()) }, narrow)
            .await
            .expect("a write");
        server.issue(&["viewer"], json!({})).await;
    };
    let (here, there, expired, narrowed, ()) = tokio::join!(
        waiting_calls(&server, secret(&revoked), id_of(&task)),
        waiting_calls(&other, secret(&revoked), id_of(&task)),
        waiting_calls(&server, secret(&expiring), id_of(&task)),
        waiting_calls(&server, secret(&narrowed), id_of(&task)),
        end
    );
    for answer in here.iter().chain(&there).chain(&expired) {
        answer.problem(401, "unauthenticated");
    }
    for answer in &narrowed {
        answer.problem(403, "forbidden");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_waits_for_the_next_work_ends_with_its_key() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "once"})).await;
    let issued = server.issue(&["worker"], json!({})).await;
    let held = server.claim("once").await;
    let outcome = json!({"id": task["id"], "lease_token": held["lease"]["token"], "outcome": "completed"});
    let claim = json!({"task_types": ["nothing"], "worker_id": "w", "wait_ms": 30_000});
    let body = json!({"outcomes": [outcome], "claim": claim});
    let delivery = server.post("/tasks/outcomes").key(secret(&issued)).json(&body).send();
    let end = async {
        server.until_claims_wait("nothing", 1).await;
        server.delete(&format!("/keys/{}", id_of(&issued))).send().await.success();
    };
    let delivery = tokio::time::timeout(Duration::from_secs(20), delivery);
    let (answer, ()) = tokio::join!(delivery, end);
    let answer = answer.expect("an answer before the wait is over").ok();
    assert_eq!(answer["results"][0]["receipt"]["status"], "completed", "what was settled is settled");
    assert_eq!(answer["tasks"], json!([]));
}
