//! Requests that are too large, too many-parted, too slow, or of unclear length: refused in time, and the server goes on.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use task_repo_tests::{API_KEY, TestServer, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Far longer than the server may take to refuse, far shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server says to these bytes, in full, without waiting for more of them. Whether it closes the connection then
/// is another matter: after an answer that says `Connection: close` the caller has to.
async fn answer_to(server: &TestServer, request: &[u8]) -> String {
    let url = server.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    // It may refuse and close before all is sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"}") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {}
    };
    let in_time = tokio::time::timeout(PATIENCE, read).await.is_ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(in_time, "not answered: {:.200} {answer}", String::from_utf8_lossy(request));
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    answer
}

/// What the server says to these bytes until it closes the connection, which it must do by itself.
async fn said_to(server: &TestServer, request: &[u8]) -> String {
    let url = server.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    // It may refuse and close before all is sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(read.is_ok(), "never closed: {:.200} {answer}", String::from_utf8_lossy(request));
    answer
}

/// The status of its only answer; `None` when it closed without one.
fn status_of(answer: &str) -> Option<u16> {
    assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(!answer.is_empty()), "{answer}");
    answer.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

/// A request to create a task; its connection is not kept.
fn create(headers: &str, body: &str) -> Vec<u8> {
    let head =
        "POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    format!("{head}X-API-Key: {API_KEY}\r\n{headers}\r\n{body}").into_bytes()
}

