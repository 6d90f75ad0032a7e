//! More in one call than one database command could carry.

use std::collections::HashSet;
use std::time::Duration;

use bson::doc;
use chrono::TimeDelta;
use mongodb::options::ReadConcern;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};

use crate::verbs::{claim, create_many, executions, id, ids, post, settle, tasks, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_thousand_that_fills_its_body_is_created_whole() {
    let server = TestServer::start().await;
    let queue = unique_type();
    // 15.5 MiB of requests alone; a document is more than that.
    let request = "x".repeat((31 << 19) / 1000);
    let created = create_many(
        &server,
        1000,
        |n| json!({"task_type": queue, "name": n.to_string(), "request": request}),
    )
    .await;
    for n in [0, 499, 500, 999] {
        let task = server.task(id(&created[n])).await;
        assert_eq!((&task["name"], &task["request"]), (&json!(n.to_string()), &json!(request)));
    }
    let mut taken = Vec::new();
    while taken.len() < 1000 {
        let claimed = claim(&server, &queue, json!({"limit": 1000})).await;
        assert!(!tasks(&claimed).is_empty(), "{} of 1000", taken.len());
        taken.extend(ids(&claimed).into_iter().map(str::to_owned));
    }
    assert_eq!(taken, created.iter().map(id).collect::<Vec<_>>(), "all of them, in order");
}

/// How many tasks of the queue are ready, past the server: as a majority has it, which is what the server reads.
async fn ready(server: &TestServer, queue: &str) -> u64 {
    let tasks = server.database().collection::<bson::Document>("tasks");
    let count = tasks.count_documents(doc! {"task_type": queue, "status": "pending"});
    count.read_concern(ReadConcern::majority()).await.expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_with_long_histories_are_moved_together() {
    const TASKS: usize = 150;
    const FAILURES: usize = 5;
    let server = TestServer::start().await;
    let queue = unique_type();
    let created = create_many(&server, TASKS, |_| json!({"task_type": queue, "max_attempts": 50})).await;
    let details = "x".repeat(30 << 10);
    let claim_all = async || {
        eventually("all are ready", async || ready(&server, &queue).await == TASKS as u64).await;
        let claimed = claim(&server, &queue, json!({"limit": 600})).await;
        assert_eq!(tasks(&claimed).len(), TASKS);
        tasks(&claimed).clone()
    };
    let report = async |held: &[Value], outcome: Value| {
        let outcomes: Vec<Value> = held
            .iter()
            .map(|task| {
                let mut outcome = outcome.clone();
                outcome["id"] = task["id"].clone();
                outcome["lease_token"] = token(task).into();
                outcome
            })
            .collect();
        let answer = server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
        for result in answer["results"].as_array().unwrap() {
            assert!(result["receipt"].is_object(), "{result:.2000}");
        }
    };
    for attempt in 1..=FAILURES {
        let held = claim_all().await;
        assert!(held.iter().all(|task| task["attempt"] == attempt), "no attempt was lost");
        let error = json!({"message": "again", "details": details});
        report(&held, json!({"outcome": "failed", "error": error, "retry_after_seconds": 0})).await;
    }
    // Their histories have 22 MiB by now.
    let held = claim_all().await;
    report(&held, json!({"outcome": "completed"})).await;
    assert_eq!(executions(&server, &created[TASKS - 1]).await.len(), FAILURES + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_with_the_longest_histories_of_the_first_release_become_ready_together() {
    const TASKS: usize = 20;
    let server = TestServer::start().await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue})).await;
    let held = server.claim(&queue).await;
    let error = json!({"message": "again", "details": "x".repeat(30 << 10)});
    let later = json!({"error": error, "retry_after_seconds": 3600});
    settle(&server, &held, "fail", later).await.ok();
    // They are due together, and have 6 MiB each: more than all reads together may bring.
    let documents = server.database().collection::<bson::Document>("tasks");
    let mut stored = documents.find_one(doc! {}).await.expect("an answer").expect("the task");
    let attempts = stored.get_array("attempts").expect("attempts").clone();
    stored.insert("attempts", vec![attempts[0].clone(); 200]);
    stored.insert("run_at", bson::DateTime::from_chrono(server.now() + TimeDelta::minutes(30)));
    for _ in 0..TASKS {
        stored.insert("_id", bson::Uuid::from_bytes(uuid::Uuid::now_v7().into_bytes()));
        documents.insert_one(&stored).await.expect("a task");
    }
    server.jump(Duration::from_secs(31 * 60));
    eventually("they are ready", async || ready(&server, &queue).await == TASKS as u64).await;
    assert_eq!(server.task(id(&task)).await["status"], "scheduled", "the one that is not due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_claimed_together_each_have_a_lease_of_their_own() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 40, |_| json!({"task_type": queue})).await;
    let claimed = claim(&server, &queue, json!({"limit": 40})).await;
    let held = tasks(&claimed);
    let mut ids_of_attempts = HashSet::new();
    for task in held {
        for attempt in executions(&server, task).await {
            ids_of_attempts.insert(attempt["execution_id"].clone());
        }
    }
    let tokens: HashSet<_> = held.iter().map(token).collect();
    assert_eq!((tokens.len(), ids_of_attempts.len()), (40, 40));

    let stored = server.database().collection::<bson::Document>("tasks");
    let stamps = stored.distinct("stamp", doc! {"task_type": &queue}).await.expect("stamps");
    assert_eq!(stamps.len(), 40, "each write of a task has a stamp of its own");

    let [one, other, ..] = &held[..] else { panic!("40 tasks") };
    let swapped = json!({"lease_token": token(other)});
    post(&server, one, "complete", swapped).await.problem(409, "lease_lost");
    let beats: Vec<_> = held.iter().map(|task| json!({"id": id(task), "lease_token": token(task)})).collect();
    let answer = server.post("/tasks/heartbeat").json(&json!({"heartbeats": beats})).send().await.ok();
    for result in answer["results"].as_array().unwrap() {
        assert!(result["expires_at"].is_string(), "{result}");
    }
    for task in held {
        settle(&server, task, "complete", json!({})).await.ok();
    }
}
