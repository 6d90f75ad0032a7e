//! More than the database takes: who comes too late is told so at once, and nothing of theirs is applied.

use std::sync::Arc;

use bson::doc;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use task_repo_tests::{TestServer, unique_type};

use crate::fail_point::FailPoint;

/// Twice what may wait.
const BATCHES: usize = 40;
const TASKS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_too_much_waiting_is_told_to_come_back_and_nothing_was_created() {
    let server =
        Arc::new(TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 60_000).await);
    let slow = doc! { "blockConnection": true, "blockTimeMS": 4000 };
    let fault = FailPoint::set(&server, "insert", "alwaysOn", slow).await;
    let batches = (0..BATCHES).map(|_| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let queue = unique_type();
            let tasks = vec![json!({"task_type": queue}); TASKS];
            let answer = server.post("/tasks/batch").json(&json!({"tasks": tasks})).send().await;
            (queue, answer)
        })
    });
    let mut batches: FuturesUnordered<_> = batches.collect();
    let (mut fault, mut refused) = (Some(fault), 0);
    while let Some(answered) = batches.next().await {
        let (queue, answer) = answered.unwrap();
        if let Some(fault) = fault.take() {
            assert_eq!(server.get("/health").send().await.status, 200);
            fault.end().await;
        }
        let results = answer.ok()["results"].as_array().unwrap().clone();
        let is_refused = |result: &&serde_json::Value| result["problem"]["code"] == "overloaded";
        let created = match results.iter().filter(is_refused).count() {
            0 => 1,
            some => {
                assert_eq!(some, TASKS, "items of one batch stay together");
                let problem = &results[0]["problem"];
                assert_eq!((&problem["status"], &problem["retryable"]), (&json!(503), &json!(true)));
                assert_eq!(problem["retry_after_seconds"], 1);
                refused += 1;
                0
            }
        };
        let found = server.get(&format!("/tasks?status=any&limit=1&task_type={queue}")).send().await.ok();
        assert_eq!(found["tasks"].as_array().unwrap().len(), created);
    }
    assert!(refused > 0, "all of it was taken");
}