async fn assert_nothing_was_created(server: &TestServer) {
    assert_eq!(server.get("/tasks?status=any").send().await.ok()["tasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_all_bounds_is_refused() {
    let server = TestServer::start().await;
    let kept = r#"{"task_type":"t"}"#;
    let length = format!("Content-Length: {}\r\n", kept.len());
    let many = "X-Many: y\r\n".repeat(97);
    let heads = [
        format!("X-Long: {}\r\n{length}", "y".repeat(1 << 20)),
        format!("{}: y\r\n{length}", "X".repeat(1 << 20)),
        format!("{many}{length}"),
        format!("{}{length}", "X-Same: y\r\n".repeat(20_000)),
        format!("X-Folded: y\r\n y\r\n{length}"),
        format!("X-Nul: a\0b\r\n{length}"),
        format!("X-Bare: a\rb\r\n{length}"),
        format!("No colon\r\n{length}"),
    ];
    for head in heads {
        let answer = said_to(&server, &create(&head, kept)).await;
        assert!(status_of(&answer).is_none_or(|status| (400..500).contains(&status)), "{head:.50}: {answer}");
    }
    let line = format!("GET /api/v1/tasks?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    let answer = said_to(&server, line.as_bytes()).await;
    assert!(status_of(&answer).is_none_or(|status| (400..500).contains(&status)), "{answer}");
    assert_nothing_was_created(&server).await;
}

/// A head of that many bytes in all, which begins like that and is padded by one header.
fn head_of(bytes: usize, begin: &str) -> Vec<u8> {
    let padding = bytes - begin.len() - "X-Long: \r\n\r\n".len();
    format!("{begin}X-Long: {}\r\n\r\n", "y".repeat(padding)).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bounds_of_a_head_are_where_the_documentation_says() {
    let server = TestServer::start().await;
    let begin = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let many = |count: usize| format!("{begin}{}\r\n", "X-Many: y\r\n".repeat(count - 2)).into_bytes();
    let target = |bytes: usize| {
        let query = "x".repeat(bytes - "/health?".len());
        format!("{}\r\n", begin.replace("/health", &format!("/health?{query}"))).into_bytes()
    };
    let unfinished = |bytes: usize| head_of(bytes + 4, begin)[..bytes].to_vec();
    for (what, request, expected) in [
        ("128 KiB", head_of(128 << 10, begin), 200),
        ("128 KiB without an end", unfinished(128 << 10), 431),
        ("more than 256 KiB", head_of((256 << 10) + 1, begin), 431),
        ("96 headers", many(96), 200),
        ("97 headers", many(97), 431),
    ] {
        let answer = said_to(&server, &request).await;
        assert_eq!(status_of(&answer), Some(expected), "{what}: {answer}");
    }
    // The first is read, and refused for its parameter; the second is not even read.
    for (bytes, is_read) in [(65_534, true), (65_535, false)] {
        let answer = said_to(&server, &target(bytes)).await;
        assert_eq!(status_of(&answer), Some(400), "{bytes}: {answer}");
        assert_eq!(answer.contains("invalid_parameter"), is_read, "{bytes}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unclear_length_is_refused() {
    let server = TestServer::start().await;
    let body = r#"{"task_type":"t"}"#;
    // What one party takes for a body another takes for a second request.
    let hidden = format!("{body}GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    for lengths in [
        "Content-Length: 17\r\nContent-Length: 18\r\n",
        "Content-Length: 17\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 17\r\n",
        "Content-Length: +17\r\n",
        "Content-Length: 17, 17\r\n",
        "Content-Length: 0x11\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let answer = said_to(&server, &create(lengths, &hidden)).await;
        assert_eq!(status_of(&answer), Some(400), "{lengths}: {answer}");
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_refused_as_soon_as_it_is_too_large() {
    let server = TestServer::start().await;
    let large = |path: &str, headers: &str, body: &str| {
        let request = String::from_utf8(create(headers, body)).unwrap();
        request.replace("/api/v1/tasks ", &format!("/api/v1/tasks{path} ")).into_bytes()
    };
    for (path, limit) in [("", 2 << 20), ("/claim", 2 << 20), ("/batch", 16 << 20), ("/outcomes", 16 << 20)] {
        // By its declared length, before any of it has come.
        let declared = large(path, &format!("Content-Length: {}\r\n", limit + 1), "");
        assert_eq!(status_of(&said_to(&server, &declared).await), Some(413), "{path}");
        // By what has come, where nothing is declared; the end never comes.
        let chunk = format!("{:x}\r\n{}\r\n", limit + 1, " ".repeat(limit + 1));
        let chunked = large(path, "Transfer-Encoding: chunked\r\n", &chunk);
        let answer = answer_to(&server, &chunked).await;
        assert_eq!(status_of(&answer), Some(413), "{path}: {answer}");
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_is_not_waited_for() {
    let server = TestServer::start_with(|settings| settings.http.http_head_timeout_ms = 300).await;
    for head in ["G", "GET /health HTTP/1.1\r\n", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let answer = said_to(&server, head.as_bytes()).await;
        assert!(matches!(status_of(&answer), Some(408) | None), "{head}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_is_not_waited_for() {
    let server = TestServer::start_with(|settings| settings.http.http_body_timeout_ms = 300).await;
    for (headers, part) in [
        ("Content-Length: 17\r\n", ""),
        ("Content-Length: 17\r\n", r#"{"task_type":"t""#),
        ("Transfer-Encoding: chunked\r\n", "11\r\n{\"task_type\""),
        ("Transfer-Encoding: chunked\r\n", "11\r\n{\"task_type\":\"t\"}\r\n"),
    ] {
        let answer = answer_to(&server, &create(headers, part)).await;
        assert_eq!(status_of(&answer), Some(400), "{headers}{part}: {answer}");
        assert!(answer.contains("malformed_json") && answer.contains("in time"), "{answer}");
    }
    assert_nothing_was_created(&server).await;
}

/// Sends that, and then chunks for ever; what the server says until it closes the connection, which it must do by itself.
async fn said_to_endless(server: &TestServer, request: &[u8]) -> String {
    let url = server.url();
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let (mut answers, mut requests) = stream.into_split();
    requests.write_all(request).await.unwrap();
    let chunks = async {
        while requests.write_all(b"5\r\nmore!\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await; // tidy: sleep — the pace of a caller who sends for ever
        }
    };
    let mut answer = Vec::new();
    let closed = async { while answers.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    let both = async { tokio::join!(chunks, closed) };
    let in_time = tokio::time::timeout(PATIENCE, both).await.is_ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(in_time, "never closed: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_ends_with_its_connection() {
    let server = TestServer::start_with(|settings| settings.http.http_body_timeout_ms = 300).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let nobody = format!("POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\n{chunked}\r\n").into_bytes();
    let unread = format!("GET /health HTTP/1.1\r\nHost: x\r\n{chunked}\r\n").into_bytes();
    let late = create(chunked, "");
    let answers = join_all([(&nobody, 401), (&unread, 200), (&late, 400)].map(|(request, status)| {
        let server = &server;
        async move { (said_to_endless(server, request).await, status) }
    }));
    for (answer, status) in answers.await {
        assert_eq!(status_of(&answer), Some(status), "{answer}");
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_not_kept() {
    let server = TestServer::start_with(|settings| settings.http.http_answer_timeout_ms = 300).await;
    let large = "x".repeat(1_000_000);
    for _ in 0..12 {
        server.create(json!({"task_type": "t", "request": large})).await;
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = server.url().strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request =
        format!("GET /api/v1/tasks?include=payload HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let closed = async {
        // The part of another request, which is refused once the connection is gone.
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await; // tidy: sleep — the pace of a caller who never reads
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the connection is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_callers_do_not_keep_others_out() {
    let server = TestServer::start().await;
    let url = server.url();
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let part = if n % 2 == 0 { b"GET /hea".to_vec() } else { create("Content-Length: 2000000\r\n", "{") };
        stream.write_all(&part).await.unwrap();
        slow.push(stream);
    }
    server.create(json!({"task_type": "t"})).await;
    assert_eq!(server.get("/tasks").send().await.ok()["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_parameters_are_refused() {
    let server = TestServer::start().await;
    let queries = [
        "a=1&".repeat(10_000),
        "status=any&".repeat(5_000),
        "&".repeat(50_000),
        format!("tag=k:{}", "v".repeat(50_000)),
        format!("cursor={}", "A".repeat(50_000)),
        format!("user_id={}", encode(&"é".repeat(5_000))),
        format!("{}=1", "a".repeat(50_000)),
    ];
    for query in queries {
        let answer = server.get(&format!("/tasks?{query}")).send().await;
        // Nothing but separators is no parameter at all.
        if query.bytes().any(|byte| byte != b'&') {
            answer.problem(400, "invalid_parameter");
        } else {
            answer.ok();
        }
    }
    let depth = 100_000;
    let deep = format!(r#"{{"task_type":"t","request":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    server.post("/tasks").json_text(deep).send().await.problem(422, "validation_failed");
    let wide = format!(r#"{{"task_type":"t",{}}}"#, r#""name":"n","#.repeat(50_000).trim_end_matches(','));
    server.post("/tasks").json_text(wide).send().await.problem(422, "validation_failed");
    assert_nothing_was_created(&server).await;
}
