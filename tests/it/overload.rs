//! More than the database takes: who comes too late is told so at once, and nothing of theirs is applied.

use std::sync::Arc;

use bson::doc;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use task_repo_tests::{API_KEY, HttpAnswer, HttpCall, TestServer, eventually, unique_type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fail_point::FailPoint;
use crate::verbs::{claim, create_many, id, shown, tasks};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_connections_together_have_a_bound() {
    const MOST: usize = 16 << 20;
    let server = TestServer::start_with(|settings| settings.http.http_max_body_bytes_in_flight = MOST).await;
    let queue = unique_type();
    let task = json!({"task_type": queue, "request": "x".repeat(1_000_000)});
    let body = json!({"tasks": vec![task; 9]}).to_string();
    let (first, rest) = body.split_at(body.len() - 1000);
    let mut slow = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/v1/tasks/batch HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let batch = || server.post("/tasks/batch").json_text(body.clone()).send();
    eventually("what has come of a body counts", async || {
        let answer = batch().await;
        if answer.status == 200 {
            return false;
        }
        let refused = answer.problem(503, "overloaded");
        assert_eq!((&refused["retryable"], &refused["retry_after_seconds"]), (&json!(true), &json!(1)));
        true
    })
    .await;
    server.create(json!({"task_type": queue})).await;

    slow.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(batch().await.status, 200, "there is room again");
}

/// Calls at once: with so much text in each, more than may wait.
const CALLS: usize = 96;

/// Makes all calls while commands of that name take long, until the first is refused; how each was answered.
async fn overload(
    server: &TestServer,
    command: &str,
    calls: impl Iterator<Item = HttpCall>,
) -> Vec<(usize, HttpAnswer)> {
    let slow = doc! { "blockConnection": true, "blockTimeMS": 12_000 };
    let mut fault = Some(FailPoint::set(server, command, "alwaysOn", slow).await);
    let numbered = calls.enumerate().map(async |(number, call)| (number, call.send().await));
    let mut calls: FuturesUnordered<_> = numbered.collect();
    let mut answers = Vec::new();
    while let Some(answer) = calls.next().await {
        answers.push(answer);
        if let Some(fault) = fault.take() {
            fault.end().await;
        }
    }
    answers
}

/// Whether it was refused, in the way that the contract says.
fn is_refused(answer: &HttpAnswer) -> bool {
    if answer.status != 503 {
        return false;
    }
    answer.problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_calls_are_told_to_come_back_as_well() {
    let server = TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 60_000).await;
    let large = "x".repeat(1_000_000);
    let queues: Vec<_> = (0..CALLS).map(|_| unique_type()).collect();
    let new = queues.iter().map(|queue| json!({"task_type": queue, "request": large}));
    let calls = new.map(|task| server.post("/tasks").json(&task));
    let answers = overload(&server, "insert", calls).await;
    assert!(answers.iter().any(|(_, answer)| is_refused(answer)), "all of it was taken");
    for (number, answer) in answers {
        let expected = usize::from(!is_refused(&answer));
        let path = format!("/tasks?status=any&task_type={}", queues[number]);
        let found = server.get(&path).send().await.ok();
        assert_eq!(found["tasks"].as_array().unwrap().len(), expected);
    }

    let queue = unique_type();
    create_many(&server, CALLS, |_| json!({"task_type": queue})).await;
    let held = claim(&server, &queue, json!({"limit": CALLS})).await;
    let settlements = tasks(&held).iter().map(|task| {
        let body = json!({"lease_token": task["lease"]["token"], "result": large});
        server.post(&format!("/tasks/{}/complete", id(task))).json(&body)
    });
    let answers = overload(&server, "update", settlements).await;
    assert!(answers.iter().any(|(_, answer)| is_refused(answer)), "all of it was taken");
    for (number, answer) in answers {
        let status = if is_refused(&answer) { "processing" } else { "completed" };
        assert_eq!(shown(&server, &tasks(&held)[number]).await["status"], status);
    }
}
