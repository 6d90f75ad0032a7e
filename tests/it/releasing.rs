//! `release`: how long the task waits, and that tasks which nobody wants do not go round in circles.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};

use crate::verbs::{
    assert_receipt, assert_seconds_after, claim_one, create_many, executions, post, put_status, queue,
    settle, shown, time, token,
};

/// Claims the task, and gives it back with that body; says where the task stands then.
async fn give_back(server: &TestServer, task: &Value, more: Value) -> Value {
    if shown(server, task).await["status"] == "scheduled" {
        post(server, task, "execute", json!({})).await.ok();
    }
    let held = claim_one(server, task, json!({})).await;
    let receipt = settle(server, &held, "release", more).await.ok();
    let now = shown(server, task).await;
    assert_receipt(&receipt, &now);
    now
}

/// Seconds from the release until the task may be claimed; 0: it is `pending`.
#[track_caller]
fn wait(now: &Value) -> i64 {
    if now["status"] == "pending" {
        assert_eq!(now["reason"], Value::Null, "{now}");
        return 0;
    }
    assert_eq!((&now["status"], &now["reason"]), (&json!("scheduled"), &json!("delayed")), "{now}");
    (time(&now["run_at"]) - time(&now["updated_at"])).num_seconds()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_third_release_in_a_row_on_the_task_waits() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 1})).await;
    assert_eq!(task["releases"], 0);
    for (place, seconds) in [0, 0, 1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let now = give_back(&server, &task, json!({})).await;
        assert_eq!((wait(&now), &now["releases"]), (seconds, &json!(place + 1)), "{now}");
        assert_eq!(now["attempt"], 0, "it costs no attempt: {now}");
    }
    assert_eq!(executions(&server, &task).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_two_releases_put_it_back_in_its_place() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let tasks = create_many(&server, 2, |_| json!({"task_type": queue})).await;
    for releases in 0..2 {
        let held = server.claim(&queue).await;
        assert_eq!(
            (&held["id"], &held["releases"]),
            (&tasks[0]["id"], &json!(releases)),
            "the oldest goes first"
        );
        settle(&server, &held, "release", json!({})).await.ok();
    }
    let held = server.claim(&queue).await;
    settle(&server, &held, "release", json!({})).await.ok();
    assert_eq!(server.claim(&queue).await["id"], tasks[1]["id"], "the third time it waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_a_delay_waits_that_long_and_counts() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    for releases in 1..=2 {
        let now = give_back(&server, &task, json!({"delay_seconds": 600})).await;
        assert_eq!((wait(&now), &now["releases"]), (600, &json!(releases)));
    }
    assert_eq!(wait(&give_back(&server, &task, json!({"delay_seconds": null})).await), 1, "it is the third");
    assert_eq!(wait(&give_back(&server, &task, json!({"delay_seconds": 0})).await), 0, "it says how long");
    assert_eq!(wait(&give_back(&server, &task, json!({})).await), 4, "it is the fifth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_ends_otherwise_ends_the_row() {
    let server = TestServer::start().await;
    for end in ["fail", "self-managed", "execute"] {
        let task = server.create(json!({})).await;
        for _ in 0..3 {
            give_back(&server, &task, json!({})).await;
        }
        post(&server, &task, "execute", json!({})).await.ok();
        assert_eq!(
            shown(&server, &task).await["releases"],
            3,
            "only of a final task it is another beginning"
        );
        match end {
            "fail" => {
                let held = claim_one(&server, &task, json!({})).await;
                settle(&server, &held, "fail", json!({"retry_after_seconds": 3600})).await.ok();
            }
            "self-managed" => {
                put_status(&server, &task, json!({"status": "processing"})).await.ok();
                put_status(&server, &task, json!({"status": "completed"})).await.ok();
                post(&server, &task, "execute", json!({})).await.ok();
            }
            _ => {
                post(&server, &task, "cancel", json!({})).await.ok();
                assert_eq!(shown(&server, &task).await["releases"], 3);
                post(&server, &task, "execute", json!({})).await.ok();
            }
        }
        assert_eq!(shown(&server, &task).await["releases"], 0, "{end}");
        let now = give_back(&server, &task, json!({})).await;
        assert_eq!((wait(&now), &now["releases"]), (0, &json!(1)), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_releases_in_one_call_wait_alike() {
    let server = TestServer::start().await;
    let tasks = create_many(&server, 3, |_| json!({"task_type": unique_type()})).await;
    for (round, seconds) in [0, 0, 1, 2].into_iter().enumerate() {
        let mut outcomes = Vec::new();
        for task in &tasks {
            if shown(&server, task).await["status"] == "scheduled" {
                post(&server, task, "execute", json!({})).await.ok();
            }
            let held = claim_one(&server, task, json!({})).await;
            outcomes.push(json!({"id": held["id"], "lease_token": token(&held), "outcome": "released"}));
        }
        let body = json!({"outcomes": outcomes});
        let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
        for (task, result) in tasks.iter().zip(answer["results"].as_array().expect("results")) {
            let now = shown(&server, task).await;
            assert_receipt(&result["receipt"], &now);
            assert_eq!((wait(&now), &now["releases"]), (seconds, &json!(round + 1)), "{} {now}", queue(task));
        }
        let again = server.post("/tasks/outcomes").json(&body).send().await.ok();
        assert_eq!(again["results"], answer["results"], "a repeat is no further release");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_goes_before_the_wait() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    for _ in 0..2 {
        give_back(&server, &task, json!({})).await;
    }
    let held = claim_one(&server, &task, json!({})).await;
    post(&server, &task, "cancel", json!({})).await.ok();
    let receipt = settle(&server, &held, "release", json!({})).await.ok();
    assert_eq!((&receipt["status"], &receipt["run_at"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(shown(&server, &task).await["releases"], 3, "it counts all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_is_counted_from_the_release() {
    let server = TestServer::start().await;
    let task = server.create(json!({"run_at": "2020-01-01T00:00:00Z"})).await;
    let now = give_back(&server, &task, json!({"delay_seconds": 31_536_000})).await;
    assert_seconds_after(&now["run_at"], time(&now["updated_at"]), 31_536_000);
}
