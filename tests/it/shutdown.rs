//! A graceful stop: nobody is sent there any more, who waits is answered, what runs is finished, and nothing is lost.

use std::collections::HashSet;
use std::time::Duration;

use bson::doc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{API_KEY, TestServer, eventually, unique_type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fail_point::FailPoint;
use crate::verbs::{claim, create_many, ids, tasks};

/// Far longer than a stop takes, far shorter than the wait of a claim.
const SOON: Duration = Duration::from_secs(15);

/// A client that outlives the server, without connections that would outlive their use.
fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(1));
    client.build().expect("an HTTP client")
}

/// The first half of a request that creates a task; the server waits for the other half.
async fn half_a_create(server: &TestServer, task_type: &str) -> (TcpStream, Vec<u8>) {
    let address = server.url();
    let address = address.strip_prefix("http://").expect("an address");
    let body = json!({"task_type": task_type}).to_string();
    let request = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    );
    let (first, rest) = request.split_at(request.len() - 5);
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    connection.write_all(first.as_bytes()).await.expect("half a request is sent");
    (connection, rest.as_bytes().to_vec())
}

/// The ids of all tasks of that queue in that status.
async fn listed(server: &TestServer, queue: &str, status: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut cursor = String::new();
    loop {
        let call = server.get("/tasks").query(&[("status", status), ("task_type", queue), ("limit", "100")]);
        let call = if cursor.is_empty() { call } else { call.query(&[("cursor", &cursor)]) };
        let page = call.send().await.ok();
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_claims_are_answered_and_what_runs_is_finished() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let (queue, empty) = (unique_type(), unique_type());
    let http = http_client();
    let ready = format!("{}/health/ready", server.url());
    assert_eq!(http.get(&ready).send().await.expect("an answer").status(), 200);

    let body = json!({"task_types": [empty], "worker_id": "w1", "wait_ms": 28_000});
    let waiting: Vec<_> =
        (0..5).map(|_| tokio::spawn(server.post("/tasks/claim").json(&body).send())).collect();
    let (mut connection, rest) = half_a_create(&server, &queue).await;
    server.until_claims_wait(&empty, 5).await;
    server.until_in_flight(6).await;
    let stopping = tokio::spawn(server.stop());

    for answer in join_all(waiting.into_iter().map(|call| tokio::time::timeout(SOON, call))).await {
        let answer = answer.expect("an answer before the wait is over").expect("an answer");
        assert_eq!(answer.ok(), json!({"tasks": []}));
    }
    // The half request holds the stop up, and meanwhile nobody should be sent here.
    eventually("the server says that it is not ready", async || {
        let answer = http.get(&ready).send().await.expect("an answer while the server still has work");
        answer.status() == 503
    })
    .await;
    assert!(!stopping.is_finished(), "a request is still being read");

    connection.write_all(&rest).await.expect("the other half is sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "what had begun is finished: {answer}");
    tokio::time::timeout(SOON, stopping).await.expect("the stop returns").expect("the server stops");
    assert_eq!(listed(&other, &queue, "pending").await.len(), 1, "and it is there");
    assert!(http.get(&ready).send().await.is_err(), "and nobody answers any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_under_load() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let (created_in, claimed_from) = (unique_type(), unique_type());
    create_many(&server, 1000, |_| json!({"task_type": claimed_from})).await;
    let http = http_client();
    let url = server.url();

    // What was answered with success, until the server is gone.
    let call = async |path: &str, body: Value| -> Option<Value> {
        let request = http.post(format!("{url}/api/v1{path}")).bearer_auth(API_KEY).json(&body);
        let answer = request.send().await.ok()?;
        if answer.status().is_success() { answer.json().await.ok() } else { None }
    };
    let creating = async |_| {
        let mut acknowledged = Vec::new();
        while let Some(task) = call("/tasks", json!({"task_type": created_in})).await {
            acknowledged.push(task["id"].as_str().expect("an id").to_owned());
        }
        acknowledged
    };
    let claiming = async |_| {
        let mut given = Vec::new();
        let wanted = json!({"task_types": [claimed_from], "worker_id": "w1", "limit": 1, "wait_ms": 1000});
        while let Some(claimed) = call("/tasks/claim", wanted.clone()).await {
            given.extend(ids(&claimed).into_iter().map(str::to_owned));
        }
        given
    };
    let stop = async {
        eventually("the load is on", async || {
            !listed(&other, &created_in, "pending").await.is_empty()
                && !listed(&other, &claimed_from, "processing").await.is_empty()
        })
        .await;
        tokio::time::timeout(SOON, server.stop()).await.expect("the stop returns");
    };
    let (acknowledged, given, ()) =
        tokio::join!(join_all((0..8).map(creating)), join_all((0..8).map(claiming)), stop);

    let (acknowledged, given) = (acknowledged.concat(), given.concat());
    let stored = listed(&other, &created_in, "pending").await;
    let missing: Vec<&String> = acknowledged.iter().filter(|id| !stored.contains(*id)).collect();
    assert!(missing.is_empty(), "{} of {} acknowledged tasks are gone", missing.len(), acknowledged.len());

    // Whatever is held was given to somebody who heard of it, and to nobody else.
    let held = listed(&other, &claimed_from, "processing").await;
    let unheard: Vec<&String> = held.iter().filter(|id| !given.contains(id)).collect();
    assert!(unheard.is_empty(), "{} tasks are held by nobody", unheard.len());
    assert_eq!(given.len(), given.iter().collect::<HashSet<_>>().len());
    assert!(given.iter().all(|id| held.contains(id)));
    let rest = claim(&other, &claimed_from, json!({"limit": 1000})).await;
    assert_eq!(tasks(&rest).len(), 1000 - given.len(), "what is left goes on at the other server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_database_that_does_not_answer() {
    let server = TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 60_000).await;
    // Longer than the stop may take; and the fail point cannot be ended before.
    let hangs = doc! { "blockConnection": true, "blockTimeMS": 12_000 };
    let fail_point = FailPoint::set_on(&server, "servers", "delete", doc! { "times": 1 }, hangs).await;
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, server.stop()).await.expect("the stop returns");
    assert_eq!(fail_point.end().await, 1, "the stop has met a command that hangs");
}
