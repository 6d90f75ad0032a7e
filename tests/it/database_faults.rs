//! Single failures of the database: what is answered is true, and nobody pays for a neighbour's failure.

use bson::{Document, doc};
use futures_util::future::join_all;
use serde_json::json;
use task_repo_tests::{TestServer, eventually, id_of, unique_type};
use uuid::Uuid;

use crate::fail_point::FailPoint;
use crate::verbs::{claim, claim_unheard, create_many, executions, id, ids, settle, shown, tasks};

/// Lets the next command of that name on this test's tasks fail.
async fn fail_next(server: &TestServer, command: &str, how: Document) -> FailPoint {
    FailPoint::set(server, command, doc! { "times": 1 }, how).await
}

/// The command is not carried out, and its answer never comes.
fn cut_off() -> Document {
    doc! { "closeConnection": true }
}

/// The command is carried out, but nobody knows whether it will last.
fn not_known_to_last() -> Document {
    doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_in_a_create_makes_one_task() {
    for how in [cut_off(), not_known_to_last()] {
        let server = TestServer::start().await;
        let queue = unique_type();
        let fault = fail_next(&server, "insert", how).await;
        let task = server.create(json!({"task_type": queue})).await;
        assert_eq!(fault.end().await, 1);
        let found = claim(&server, &queue, json!({"limit": 10})).await;
        assert_eq!(ids(&found), [id(&task)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_in_a_settlement_settles_once() {
    for how in [cut_off(), not_known_to_last()] {
        let server = TestServer::start().await;
        let task = server.create(json!({})).await;
        let held = server.claim(task["task_type"].as_str().unwrap()).await;
        let fault = fail_next(&server, "update", how).await;
        let receipt = settle(&server, &held, "complete", json!({"result": 7})).await.ok();
        assert_eq!(fault.end().await, 1);
        assert_eq!(receipt["status"], "completed");
        let now = shown(&server, &task).await;
        assert_eq!((&now["result"], &now["version"]), (&json!(7), &receipt["version"]), "{now:#}");
        assert_eq!(executions(&server, &task).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_in_a_claim_leaves_each_task_with_one_holder() {
    for how in [cut_off(), not_known_to_last()] {
        let server = TestServer::start().await;
        let queue = unique_type();
        let created = create_many(&server, 6, |_| json!({"task_type": queue})).await;
        let fault = fail_next(&server, "update", how).await;
        // Leases that would outlast the test: what was leased unheard goes back long before they run out.
        let body = json!({"task_types": [queue], "worker_id": "w", "limit": 4, "lease_seconds": 3600});
        let mut held = Vec::new();
        eventually("all tasks are held by somebody who knows of it", async || {
            let answer = server.post("/tasks/claim").json(&body).send().await;
            if answer.status == 200 {
                held.extend(tasks(&answer.json()).iter().cloned());
            } else {
                answer.problem(503, "outcome_unknown");
            }
            held.len() == created.len()
        })
        .await;
        assert_eq!(fault.end().await, 1);
        let answers =
            join_all(held.iter().map(async |task| settle(&server, task, "complete", json!({})).await));
        assert!(answers.await.iter().all(|answer| answer.status == 200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_written_does_not_stop_its_neighbours() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 5, |n| json!({"task_type": queue, "priority": 50 + n})).await;
    let held = claim(&server, &queue, json!({"limit": 5})).await;
    let rule = doc! { "$or": [{ "priority": { "$ne": 52 } }, { "status": "processing" }] };
    let validate = doc! { "collMod": "tasks", "validator": rule };
    server.database().run_command(validate).await.expect("a validator");
    let outcome = |task: &serde_json::Value| json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": "completed"});
    let body = json!({"outcomes": tasks(&held).iter().map(outcome).collect::<Vec<_>>()});
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    for (task, result) in tasks(&held).iter().zip(answer["results"].as_array().unwrap()) {
        let code = &result["problem"]["code"];
        let is_bad = task["priority"] == 52;
        assert_eq!(is_bad, code == "unavailable", "{result}");
        assert_eq!(shown(&server, task).await["status"], if is_bad { "processing" } else { "completed" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_ahead_is_not_handed_out_once_it_was_cancelled_or_edited() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let created = create_many(&server, 30, |_| json!({"task_type": queue})).await;
    // Each look reads further ahead.
    for _ in 0..4 {
        claim(&server, &queue, json!({})).await;
    }
    let other = server.sibling().await;
    other.post(&format!("/tasks/{}/cancel", id_of(&created[5]))).send().await.ok();
    let edit = json!({"request": {"edited": true}});
    other.put(&format!("/tasks/{}", id_of(&created[6]))).json(&edit).send().await.ok();
    let mut rest = Vec::new();
    loop {
        let claimed = claim(&server, &queue, json!({"limit": 3})).await;
        if tasks(&claimed).is_empty() {
            break;
        }
        rest.extend(tasks(&claimed).iter().cloned());
    }
    assert_eq!(rest.len(), 25);
    assert!(rest.iter().all(|task| id(task) != id(&created[5])));
    let edited = rest.iter().find(|task| id(task) == id(&created[6])).expect("it is there");
    assert_eq!(edited["request"], json!({"edited": true}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_higher_priority_from_another_server_waits_for_one_round_at_most() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let queue = unique_type();
    create_many(&server, 60, |_| json!({"task_type": queue})).await;
    for _ in 0..5 {
        claim(&server, &queue, json!({})).await;
    }
    let urgent = other.create(json!({"task_type": queue, "priority": 90})).await;
    let next = [claim(&server, &queue, json!({})).await, claim(&server, &queue, json!({})).await];
    assert!(next.iter().any(|claimed| ids(claimed) == [id(&urgent)]), "{next:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_repeat_has_brought_is_not_taken_back_by_the_server_that_was_asked_first() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let key = server.issue_key(&["worker"], json!({})).await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue})).await;
    let repeated = json!({"task_types": [queue], "worker_id": "w", "claim_id": Uuid::now_v7()});

    // Both the lease and its way back take a second, and the caller goes away during the first.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 1000};
    let fail_point = FailPoint::set(&server, "update", doc! {"times": 2}, slow).await;
    let caller = claim_unheard(&other, &key, &repeated).await;
    fail_point.has_hit(1).await;
    drop(caller);
    fail_point.has_hit(2).await;
    let again = server.post("/tasks/claim").json(&repeated).send().await.ok();
    assert_eq!(ids(&again), [id(&task)]);
    other.stop().await;
    assert_eq!(fail_point.end().await, 2);
    settle(&server, &tasks(&again)[0], "complete", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_claim_does_not_take_longer_than_its_deadline() {
    let server = TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 2000).await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue})).await;
    let repeated = json!({"task_types": [queue], "worker_id": "w", "claim_id": Uuid::now_v7()});
    let first = server.post("/tasks/claim").json(&repeated).send().await.ok();
    assert_eq!(ids(&first), [id(&task)]);

    // What was claimed is read twice: its leases, and then its payloads.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 1500};
    let fail_point = FailPoint::set(&server, "find", "alwaysOn", slow).await;
    server.post("/tasks/claim").json(&repeated).send().await.problem(503, "unavailable");
    fail_point.end().await;
    let again = server.post("/tasks/claim").json(&repeated).send().await.ok();
    assert_eq!(tasks(&again)[0]["lease"], tasks(&first)[0]["lease"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_which_something_was_written_does_not_say_that_nothing_was() {
    let server = TestServer::start().await;
    let body = json!({"tasks": [{"task_type": "a"}, {"task_type": "b"}]});
    let create =
        async || server.post("/tasks/batch").header("Idempotency-Key", "once").json(&body).send().await;
    create().await.ok();
    // The first is written again, and what became of the second cannot be read.
    let stored = server.database().collection::<Document>("tasks");
    stored.delete_one(doc! { "task_type": "a" }).await.expect("the first task is gone");
    let fail_point = FailPoint::set(&server, "find", "alwaysOn", doc! { "errorCode": 50 }).await;
    create().await.problem(503, "outcome_unknown");
    fail_point.end().await;
    assert_eq!(stored.count_documents(doc! {}).await.expect("a count"), 2);
}
