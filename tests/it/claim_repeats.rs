//! `claim_id`: a claim that may have been answered can be sent again.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};
use uuid::Uuid;

use crate::verbs::{claim, claim_unheard, create_many, id, ids, settle, shown, tasks, token, with};

/// Long enough for whatever is given back meanwhile.
const WAIT_MS: u64 = 20_000;

/// The ids and tokens that a claim was answered with.
fn held(answer: &Value) -> Vec<(&str, &str)> {
    tasks(answer).iter().map(|task| (id(task), token(task))).collect()
}

async fn ready(server: &TestServer, queue: &str) -> usize {
    let filter = [("status", "pending"), ("task_type", queue), ("limit", "100")];
    tasks(&server.get("/tasks").query(&filter).send().await.ok()).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_claim_brings_the_same_tasks_and_tokens() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 10, |n| json!({"task_type": queue, "priority": n, "request": {"n": n}})).await;
    let repeated = json!({"claim_id": Uuid::now_v7(), "limit": 3});

    let first = claim(&server, &queue, repeated.clone()).await;
    assert_eq!(tasks(&first).len(), 3);
    let second = claim(&server, &queue, repeated.clone()).await;
    assert_eq!(held(&first), held(&second), "the same tasks with the same tokens, in the same order");
    assert_eq!(tasks(&second)[0]["request"], json!({"n": 9}), "with their payload");
    assert_eq!(ready(&server, &queue).await, 7, "nothing new was claimed");
    assert_eq!(tasks(&second)[0]["attempt"], 1, "and no attempt was counted");

    // Another id, or none, brings other tasks.
    let other = claim(&server, &queue, json!({"claim_id": Uuid::now_v7(), "limit": 2})).await;
    let none = claim(&server, &queue, json!({"limit": 2})).await;
    assert!(held(&other).iter().chain(&held(&none)).all(|task| !held(&first).contains(task)));
    assert_eq!(ready(&server, &queue).await, 3);

    // What is settled is held no longer; when all is, there is nothing to bring, and nothing new is claimed.
    settle(&server, &tasks(&first)[0], "complete", json!({})).await.ok();
    let left = claim(&server, &queue, repeated.clone()).await;
    assert_eq!(held(&left), held(&first)[1..]);
    settle(&server, &tasks(&first)[1], "complete", json!({})).await.ok();
    settle(&server, &tasks(&first)[2], "fail", json!({"retry": "never"})).await.ok();
    for _ in 0..2 {
        assert_eq!(claim(&server, &queue, repeated.clone()).await, json!({"tasks": []}));
    }
    assert_eq!(ready(&server, &queue).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_sent_many_times_at_once_is_carried_out_once() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 40, |_| json!({"task_type": queue})).await;
    for round in 1..=4 {
        let repeated = json!({"claim_id": Uuid::now_v7(), "limit": 5});
        let answers = join_all((0..8).map(|_| claim(&server, &queue, repeated.clone()))).await;
        assert_eq!(tasks(&answers[0]).len(), 5);
        for answer in &answers {
            assert_eq!(held(answer), held(&answers[0]));
        }
        assert_eq!(ready(&server, &queue).await, 40 - 5 * round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_answer_is_not_remembered() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let repeated = json!({"claim_id": Uuid::now_v7(), "limit": 2, "wait_ms": 50});
    assert_eq!(claim(&server, &queue, repeated.clone()).await, json!({"tasks": []}));
    let task = server.create(json!({"task_type": queue})).await;
    let claimed = claim(&server, &queue, repeated.clone()).await;
    assert_eq!(ids(&claimed), [id(&task)]);

    // Now it is remembered, with the one task it brought.
    server.create(json!({"task_type": queue})).await;
    assert_eq!(held(&claim(&server, &queue, repeated).await), held(&claimed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_taken_back_is_not_brought_again_by_the_old_claim() {
    let server = TestServer::start().await;
    let queue = unique_type();
    server.create(json!({"task_type": queue})).await;
    let repeated = json!({"claim_id": Uuid::now_v7()});
    let first = claim(&server, &queue, repeated.clone()).await;
    settle(&server, &tasks(&first)[0], "release", json!({})).await.ok();
    assert_eq!(claim(&server, &queue, repeated.clone()).await, json!({"tasks": []}));

    // Somebody else's claim of it is nothing to this one either.
    let second = claim(&server, &queue, json!({"worker_id": "w2"})).await;
    assert_eq!(ids(&second), ids(&first));
    assert_eq!(claim(&server, &queue, repeated).await, json!({"tasks": []}));
    settle(&server, &tasks(&second)[0], "complete", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_id_belongs_to_its_tenant_and_user() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let body = json!({"task_types": [queue], "worker_id": "w1", "limit": 1, "claim_id": Uuid::now_v7()});
    let mut given = Vec::new();
    for (tenant, user) in [("red", None), ("red", Some("ann")), ("red", Some("bob")), ("blue", None)] {
        let create = server.post("/tasks").tenant(tenant).json(&json!({"task_type": queue}));
        let create = if let Some(user) = user { create.user(user) } else { create };
        let task = create.send().await.ok();

        let mut answers = Vec::new();
        for _ in 0..2 {
            let call = server.post("/tasks/claim").tenant(tenant).json(&body);
            let call = if let Some(user) = user { call.user(user) } else { call };
            answers.push(call.send().await.ok());
        }
        assert_eq!(ids(&answers[0]), [id(&task)], "{tenant} {user:?} gets its own");
        assert_eq!(held(&answers[0]), held(&answers[1]), "{tenant} {user:?} gets it again");
        given.push(id(&task).to_owned());
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_comes_with_outcomes_repeats_too() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 4, |_| json!({"task_type": queue})).await;
    let done = server.claim(&queue).await;
    let body = json!({
        "outcomes": [{"id": id(&done), "lease_token": token(&done), "outcome": "completed"}],
        "claim": {"task_types": [queue], "worker_id": "w1", "limit": 2, "claim_id": Uuid::now_v7()},
    });
    let first = server.post("/tasks/outcomes").json(&body).send().await.ok();
    let second = server.post("/tasks/outcomes").json(&body).send().await.ok();
    assert_eq!(first["results"], second["results"], "the same receipt");
    assert_eq!(tasks(&first).len(), 2);
    assert_eq!(held(&first), held(&second), "the same work");
    assert_eq!(ready(&server, &queue).await, 1);
    assert_eq!(shown(&server, &done).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_repeat_is_answered_with_stays_with_it_though_the_first_caller_went_away() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["worker"], json!({})).await;
    let queue = unique_type();
    let mut given = HashSet::new();
    let mut finish = async |answer: &Value| {
        assert!(!tasks(answer).is_empty(), "a claim finds work, were it what the first call gives back");
        for task in tasks(answer) {
            settle(&server, task, "complete", json!({})).await.ok();
            assert!(given.insert(id(task).to_owned()), "a task was given out twice: {task}");
        }
        given.len()
    };
    let mut finished = 0;
    for round in 0..100 {
        create_many(&server, 3, |_| json!({"task_type": queue})).await;
        let more = json!({"claim_id": Uuid::now_v7(), "limit": 3});
        let body = with(json!({"task_types": [queue], "worker_id": "w1"}), more.clone());
        let first = claim_unheard(&server, &key, &body).await;
        // Now and then the first call gets a little further before its caller goes away.
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        drop(first);
        finished = finish(&claim(&server, &queue, with(more, json!({"wait_ms": WAIT_MS}))).await).await;
    }
    // What was given back too late for the repeat of its round is there for others.
    while finished < 300 {
        finished = finish(&claim(&server, &queue, json!({"limit": 100, "wait_ms": WAIT_MS})).await).await;
    }
}
