//! Claiming ready tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use task_repo_client::{Claim, TaskClient};

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, CallOutcome, Load, Sample, closed_loop};
use crate::meter::Processes;
use crate::work::{QUEUE, TEXT_CHARS, claim, fill, fill_queue, task};

/// Batches on their way at once.
const IN_FLIGHT: usize = 2;

/// Queues of [`types`].
const TYPES: usize = 1_000;

/// One task a call, from a backlog in one queue.
pub(crate) async fn singles(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, bench.pick(8_000, 100_000)).await?;
    let load = Load::of(CALLERS, bench.duration());
    let sample = claim_until_empty(&running.processes, load, running.clients(), claim(QUEUE, 1)).await?;
    running.close(sample).await
}

/// Up to `limit` tasks a call.
pub(crate) async fn batches(bench: &Bench, limit: u32) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, bench.pick(10_000, 120_000)).await?;
    let load = Load::of(IN_FLIGHT, bench.duration()).without_warm_up();
    let sample = claim_until_empty(&running.processes, load, running.clients(), claim(QUEUE, limit)).await?;
    running.close(sample).await
}

/// One task a call, each caller from another of 1 000 queues than before.
pub(crate) async fn types(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let queue = |number: usize| format!("queue-{number}");
    // Batches of one queue each would be unlike any real load.
    let filled =
        fill(running.client(), bench.pick(8, 60) * TYPES, |number| task(&queue(number % TYPES), TEXT_CHARS));
    filled.await?;
    let client = running.client().clone();
    let next = Arc::new(AtomicUsize::new(0));
    let sample = closed_loop(&running.processes, Load::of(CALLERS, bench.duration()), move |_| {
        let (client, next) = (client.clone(), next.fetch_add(1, Ordering::Relaxed));
        async move {
            let claimed = client.claim(&claim(&queue(next % TYPES), 1)).await?;
            Ok(CallOutcome::counted(claimed.len()))
        }
    })
    .await?;
    running.close(sample).await
}

/// Claims until nothing is left or the load's limits are met; the callers are spread over the clients.
pub(super) async fn claim_until_empty(
    processes: &Processes,
    load: Load,
    clients: Vec<TaskClient>,
    claim: Claim,
) -> Result<Sample> {
    closed_loop(processes, load, move |caller| {
        let (client, claim) = (clients[caller % clients.len()].clone(), claim.clone());
        async move { Ok(CallOutcome::counted(client.claim(&claim).await?.len())) }
    })
    .await
}
