//! Claims from backlogs of different lengths: what waits behind must not make those in front slower.

use std::time::Duration;

use anyhow::Result;
use task_repo_client::NewTask;

use super::CALLERS;
use super::claim::claim_until_empty;
use crate::bench::{Bench, Measured, Stage};
use crate::load::{Load, Sample};
use crate::work::{QUEUE, TEXT, claim, fill, fill_queue, task};

/// Claims between two fillings; half of the shortest backlog.
const CLAIMS: usize = 5_000;
/// Further tasks that callers claim before the clock starts.
const WARM_UP: usize = CALLERS * 3;
/// The longest that one round may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Claims one by one from a backlog that is filled up again to `length` now and then.
pub(crate) async fn backlog(bench: &Bench, length: usize) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, length).await?;
    let sample = rounds(bench, &stage).await?;
    stage.close(sample).await
}

/// Claims one by one while `later` tasks are scheduled in the future, beside 1 000 that are ready.
pub(crate) async fn scheduled(bench: &Bench, later: usize) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let future = NewTask { delay_seconds: Some(86_400), ..task(QUEUE, TEXT)? };
    fill(stage.client(), later, |_| Ok(future.clone())).await?;
    fill_queue(stage.client(), QUEUE, 1_000 + CLAIMS + WARM_UP).await?;
    let sample = rounds(bench, &stage).await?;
    stage.close(sample).await
}

async fn rounds(bench: &Bench, stage: &Stage) -> Result<Sample> {
    bench.checkpoint().await?;
    let load = Load::of(CALLERS, PATIENCE).up_to(CLAIMS as u64);
    let mut all = claim_until_empty(&stage.processes, load, stage.clients(), claim(QUEUE, 1)).await?;
    for _ in 1..bench.pick(2, 6) {
        fill_queue(stage.client(), QUEUE, CLAIMS + WARM_UP).await?;
        let again = claim_until_empty(&stage.processes, load, stage.clients(), claim(QUEUE, 1)).await?;
        all = all.and(&again)?;
    }
    Ok(all)
}
