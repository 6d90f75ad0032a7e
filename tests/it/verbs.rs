//! The calls that nearly every test makes, and what a test reads from a task as an answer shows it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
pub(crate) use task_repo_tests::id_of as id;
use task_repo_tests::{HttpAnswer, TestServer, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// How far a time may lie from where it is expected: far more than any call takes, far less than what tests tell apart.
const SLACK: TimeDelta = TimeDelta::seconds(10);

/// A token that was never given to anyone.
pub(crate) const STRANGE_TOKEN: &str = "nobody-was-ever-given-this";

/// The lease token of a task as a claim answered it.
pub(crate) fn token(task: &Value) -> &str {
    task["lease"]["token"].as_str().unwrap_or_else(|| panic!("a lease token is expected in {task}"))
}

/// The queue of a task.
pub(crate) fn queue(task: &Value) -> &str {
    task["task_type"].as_str().unwrap_or_else(|| panic!("a task type is expected in {task}"))
}

/// A time as an answer shows it.
pub(crate) fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("a time is expected, not {value}"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The tasks of an answer that lists some.
pub(crate) fn tasks(answer: &Value) -> &Vec<Value> {
    answer["tasks"].as_array().unwrap_or_else(|| panic!("tasks are expected in {answer}"))
}

/// The ids of the tasks of an answer that lists some, in its order.
pub(crate) fn ids(answer: &Value) -> Vec<&str> {
    tasks(answer).iter().map(id).collect()
}

/// The members of `base`, and those of `more` over them.
pub(crate) fn with(mut base: Value, more: Value) -> Value {
    match (&mut base, more) {
        (Value::Object(base), Value::Object(more)) => base.extend(more),
        (_, more) => panic!("two objects are expected, not {more}"),
    }
    base
}

/// Checks that a time lies about that many seconds from now.
#[track_caller]
pub(crate) fn assert_in_seconds(value: &Value, seconds: i64) {
    assert_seconds_after(value, Utc::now(), seconds);
}

/// Checks that a time lies about that many seconds after another.
#[track_caller]
pub(crate) fn assert_seconds_after(value: &Value, from: DateTime<Utc>, seconds: i64) {
    let off = time(value) - (from + TimeDelta::seconds(seconds));
    assert!(off.abs() <= SLACK, "{value} should be about {seconds} s after {from}");
}

/// The task as `GET` shows it.
pub(crate) async fn shown(server: &TestServer, task: &Value) -> Value {
    server.get(&format!("/tasks/{}", id(task))).send().await.ok()
}

/// The attempts of a task, newest first.
pub(crate) async fn executions(server: &TestServer, task: &Value) -> Vec<Value> {
    let answer = server.get(&format!("/tasks/{}/executions", id(task))).send().await.ok();
    answer["executions"].as_array().expect("a list of executions").clone()
}

/// `POST /tasks/{id}/{verb}` without a lease token.
pub(crate) async fn post(server: &TestServer, task: &Value, verb: &str, body: Value) -> HttpAnswer {
    server.post(&format!("/tasks/{}/{verb}", id(task))).json(&body).send().await
}

/// `POST /tasks/{id}/{verb}` with the lease token that came with `task`. What went wrong is filled in for `fail`.
pub(crate) async fn settle(server: &TestServer, task: &Value, verb: &str, more: Value) -> HttpAnswer {
    let mut body = json!({"lease_token": token(task)});
    if verb == "fail" {
        body = with(body, json!({"error": {"message": "it broke"}}));
    }
    post(server, task, verb, with(body, more)).await
}

/// `PUT /tasks/{id}/status`.
pub(crate) async fn put_status(server: &TestServer, task: &Value, body: Value) -> HttpAnswer {
    server.put(&format!("/tasks/{}/status", id(task))).json(&body).send().await
}

/// Claims that one task, as worker `w1` unless `more` says otherwise.
pub(crate) async fn claim_one(server: &TestServer, task: &Value, more: Value) -> Value {
    post(server, task, "claim", with(json!({"worker_id": "w1"}), more)).await.ok()
}

/// `POST /tasks/claim` for one queue, as worker `w1` unless `more` says otherwise.
pub(crate) async fn claim(server: &TestServer, task_type: &str, more: Value) -> Value {
    let body = with(json!({"task_types": [task_type], "worker_id": "w1"}), more);
    server.post("/tasks/claim").json(&body).send().await.ok()
}

/// A claim whose caller hears nothing of the answer: the connection closes when this is dropped.
pub(crate) async fn claim_unheard(server: &TestServer, key: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut connection = post_head(server, "/tasks/claim", key, body.len()).await;
    connection.write_all(body.as_bytes()).await.expect("the request is sent");
    connection
}

/// A `POST` whose JSON body of that length is still to come.
pub(crate) async fn post_head(server: &TestServer, path: &str, key: &str, length: usize) -> TcpStream {
    let url = reqwest::Url::parse(&server.url()).expect("the server's URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().expect("a port"));
    let head = format!(
        "POST /api/v1{path} HTTP/1.1\r\nHost: {host}:{port}\r\nX-API-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
    );
    let mut connection = TcpStream::connect((host, port)).await.expect("a connection");
    connection.write_all(head.as_bytes()).await.expect("the head is sent");
    connection
}

/// Creates many tasks in one call, in order; `each` says what the n-th is.
pub(crate) async fn create_many(
    server: &TestServer,
    count: usize,
    each: impl Fn(usize) -> Value,
) -> Vec<Value> {
    let tasks: Vec<Value> = (0..count).map(each).collect();
    let answer = server.post("/tasks/batch").json(&json!({"tasks": tasks})).send().await.ok();
    let results = answer["results"].as_array().expect("results of a batch");
    assert_eq!(results.len(), count);
    results
        .iter()
        .map(|result| {
            assert!(result["task"].is_object(), "a task is expected, not {result}");
            result["task"].clone()
        })
        .collect()
}

/// Asks again and again until there is an answer, and gives it back.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut answer = None;
    eventually(what, async || {
        answer = ask().await;
        answer.is_some()
    })
    .await;
    answer.expect("an answer came")
}

/// Asks for the task until it stands in that status, and gives it back.
pub(crate) async fn until_status(server: &TestServer, task: &Value, status: &str) -> Value {
    until(&format!("{} is {status}", id(task)), async || {
        let now = shown(server, task).await;
        (now["status"] == status).then_some(now)
    })
    .await
}

/// Lets time pass by the server's clock until the task stands in that status, and gives it back.
pub(crate) async fn pass_until_status(server: &TestServer, task: &Value, status: &str) -> Value {
    server.while_time_passes(until_status(server, task, status)).await
}

/// Checks that a receipt says where the task stands.
#[track_caller]
pub(crate) fn assert_receipt(receipt: &Value, task: &Value) {
    for member in ["id", "status", "reason", "attempt", "run_at", "version"] {
        assert!(receipt.get(member).is_some(), "{member} is missing in the receipt {receipt}");
        assert_eq!(receipt[member], task[member], "{member} of the receipt {receipt} of {task}");
    }
}

/// Checks that a call was refused because its token does not hold the task, and that it names who does.
#[track_caller]
pub(crate) fn assert_lease_lost(answer: &HttpAnswer, task: &Value) {
    let problem = answer.problem(409, "lease_lost");
    assert_eq!(problem["current_status"], task["status"], "{problem}");
    assert_eq!(problem["attempt"], task["attempt"], "{problem}");
}
