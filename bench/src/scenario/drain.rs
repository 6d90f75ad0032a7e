//! Draining a backlog in batches: `outcomes` settles what was worked on and brings the next work in one call.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use task_repo_client::{Claim, ClaimedTask, Completion, Ending, Settlement, TaskClient};

use crate::bench::{Bench, Measured};
use crate::load::{CallOutcome, Load, Sample, closed_loop};
use crate::meter::Processes;
use crate::work::{QUEUE, claim, fill_queue, result};

/// Workers, whatever the number of servers.
const WORKERS: usize = 4;
/// Tasks that a worker has at a time.
const TASKS_PER_WORKER: u32 = 250;

/// A worker that holds tasks between its calls.
#[derive(Clone, Default)]
pub(super) struct Worker(Arc<Mutex<Vec<ClaimedTask>>>);

impl Worker {
    /// Settles what it holds and takes what `next` brings; how many were settled.
    pub(super) async fn settle_and_claim(&self, client: &TaskClient, next: Claim) -> Result<usize> {
        let held = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let settle = |claimed: ClaimedTask| {
            let completion = Completion::of(&result(claimed.id()))?;
            Ok(Settlement { claimed, ending: Ending::Completed(completion) })
        };
        let settlements = held.into_iter().map(settle).collect::<Result<Vec<_>>>()?;
        let (count, tasks) = if settlements.is_empty() {
            (0, client.claim(&next).await?)
        } else {
            let settled = client.settle(settlements, Some(next)).await?;
            if let Some(refused) = settled.results.iter().find_map(|result| result.as_ref().err()) {
                bail!("a settlement was refused: {}", refused.error);
            }
            (settled.results.len(), settled.next)
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(count)
    }
}

/// From one server.
pub(crate) async fn one_server(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(10_000, 150_000);
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, count).await?;
    let sample = drain(&running.processes, bench.duration(), running.clients(), QUEUE, count).await?;
    running.close(sample).await
}

/// Drains a queue of `count` for that long; workers are spread over the clients.
pub(super) async fn drain(
    processes: &Processes,
    time: Duration,
    clients: Vec<TaskClient>,
    queue: &str,
    count: usize,
) -> Result<Sample> {
    let workers: [Worker; WORKERS] = std::array::from_fn(|_| Worker::default());
    let left = Arc::new(AtomicUsize::new(count));
    let load = Load::of(workers.len(), time).without_warm_up();
    let next = claim(queue, TASKS_PER_WORKER);
    closed_loop(processes, load, move |number| {
        let (worker, left) = (workers[number].clone(), Arc::clone(&left));
        let (client, next) = (clients[number % clients.len()].clone(), next.clone());
        async move {
            let settled = worker.settle_and_claim(&client, next).await?;
            let before = left.fetch_sub(settled, Ordering::Relaxed);
            before.checked_sub(settled).context("more was settled than there was")?;
            Ok(match settled {
                // The first call settles nothing, and so does one that found nothing before it.
                0 if before > 0 => CallOutcome::Uncounted,
                settled => CallOutcome::counted(settled),
            })
        }
    })
    .await
}
