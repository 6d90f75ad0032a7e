//! A task that is claimed by its id for a caller that does not hear of it goes back to its queue.

use std::time::Duration;

use bson::doc;
use serde_json::json;
use task_repo_tests::{TestServer, eventually, id_of};

use crate::fail_point::FailPoint;
use crate::verbs::claim;

/// A pending task, and its queue.
async fn pending(server: &TestServer) -> (String, String) {
    let task = server.create(json!({})).await;
    (id_of(&task).to_owned(), task["task_type"].as_str().expect("a type").to_owned())
}

/// The task waits again as if nobody had claimed it.
async fn assert_waits(server: &TestServer, id: &str, queue: &str) {
    eventually("the task waits again", async || server.task(id).await["status"] == "pending").await;
    let task = server.task(id).await;
    assert_eq!((&task["attempt"], &task["lease"]), (&json!(0), &json!(null)));
    let claimed = claim(server, queue, json!({})).await;
    assert_eq!(claimed["tasks"][0]["id"], id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_during_the_write_leaves_no_lease() {
    let server = TestServer::start().await;
    let (id, queue) = pending(&server).await;
    let slow = doc! { "blockConnection": true, "blockTimeMS": 400 };
    let fault = FailPoint::set(&server, "update", doc! { "times": 1 }, slow).await;
    {
        let call = server.post(&format!("/tasks/{id}/claim")).json(&json!({"worker_id": "w"})).send();
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = fault.has_hit(1) => {}
        }
    }
    fault.end().await;
    // The write lands when it is let go.
    eventually("it was claimed", async || server.task(&id).await["version"] != 1).await;
    assert_waits(&server, &id, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_outcome_is_unknown_leaves_no_lease() {
    let server = TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 500).await;
    let (id, queue) = pending(&server).await;
    let slow = doc! { "blockConnection": true, "blockTimeMS": 1500 };
    let fault = FailPoint::set(&server, "update", doc! { "times": 1 }, slow).await;
    let call = server.post(&format!("/tasks/{id}/claim")).json(&json!({"worker_id": "w"})).send();
    let answer = tokio::time::timeout(Duration::from_secs(20), call).await.expect("an answer");
    answer.problem(503, "outcome_unknown");
    fault.end().await;
    assert_waits(&server, &id, &queue).await;
}
