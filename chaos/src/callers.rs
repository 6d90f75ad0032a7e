//! Callers that do harm: they vanish, send slowly, overload the service, or send odd payloads.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use task_repo_client::Uuid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::event::{Event, Said};
use crate::history::History;
use crate::load::Load;
use crate::workload::{API_KEY, CALL_LIMIT, ODD, VANISHED};
use crate::world::World;

/// Callers of an overload: five times as many as there are in all.
const OVERLOAD_CALLERS: u64 = 60;
/// How often a server's health is asked for during an overload.
const HEALTH_INTERVAL: Duration = Duration::from_millis(20);
/// A request that is the last on its connection.
fn post(path: &str, body: &str) -> String {
    format!(
        "POST /api/v1{path} HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks for work, waits a moment, and is gone. Whether it could ask.
pub(crate) async fn vanish(port: u16, history: &History, seed: u64) -> bool {
    let mut rng = SmallRng::seed_from_u64(seed);
    let worker_id = format!("{VANISHED}{seed}");
    let body = format!(
        r#"{{"task_types":["chaos.a","chaos.b"],"worker_id":"{worker_id}","limit":3,"wait_ms":5000}}"#
    );
    let request = post("/tasks/claim", &body);
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return false };
    let has_asked = stream.write_all(request.as_bytes()).await.is_ok();
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..=20))).await;
    if rng.random_bool(0.5) {
        // With a reset instead of an orderly end.
        let _ = stream.set_zero_linger();
    }
    // The runtime may not know yet of an answer that is there.
    if stream.into_std().is_ok_and(|stream| stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0)) {
        history.note(Event::Reached { worker_id });
    }
    has_asked
}

/// Sends a head or a body a few bytes at a time, or asks and never reads, and stays for
/// that long afterwards. Whether there was anybody to send it to.
pub(crate) async fn send_slowly(port: u16, number: u32, stay: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return false };
    let head = format!("POST /api/v1/tasks HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\n");
    let text = match number % 3 {
        0 => head,
        1 => format!("{head}content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"),
        _ => format!(
            "GET /api/v1/tasks?status=any&limit=100&include=payload HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\n\r\n"
        ),
    };
    for piece in text.as_bytes().chunks(16) {
        if stream.write_all(piece).await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokio::time::sleep(stay).await;
    true
}

/// Creates as much as the service takes until then, and asks all the time how it is.
pub(crate) async fn overload(world: &World, load: &Load, seed: u32, until: Instant) -> Result<()> {
    let callers = (0..OVERLOAD_CALLERS).map(|number| {
        let name = format!("overload-{seed}-{number}");
        tokio::spawn(load.caller(name, u64::from(seed) << 8 | number).overload(until))
    });
    let callers: Vec<_> = callers.collect();
    let client = world.direct(0)?;
    while Instant::now() < until {
        let asked = Instant::now();
        client.health().await?;
        load.history().asked_for_health(asked.elapsed());
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
    join_all(callers).await;
    Ok(())
}

/// Tasks whose payload, or more, is odd. Whatever comes of each, it is no failure of the service. How many were answered.
pub(crate) async fn send_corpus(port: u16, history: &History, seed: u32) -> u64 {
    let mut answered = 0;
    for (number, text) in odd_texts().into_iter().enumerate() {
        let name = format!("{ODD}{seed}-{number}");
        let body = format!(
            r#"{{"task_type":"chaos.a","name":"{name}","lease_seconds":3,"max_attempts":50,"request":{text}}}"#
        );
        let answer = exchange(port, post("/tasks", &body).as_bytes()).await;
        let answer = answer.map(|(status, _, body)| (status, body));
        answered += u64::from(answer.is_some());
        let id = answer.as_ref().filter(|(status, _)| *status == 201).and_then(|(_, task)| id_of(task));
        let said = match &answer {
            Some((201, _)) if id.is_some() => Said::Accepted,
            Some((400..=499, _)) => Said::Refused,
            Some((503, _)) => Said::Unknown,
            _ => {
                let answer = format!("{answer:.200?} to {text:.200}");
                history.note(Event::Odd { call: "create".to_owned(), answer });
                Said::Unknown
            }
        };
        history.note(Event::Created { name, said, id });
    }
    answered
}

/// What time it is for a server.
pub(crate) async fn server_time(port: u16) -> Result<DateTime<Utc>> {
    let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (_, head, _) = exchange(port, request).await.context("an answer of a server")?;
    let date = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("date: ").map(str::to_owned))
        .context("the date of an answer")?;
    Ok(DateTime::parse_from_rfc2822(&date)?.to_utc())
}

/// The status, the head and the body of the answer, if one came.
async fn exchange(port: u16, request: &[u8]) -> Option<(u16, String, String)> {
    tokio::time::timeout(CALL_LIMIT, exchange_all(port, request)).await.ok()?
}

async fn exchange_all(port: u16, request: &[u8]) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, head.to_owned(), body.to_owned()))
}

fn id_of(task: &str) -> Option<Uuid> {
    /// The rest is as odd as it was sent.
    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    serde_json::from_str::<Named>(task).ok().map(|task| task.id)
}

/// JSON at its edges, what is no JSON, and what other programs take for commands.
fn odd_texts() -> Vec<String> {
    let texts = [
        "null",
        "true",
        "\"\"",
        "[]",
        "{}",
        "0",
        "-0",
        "-0.0",
        "1e308",
        "1e309",
        "-1e400",
        "1E-400",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "0.1000000000000000055511151231257827",
        r#""\u0000""#,
        r#""\ud800""#,
        r#""\udfff\ud800""#,
        r#""\ud83d\ude00""#,
        "\"\u{202e}\u{feff}\u{1f468}\u{200d}\u{1f469}\"",
        r#"{"a":1,"a":2}"#,
        r#"{"":{"":{"":0}}}"#,
        r#"{"$where":"sleep(10000)"}"#,
        r#"{"$set":{"status":"completed"}}"#,
        r#"{"$literal":"$$ROOT","$$ROOT":1}"#,
        r#"{"a.b":{"$ne":null},"$a":"$b"}"#,
        r#"{"__proto__":{"x":1},"constructor":0}"#,
        r#""'; DROP TABLE tasks; --""#,
        r#""${jndi:ldap://x}""#,
        r#""%n%s%x""#,
        "\"\t\"",
        "nul",
        "NaN",
        "Infinity",
        "01",
        "1.",
        "[1,]",
        "{'a':1}",
        "\"open",
        "[[[[[[",
        "}",
        "1 2",
        "",
        "\u{0}",
    ];
    let mut texts: Vec<_> = texts.map(str::to_owned).to_vec();
    texts.extend([30, 31, 32, 33, 5000].map(|depth| "[".repeat(depth) + &"]".repeat(depth)));
    texts.push(format!("\"{}\"", "x".repeat(900_000)));
    texts.push(format!("[{}0]", "0,".repeat(200_000)));
    let wide: Vec<_> = (0..20_000).map(|key| format!("\"k{key}\":{key}")).collect();
    texts.push(format!("{{{}}}", wide.join(",")));
    texts
}
