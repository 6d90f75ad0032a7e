//! Claims from backlogs of different lengths: what waits behind must not make those in front slower.

use std::time::Duration;

use anyhow::{Result, anyhow};
use task_repo_client::NewTask;

use super::claim::claim_until_empty;
use crate::bench::{Bench, Measured, Stage};
use crate::load::{CALLERS, Load, Sample};
use crate::work::{QUEUE, TEXT, claim, fill, fill_queue, task};

/// Tasks of the shortest backlog.
const SHORTEST: usize = 10_000;
/// Claims between two fillings; half of the shortest backlog.
const CLAIMS: usize = 5_000;
/// Further tasks that callers claim before the clock starts.
const WARM_UP: usize = CALLERS * 3;
/// The longest that one round may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Claims one by one from the shortest backlog.
pub(crate) async fn shortest(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, SHORTEST).await?;
    let [sample] = rounds(bench, [&stage]).await?;
    stage.close(sample).await
}

/// Claims one by one from a backlog of `length`.
pub(crate) async fn backlog(bench: &Bench, length: usize) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, length).await?;
    beside_the_shortest(bench, stage).await
}

/// Claims one by one while `later` tasks are scheduled in the future, beside 1 000 that are ready.
pub(crate) async fn scheduled(bench: &Bench, later: usize) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let future = NewTask { delay_seconds: Some(86_400), ..task(QUEUE, TEXT)? };
    fill(stage.client(), later, |_| Ok(future.clone())).await?;
    fill_queue(stage.client(), QUEUE, 1_000 + CLAIMS + WARM_UP).await?;
    beside_the_shortest(bench, stage).await
}

/// Compares with claims from the shortest backlog. The two take turns: a machine that becomes slower does so for both.
async fn beside_the_shortest(bench: &Bench, stage: Stage) -> Result<Measured> {
    let short = bench.stage(1).await?;
    fill_queue(short.client(), QUEUE, SHORTEST).await?;
    let [sample, shortest] = rounds(bench, [&stage, &short]).await?;
    let limit = Some(("10 000 ready", shortest.per_second()));
    short.close(shortest).await?;
    stage.close(Measured { limit, ..sample.into() }).await
}

/// Claims from all the stages in turns. Each is filled up again in between.
async fn rounds<const N: usize>(bench: &Bench, stages: [&Stage; N]) -> Result<[Sample; N]> {
    bench.checkpoint().await?;
    let load = Load::of(CALLERS, PATIENCE).up_to(CLAIMS as u64);
    let mut samples = stages.map(|_| Vec::new());
    for round in 0..bench.pick(2, 6) {
        for (stage, samples) in stages.iter().zip(&mut samples) {
            if round > 0 {
                fill_queue(stage.client(), QUEUE, CLAIMS + WARM_UP).await?;
            }
            let claimed = claim_until_empty(&stage.processes, load, stage.clients(), claim(QUEUE, 1));
            samples.push(claimed.await?);
        }
    }
    let all: Vec<_> = samples.into_iter().map(Sample::of_all).collect::<Result<_>>()?;
    all.try_into().map_err(|_| anyhow!("a sample for each stage"))
}
