//! Claiming ready tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use task_repo_client::{Claim, TaskClient};

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, Load, Sample, Step, closed_loop};
use crate::meter::Processes;
use crate::work::{QUEUE, TEXT, claim, fill, fill_queue, task};

/// Batches on their way at once.
const IN_FLIGHT: usize = 2;

/// Queues of [`types`].
const TYPES: usize = 1_000;

/// One task a call, from a backlog in one queue.
pub(crate) async fn singles(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, bench.pick(8_000, 100_000)).await?;
    let load = Load::of(CALLERS, bench.time());
    let sample = claim_until_empty(&stage.processes, load, stage.clients(), claim(QUEUE, 1)).await?;
    stage.close(sample).await
}

/// Up to `limit` tasks a call.
pub(crate) async fn batches(bench: &Bench, limit: u32) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, bench.pick(10_000, 120_000)).await?;
    let load = Load::of(IN_FLIGHT, bench.time()).cold();
    let sample = claim_until_empty(&stage.processes, load, stage.clients(), claim(QUEUE, limit)).await?;
    stage.close(sample).await
}

/// One task a call, each caller from another of 1 000 queues than before.
pub(crate) async fn types(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let queue = |number: usize| format!("queue-{number}");
    // Batches of one queue each would be unlike any real load.
    let filled = fill(stage.client(), bench.pick(8, 60) * TYPES, |number| task(&queue(number % TYPES), TEXT));
    filled.await?;
    let client = stage.client().clone();
    let next = Arc::new(AtomicUsize::new(0));
    let sample = closed_loop(&stage.processes, Load::of(CALLERS, bench.time()), move |_| {
        let (client, next) = (client.clone(), next.fetch_add(1, Ordering::Relaxed));
        async move {
            let claimed = client.claim(&claim(&queue(next % TYPES), 1)).await?;
            Ok(Step::counted(claimed.len()))
        }
    })
    .await?;
    stage.close(sample).await
}

/// Claims until nothing is left or the load's limits are met; callers take turns with the clients.
pub(super) async fn claim_until_empty(
    processes: &Processes,
    load: Load,
    clients: Vec<TaskClient>,
    claim: Claim,
) -> Result<Sample> {
    closed_loop(processes, load, move |caller| {
        let (client, claim) = (clients[caller % clients.len()].clone(), claim.clone());
        async move { Ok(Step::counted(client.claim(&claim).await?.len())) }
    })
    .await
}
