//! `HEAD` on every route that has `GET`: the same answer without its body (RFC 9110, section 9.3.2).

use std::collections::BTreeMap;

use serde_json::json;
use task_repo_protocol::path;
use task_repo_tests::{API_KEY, ROUTES, SYSTEM_ROUTES, TestServer, id_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The head of an answer, by the names of its fields, and its body.
struct Answer {
    status: String,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Calls over a connection of its own, so that nothing hides what comes after the head.
async fn call(server: &TestServer, method: &str, path: &str, fields: &str) -> Answer {
    let is_system = SYSTEM_ROUTES.iter().any(|(begin, _)| path.starts_with(begin));
    let base = if is_system { "" } else { path::BASE };
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("{method} {base}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the end of its head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Answer { status, fields, body: answer[end + 4..].to_vec() }
}

/// Asks with `GET` and with `HEAD`, and compares the answers.
async fn assert_same(server: &TestServer, path: &str, fields: &str) {
    let fields = format!("X-Request-ID: r\r\n{fields}");
    let (mut get, mut head) =
        (call(server, "GET", path, &fields).await, call(server, "HEAD", path, &fields).await);
    assert!(!get.body.is_empty(), "{path}");
    assert_eq!(head.body, b"", "{path}");
    assert_eq!(head.status, get.status, "{path}");
    get.fields.remove("date");
    head.fields.remove("date");
    if [path::METRICS, path::HEALTH_DETAILED].contains(&path) {
        // They grow from call to call.
        head.fields.remove("content-length");
        get.fields.remove("content-length");
    }
    assert_eq!(head.fields, get.fields, "{path}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_that_has_get_has_head() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "t"})).await;
    let claimed = server.claim("t").await;
    let body =
        json!({"lease_token": claimed["lease"]["token"], "result": {"a": 1}, "result_id": "of-a-task"});
    server.post(&format!("/tasks/{}/complete", id_of(&task))).json(&body).send().await.ok();
    server.put("/task-types/of-a-kind").json(&json!({})).send().await.ok();
    let key = format!("X-API-Key: {API_KEY}\r\n");
    // The stream of a tenant has no end, and nothing to compare.
    let routes = ROUTES.iter().filter(|route| route.method == "GET" && route.path != path::STREAM);
    let routes = routes.map(|route| match route.path {
        path::TASKS_BY_RESULT => route.path_for("of-a-task"),
        path::TASK_TYPE => route.path_for("of-a-kind"),
        _ => route.path_for(id_of(&task)),
    });
    let asset = format!("{}/swagger-ui.css", path::DOCS);
    let system = SYSTEM_ROUTES.iter().map(|(path, _)| (*path).to_owned()).chain([asset]);
    let mut asked = 0;
    for path in routes.chain(system) {
        let answer = call(&server, "GET", &path, &key).await;
        // The task can be read, so it is none of those that cannot.
        let is_missing = path.starts_with(&format!("{}/", path::UNREADABLE_TASKS));
        assert_eq!(answer.status.contains(" 404 "), is_missing, "{path}: {}", answer.status);
        assert!(is_missing || answer.status == "HTTP/1.1 200 OK", "{path}: {}", answer.status);
        assert_same(&server, &path, &key).await;
        assert_same(&server, &path, &format!("{key}Accept-Encoding: gzip\r\n")).await;
        asked += 1;
    }
    assert!(asked >= 13, "all routes: {asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_no_body_either() {
    let server = TestServer::start().await;
    let key = format!("X-API-Key: {API_KEY}\r\n");
    for (path, fields) in [
        ("/tasks", ""),
        ("/tasks/no-such", key.as_str()),
        ("/tasks?limit=0", key.as_str()),
        ("/nonsense", key.as_str()),
        ("/tasks/no-such/cancel", key.as_str()),
    ] {
        assert_same(&server, path, fields).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_has_head_says_so() {
    let server = TestServer::start().await;
    let allow = async |path: &str| {
        let answer = server.request("PATCH", path).send().await;
        answer.problem(405, "method_not_allowed");
        answer.header("allow").unwrap_or_default().to_owned()
    };
    assert_eq!(allow("/health").await, "GET, HEAD");
    assert_eq!(allow("/tasks").await, "POST, GET, HEAD");
    assert_eq!(allow("/tasks/batch").await, "POST");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_does_not_wait() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "t"})).await;
    let waiting = server.request("HEAD", &format!("/tasks/{}?wait_ms=30000", id_of(&task))).send();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    answer.expect("it is answered at once, because nobody would see what was waited for").success();
    let refused = server.request("HEAD", &format!("/tasks/{}?wait_ms=30001", id_of(&task))).send().await;
    assert_eq!(refused.status, 400, "the rule of the parameter holds all the same");
}
