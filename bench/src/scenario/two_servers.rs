//! Two servers on one database, compared with the better of the two alone.

use std::time::Duration;

use anyhow::Result;
use task_repo_client::TaskClient;

use super::claim::claim_until_empty;
use super::drain::drain;
use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, Load, Sample};
use crate::meter::Processes;
use crate::work::{claim, fill_queue};

/// How often each is measured.
const ROUNDS: u32 = 4;

/// Claims one by one.
pub(crate) async fn claims(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(5_000, 25_000);
    alternating(bench, count, |processes, clients, queue, time| async move {
        claim_until_empty(&processes, Load::of(CALLERS, time), clients, claim(&queue, 1)).await
    })
    .await
}

/// Claims and settles in batches.
pub(crate) async fn drains(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(6_000, 40_000);
    alternating(bench, count, move |processes, clients, queue, time| async move {
        drain(&processes, time, clients, &queue, count).await
    })
    .await
}

/// Measures one server, the other, and both, by turns and each time with a queue of `count`: a machine that becomes slower
/// does so for all three.
async fn alternating<R>(
    bench: &Bench,
    count: usize,
    measure: impl Fn(Processes, Vec<TaskClient>, String, Duration) -> R,
) -> Result<Measured>
where
    R: Future<Output = Result<Sample>>,
{
    let running = bench.start_servers(2).await?;
    let clients = running.clients();
    let client_sets = [vec![clients[0].clone()], vec![clients[1].clone()], clients];
    let rounds = bench.pick(1, ROUNDS);
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    let mut conflicts = 0;
    for round in 0..rounds {
        for ((number, clients), samples) in client_sets.iter().enumerate().zip(&mut samples) {
            let queue = format!("queue-{number}-{round}");
            fill_queue(running.client(), &queue, count).await?;
            let before = bench.write_conflicts().await?;
            let sample =
                measure(running.processes.clone(), clients.clone(), queue, bench.duration() / 2).await?;
            if clients.len() > 1 {
                conflicts += bench.write_conflicts().await? - before;
            }
            samples.push(sample);
        }
    }
    let [one, other, both] = samples.map(Sample::of_all);
    let (both, alone) = (both?, one?.per_second().max(other?.per_second()));
    #[expect(clippy::cast_precision_loss, reason = "numbers of conflicts and tasks")]
    let conflicts = 1000.0 * conflicts as f64 / both.items.max(1) as f64;
    let notes = vec![("database_conflicts_per_1000_tasks", conflicts)];
    running.close(Measured { limit: Some(("one alone", alone)), notes, ..both.into() }).await
}
