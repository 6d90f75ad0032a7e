//! How long a worker that waits takes to get a new task.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use task_repo_client::{Claim, TaskClient};

use crate::bench::{Bench, Measured, RunningServers};
use crate::load::{Sample, histogram, micros};
use crate::meter::Meter;
use crate::work::{QUEUE, TEXT_CHARS, claim, complete, task};

/// How long before the create of a task its worker sends its claim: enough to reach the server and wait there.
const WORKER_LEAD_TIME: Duration = Duration::from_millis(10);

/// Worker and creator on one server.
pub(crate) async fn here(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let client = running.client().clone();
    measure(bench.pick(150, 1_000), running, client.clone(), client).await
}

/// The worker waits on another server than the one that creates.
pub(crate) async fn elsewhere(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(2).await?;
    let (creator, worker) = (running.servers[0].client().clone(), running.servers[1].client().clone());
    measure(bench.pick(10, 100), running, creator, worker).await
}

async fn measure(
    times: u64,
    running: RunningServers,
    creator: TaskClient,
    worker: TaskClient,
) -> Result<Measured> {
    let task = task(QUEUE, TEXT_CHARS)?;
    let next = Claim { wait_ms: Some(20_000), ..claim(QUEUE, 1) };
    let mut latencies = histogram()?;
    let meter = Meter::start(&running.processes);
    for _ in 0..times {
        let (worker, next) = (worker.clone(), next.clone());
        let waiting = tokio::spawn(async move {
            let claimed = worker.claim(&next).await;
            (Instant::now(), claimed)
        });
        tokio::time::sleep(WORKER_LEAD_TIME).await;
        let sent = Instant::now();
        creator.create_task(&task).await?;
        let (answered, claimed) = waiting.await?;
        let claimed = claimed?;
        ensure!(claimed.len() == 1, "the worker got {} tasks", claimed.len());
        latencies.saturating_record(micros(answered.saturating_duration_since(sent)));
        for claimed in claimed {
            complete(claimed).await?;
        }
    }
    let (elapsed, usage) = meter.stop();
    // Not a rate: between the tasks nothing was done on purpose.
    let sample = Sample { items: 0, elapsed, latencies, usage };
    running.close(sample).await
}
