//! Connections without a request: they are kept as long as the setting says, and closed without a word.

use std::time::Duration;

use task_repo_tests::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Far longer than the server may take, far shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap()
}

/// Asks for the health, and reads the answer.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// What comes until the server closes the connection, which it must do by itself.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.expect("it is closed").unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_opened_ahead_of_its_first_request_is_kept() {
    let server = TestServer::start_with(|settings| settings.http.http_head_timeout_ms = 100).await;
    let mut stream = connect(&server).await;
    let said = tokio::time::timeout(Duration::from_secs(1), stream.read_u8()).await;
    assert!(said.is_err(), "the time for a head does not begin before its first byte: {said:?}");
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"), "and then it serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let server = TestServer::start_with(|settings| settings.http.http_keep_alive_seconds = 1).await;
    let mut fresh = connect(&server).await;
    assert_eq!(rest_of(&mut fresh).await, "");
    let mut used = connect(&server).await;
    ask(&mut used).await;
    assert_eq!(rest_of(&mut used).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_its_caller_closes_is_not_kept() {
    let server = TestServer::start().await;
    let mut stream = connect(&server).await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest_of(&mut stream).await, "");
}
