//! Thousands of claims that wait on an idle server.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document};
use task_repo_client::{NewTask, Tags, TaskClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Bench, Measured};
use crate::load::{Sample, histogram, micros};
use crate::machine;
use crate::meter::Meter;
use crate::server::API_KEY;
use crate::work::{QUEUE, TEXT_CHARS, task};

/// Claims that wait.
const WAITING_CLAIMS: usize = 10_000;
/// Files that a process needs besides its connections.
const OTHER_FILES: usize = 300;
/// Queues that they wait for, as many workers in each.
const QUEUES: usize = 100;
/// Connections that are being made at once.
const MAX_CONNECTING: usize = 128;
/// Longest that all claims may take to arrive: half of their wait, so that the first still waits with the last.
const MAX_ARRIVAL_TIME: Duration = Duration::from_secs(15);
/// The pause between two tasks that wake a claim: longer than a look of the waker and a read.
const BETWEEN_WAKES: Duration = Duration::from_millis(50);
/// How the service counts them.
const GAUGE: &str = "task_repo_waiting_claims ";

/// Processor time, memory and database operations of a server with nothing to do but wait.
pub(crate) async fn waiting(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let count = machine::open_files()
        .map_or(WAITING_CLAIMS, |files| WAITING_CLAIMS.min(files.saturating_sub(OTHER_FILES)));
    let (server, client) = (&running.servers[0], running.client());
    // Requests written by hand: ten thousand of an HTTP library would measure the library.
    let connections = stream::iter(0..count).map(|number| wait_by_hand(server.port(), number % QUEUES));
    let connections: Vec<TcpStream> = connections.buffer_unordered(MAX_CONNECTING).try_collect().await?;
    all_arrived(client, count).await?;
    let before = bench.server_status().await?;
    let meter = Meter::start(&running.processes);
    tokio::time::sleep(bench.pick(Duration::from_secs(3), Duration::from_secs(12))).await;
    let (elapsed, usage) = meter.stop();
    let after = bench.server_status().await?;
    let operations = operations(&after) - operations(&before) - session_upkeep(&before, &after);
    let still = arrived(client).await?;
    let seconds = elapsed.as_secs_f64();
    let mut measured = Measured { sample: None, server_mib: None, limit: None, notes: Vec::new() };
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    measured.notes.extend([
        ("waiting", still as f64),
        ("server_core_percent", usage.server / seconds * 100.0),
        // The question itself is one.
        ("database_operations_per_second", (operations - 1).max(0) as f64 / seconds),
    ]);
    let measured = running.close(measured).await;
    drop(connections);
    measured
}

/// Database operations while claims wait with a tag each on one server, and how long each of some takes that is woken by a
/// task which the other server was given.
pub(crate) async fn with_tags(bench: &Bench, count: usize) -> Result<Measured> {
    let running = bench.start_servers(2).await?;
    let (server, client, creator) = (&running.servers[1], running.servers[1].client(), running.client());
    let connections = stream::iter(0..count).map(|number| wait_for_tag(server.port(), number));
    let mut connections: Vec<TcpStream> = connections.buffered(MAX_CONNECTING).try_collect().await?;
    all_arrived(client, count).await?;
    let before = bench.server_status().await?;
    let began = Instant::now();
    tokio::time::sleep(bench.pick(Duration::from_secs(2), Duration::from_secs(8))).await;
    let quiet = began.elapsed();
    let after = bench.server_status().await?;
    let operations_when_quiet = operations(&after) - operations(&before) - session_upkeep(&before, &after);
    let mut latencies = histogram()?;
    let meter = Meter::start(&running.processes);
    let woken = bench.pick(20, 100);
    for (number, connection) in connections.iter_mut().enumerate().take(woken) {
        let tags = Tags::from([("worker", &*number.to_string())]);
        let task = NewTask { tags: Some(tags), ..task(QUEUE, TEXT_CHARS)? };
        let sent = Instant::now();
        creator.create_task(&task).await?;
        let mut answer = [0; 512];
        let length = connection.read(&mut answer).await?;
        ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "a claim that waits was not answered well");
        latencies.saturating_record(micros(sent.elapsed()));
        tokio::time::sleep(BETWEEN_WAKES).await;
    }
    let (elapsed, usage) = meter.stop();
    let last = bench.server_status().await?;
    let operations_when_waking = operations(&last) - operations(&after) - session_upkeep(&after, &last);
    // Not a rate: between the tasks nothing was done on purpose.
    let sample = Sample { items: 0, elapsed, latencies, usage };
    let mut measured = running.close(sample).await?;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    measured.notes.extend([
        ("waiting", count as f64),
        ("database_operations_per_second", operations_when_quiet as f64 / quiet.as_secs_f64()),
        (
            "database_operations_per_second_while_waking",
            operations_when_waking as f64 / elapsed.as_secs_f64(),
        ),
    ]);
    drop(connections);
    Ok(measured)
}

async fn wait_by_hand(port: u16, queue: usize) -> Result<TcpStream> {
    send_claim(port, &format!(r#"{{"task_types":["empty-{queue}"],"worker_id":"bench","wait_ms":30000}}"#))
        .await
}

async fn wait_for_tag(port: u16, number: usize) -> Result<TcpStream> {
    let tags = format!(r#"{{"worker":"{number}"}}"#);
    let body = format!(r#"{{"task_types":["{QUEUE}"],"worker_id":"bench","wait_ms":30000,"tags":{tags}}}"#);
    send_claim(port, &body).await
}

async fn send_claim(port: u16, body: &str) -> Result<TcpStream> {
    let head = format!(
        "POST /api/v1/tasks/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let mut stream = stream.context("no connection; how many files may be open? (ulimit -n)")?;
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(stream)
}

async fn all_arrived(client: &TaskClient, count: usize) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < MAX_ARRIVAL_TIME {
        if arrived(client).await? >= count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("only {} of {count} claims wait", arrived(client).await?)
}

/// How many claims wait, says the server.
async fn arrived(client: &TaskClient) -> Result<usize> {
    let metrics = client.metrics().await?;
    let count = metrics.lines().find_map(|line| line.strip_prefix(GAUGE)).unwrap_or("0");
    Ok(count.trim().parse()?)
}

/// Every five minutes mongod writes one document for each session of all its clients, those of the raw limits too, and
/// counts that among its operations. How many it wrote between these two.
fn session_upkeep(before: &Document, after: &Document) -> i64 {
    let number = |status: &Document, name: &str| {
        let cache = status.get_document("logicalSessionRecordCache").ok();
        cache.and_then(|cache| cache.get_i32(name).ok()).map_or(0, i64::from)
    };
    let jobs = |status| number(status, "sessionsCollectionJobCount");
    if jobs(after) > jobs(before) { number(after, "lastSessionsCollectionJobEntriesRefreshed") } else { 0 }
}

/// What the database has been asked to do, ever.
fn operations(status: &Document) -> i64 {
    let counters = status.get_document("opcounters").into_iter().flat_map(Document::values);
    let number = |value: &Bson| value.as_i64().or_else(|| value.as_i32().map(i64::from));
    counters.filter_map(number).sum()
}
