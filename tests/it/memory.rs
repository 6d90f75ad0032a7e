//! How much memory a server takes, whatever its callers bring and ask for.

use bson::{Document, doc};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_tests::{API_KEY, TestServer, id_of, unique_type};
use uuid::Uuid;

use crate::program::Program;

/// Most memory a server may have, in MiB.
const MOST: u64 = 256;
/// How many large tasks there are: read at once they would take several times as much.
const TASKS: usize = 250;

/// JSON text of that many bytes.
fn text(bytes: usize) -> Value {
    Value::from("x".repeat(bytes - 2))
}

/// As many copies of a stored task as are missing to `TASKS`, each with an id of its own.
async fn copy(server: &TestServer, id: &str) -> Vec<String> {
    let tasks = server.database().collection::<Document>("tasks");
    let first = Uuid::parse_str(id).expect("an id");
    let stored = tasks.find_one(doc! {"_id": bson::Uuid::from_bytes(first.into_bytes())}).await;
    let stored = stored.expect("a read").expect("the task");
    let ids: Vec<_> = (1..TASKS).map(|_| Uuid::now_v7()).collect();
    for ids in ids.chunks(40) {
        let copies = ids.iter().map(|id| {
            let mut copy = stored.clone();
            copy.insert("_id", bson::Uuid::from_bytes(id.into_bytes()));
            copy
        });
        tasks.insert_many(copies).await.expect("copies");
    }
    std::iter::once(first).chain(ids).map(|id| id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_results_that_wait_again_are_claimed_in_little_memory() {
    let beside = TestServer::start().await;
    let queue = unique_type();
    let task = beside.create(json!({"task_type": queue})).await;
    let claimed = beside.claim(&queue).await;
    beside.complete(&claimed, text(MAX_TASK_BYTES)).await;
    let ids = copy(&beside, id_of(&task)).await;

    let program = Program::start(beside.test_database(), API_KEY).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let post = |path: String, body: Value| {
        let call = http.post(format!("{}/api/v1{path}", program.url)).bearer_auth(API_KEY);
        async move { call.json(&body).send().await.expect("an answer") }
    };
    let again = ids.iter().map(|id| post(format!("/tasks/{id}/execute"), json!({})));
    let again = stream::iter(again).buffer_unordered(8);
    again.for_each(async |answer| assert_eq!(answer.status(), 200)).await;

    let claim = json!({"task_types": [queue], "worker_id": "w", "limit": 1000});
    let mut claimed = 0;
    loop {
        let answer = post("/tasks/claim".to_owned(), claim.clone()).await;
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.expect("JSON");
        match answer["tasks"].as_array().expect("tasks").len() {
            0 => break,
            some => claimed += some,
        }
    }
    assert_eq!(claimed, TASKS);
    let peak = program.peak_mib();
    println!("at most {peak} MiB");
    assert!(peak < MOST, "{peak} MiB");
}
