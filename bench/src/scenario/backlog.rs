//! Claims from backlogs of different lengths: what waits behind must not make those in front slower.

use std::time::Duration;

use anyhow::{Result, anyhow};
use task_repo_client::NewTask;

use super::claim::claim_until_empty;
use crate::bench::{Bench, Measured, RunningServers};
use crate::load::{CALLERS, Load, Sample};
use crate::work::{QUEUE, TEXT_CHARS, claim, fill, fill_queue, task};

/// Tasks of the shortest backlog.
const SHORTEST_BACKLOG: usize = 10_000;
/// Claims from one backlog in one round: half of the shortest backlog, which is then filled up again.
const CLAIMS_PER_ROUND: usize = 5_000;
/// Further tasks that callers claim before the clock starts.
const WARM_UP_TASKS: usize = CALLERS * 3;
/// Longest that one round may take. It ends with its claims, so this bounds a run that hangs.
const MAX_ROUND_TIME: Duration = Duration::from_secs(20);

/// Claims one by one from the shortest backlog.
pub(crate) async fn shortest(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, SHORTEST_BACKLOG).await?;
    let [sample] = rounds(bench, [&running]).await?;
    running.close(sample).await
}

/// Claims one by one from a backlog of `length`.
pub(crate) async fn backlog(bench: &Bench, length: usize) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, length).await?;
    beside_the_shortest(bench, running).await
}

/// Claims one by one while `later` tasks are scheduled in the future, beside 1 000 that are ready.
pub(crate) async fn scheduled(bench: &Bench, later: usize) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let future = NewTask { delay_seconds: Some(86_400), ..task(QUEUE, TEXT_CHARS)? };
    fill(running.client(), later, |_| Ok(future.clone())).await?;
    fill_queue(running.client(), QUEUE, 1_000 + CLAIMS_PER_ROUND + WARM_UP_TASKS).await?;
    beside_the_shortest(bench, running).await
}

/// Compares with claims from the shortest backlog. The two are measured by turns, so that a machine that becomes
/// slower does so for both.
async fn beside_the_shortest(bench: &Bench, running: RunningServers) -> Result<Measured> {
    let short = bench.start_servers(1).await?;
    fill_queue(short.client(), QUEUE, SHORTEST_BACKLOG).await?;
    let [sample, shortest] = rounds(bench, [&running, &short]).await?;
    let limit = Some(("10 000 ready", shortest.per_second()));
    short.close(shortest).await?;
    running.close(Measured { limit, ..sample.into() }).await
}

/// Claims from each group of servers by turns. Its backlog is filled up again before each round but the first.
async fn rounds<const N: usize>(bench: &Bench, groups: [&RunningServers; N]) -> Result<[Sample; N]> {
    bench.checkpoint().await?;
    let load = Load::of(CALLERS, MAX_ROUND_TIME).up_to(CLAIMS_PER_ROUND as u64);
    let mut samples = groups.map(|_| Vec::new());
    for round in 0..bench.pick(2, 6) {
        for (running, samples) in groups.iter().zip(&mut samples) {
            if round > 0 {
                fill_queue(running.client(), QUEUE, CLAIMS_PER_ROUND + WARM_UP_TASKS).await?;
            }
            let claimed = claim_until_empty(&running.processes, load, running.clients(), claim(QUEUE, 1));
            samples.push(claimed.await?);
        }
    }
    let all: Vec<_> = samples.into_iter().map(Sample::of_all).collect::<Result<_>>()?;
    all.try_into().map_err(|_| anyhow!("a sample for each stage"))
}
