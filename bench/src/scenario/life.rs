//! The whole life of tasks: create, claim, complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use task_repo_client::{Claim, NewTask};

use super::drain::Worker;
use super::feed::Feed;
use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, CallOutcome, Load, closed_loop};
use crate::work::{BATCH, QUEUE, TEXT_CHARS, claim, complete, create_all, task};

/// Callers that create in batches.
const PRODUCERS: usize = 2;
/// Callers that claim and settle in batches.
const WORKERS: usize = 2;
/// Tasks that a worker has at a time.
const TASKS_PER_WORKER: u32 = 250;
/// Unfinished tasks from which on producers wait: ten batches, so that workers always find some.
const MAX_READY: usize = 5_000;

/// Three calls for each task.
pub(crate) async fn singles(bench: &Bench) -> Result<Measured> {
    one_by_one(bench, CALLERS, task(QUEUE, TEXT_CHARS)?, Feed::Open).await
}

/// The same while no server reads the feed.
pub(crate) async fn singles_without_feed(bench: &Bench) -> Result<Measured> {
    one_by_one(bench, CALLERS, task(QUEUE, TEXT_CHARS)?, Feed::Closed).await
}

/// The same with payloads of that many bytes, and fewer callers.
pub(crate) async fn payload(bench: &Bench, bytes: usize) -> Result<Measured> {
    one_by_one(bench, 16, task(QUEUE, bytes)?, Feed::Open).await
}

async fn one_by_one(bench: &Bench, callers: usize, task: NewTask, feed: Feed) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let _feed = feed.set(&running).await?;
    let client = running.client().clone();
    // There are never more claims than tasks, so no claim waits for long.
    let next = Claim { wait_ms: Some(10_000), ..claim(QUEUE, 1) };
    let sample = closed_loop(&running.processes, Load::of(callers, bench.duration()), move |_| {
        let (client, task, next) = (client.clone(), task.clone(), next.clone());
        async move {
            client.create_task(&task).await?;
            let mut lives = 0;
            for claimed in client.claim(&next).await? {
                complete(claimed).await?;
                lives += 1;
            }
            Ok(CallOutcome::counted(lives))
        }
    })
    .await?;
    running.close(sample).await
}

/// Creates of 500 and `outcomes` with claim-next of 250, side by side; what is completed counts.
pub(crate) async fn batches(bench: &Bench) -> Result<Measured> {
    in_batches(bench, Feed::Open).await
}

/// The same while no server reads the feed.
pub(crate) async fn batches_without_feed(bench: &Bench) -> Result<Measured> {
    in_batches(bench, Feed::Closed).await
}

async fn in_batches(bench: &Bench, feed: Feed) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let _feed = feed.set(&running).await?;
    let (client, tasks) = (running.client().clone(), Arc::new(vec![task(QUEUE, TEXT_CHARS)?; BATCH]));
    let open = Arc::new(AtomicUsize::new(0));
    let workers = [(); WORKERS].map(|()| Worker::default());
    let load = Load::of(PRODUCERS + WORKERS, bench.duration().max(Duration::from_secs(3))).without_warm_up();
    let sample = closed_loop(&running.processes, load, move |caller| {
        let (client, tasks, open) = (client.clone(), Arc::clone(&tasks), Arc::clone(&open));
        let worker = workers.get(caller).cloned();
        async move {
            let Some(worker) = worker else {
                if open.load(Ordering::Relaxed) > MAX_READY {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    create_all(&client, &tasks).await?;
                    open.fetch_add(BATCH, Ordering::Relaxed);
                }
                return Ok(CallOutcome::Uncounted);
            };
            let next = Claim { wait_ms: Some(2_000), ..claim(QUEUE, TASKS_PER_WORKER) };
            let settled = worker.settle_and_claim(&client, next).await?;
            open.fetch_sub(settled, Ordering::Relaxed);
            Ok(if settled == 0 { CallOutcome::Uncounted } else { CallOutcome::counted(settled) })
        }
    })
    .await?;
    running.close(sample).await
}
