//! A server that may not open many files: it says so, serves what it can, and says how it does when it can serve no more.

use std::time::Duration;

use task_repo_tests::{TestDatabase, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::program::{PROGRAM, Program};

const KEY: &str = "a-key";
/// Far longer than an answer may take, far shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program, limited by that command of the shell, with one thread and few connections to the database.
async fn start_limited(database: &TestDatabase, limit: &str) -> Program {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit}; exec \"$0\"")).arg(&*PROGRAM);
    let variables = [("HTTP_WORKERS", "1"), ("MONGODB_MAX_CONNECTIONS", "4")];
    Program::start_by(command, database, KEY, &variables).await
}

/// Sends a request over that connection; `None` when it is closed instead of answered.
async fn ask(stream: &mut TcpStream, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"}") {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        String::from_utf8(answer).ok()
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer or an end")
}

async fn connect(program: &Program) -> TcpStream {
    let stream = TcpStream::connect(program.url.strip_prefix("http://").unwrap());
    tokio::time::timeout(PATIENCE, stream).await.expect("in time").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_when_no_more_connections_can_be_taken() {
    let database = TestDatabase::create().await;
    let program = start_limited(&database, "ulimit -n 64").await;
    let warning = program.log();
    assert!(
        warning.contains("WARN") && warning.contains("limit of open files") && warning.contains("64"),
        "{warning}"
    );
    // Callers that keep their connections, until no more is served.
    let mut kept = Vec::new();
    let refusal = loop {
        let mut stream = connect(&program).await;
        let answer = ask(&mut stream, "/api/v1/tasks").await.expect("an answer");
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        kept.push(stream);
        assert!(kept.len() < 64, "there are no descriptors for so many");
    };
    assert!(kept.len() >= 8, "only {}", kept.len());
    for _ in 0..10 {
        let answer = ask(&mut connect(&program).await, "/api/v1/tasks").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("retry-after"), "{answer}");
        for path in ["/health", "/health/ready", "/api/v1/health/detailed"] {
            let answer = ask(&mut connect(&program).await, path).await.expect("an answer");
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
                "{path}: {answer}"
            );
        }
    }
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    // Whoever says nothing on one of the last connections does not keep it.
    let mut silent = connect(&program).await;
    let mut said = Vec::new();
    let end = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut said)).await;
    assert!(end.is_ok() && said.is_empty(), "{said:?}");
    for stream in &mut kept {
        let answer = ask(stream, "/api/v1/tasks").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "callers that came before are served: {answer}");
    }
    kept.truncate(2);
    eventually("others are served again", async || {
        let answer = ask(&mut connect(&program).await, "/api/v1/tasks").await;
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    })
    .await;
    assert!(!program.log().contains("Error accepting connection"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let database = TestDatabase::create().await;
    let program = start_limited(&database, "ulimit -S -n 64; ulimit -H -n 1000").await;
    let limits = program.limits();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("its limit");
    let values: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values, ["1000", "1000"], "{files}");
}
