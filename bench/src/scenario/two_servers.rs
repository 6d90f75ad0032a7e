//! Two servers on one database, compared with the better of the two alone.

use anyhow::{Context, Result};
use task_repo_client::TaskClient;

use super::CALLERS;
use super::claim::claim_until_empty;
use super::drain::drain;
use crate::bench::{Bench, Measured, Stage};
use crate::load::{Load, Sample};
use crate::work::{claim, fill_queue};

/// Claims one by one.
pub(crate) async fn claims(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(2).await?;
    let count = bench.pick(5_000, 80_000);
    let mut samples = Vec::new();
    for (queue, clients) in line_ups(&stage) {
        fill_queue(stage.client(), queue, count).await?;
        let load = Load::of(CALLERS, bench.time());
        samples.push(claim_until_empty(&stage.processes, load, clients, claim(queue, 1)).await?);
    }
    compared(stage, samples).await
}

/// Claims and settles in batches.
pub(crate) async fn drains(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(2).await?;
    let count = bench.pick(6_000, 80_000);
    let mut samples = Vec::new();
    for (queue, clients) in line_ups(&stage) {
        fill_queue(stage.client(), queue, count).await?;
        samples.push(drain(&stage.processes, bench, clients, queue, count).await?);
    }
    compared(stage, samples).await
}

/// One server, the other, both: each with a queue of its own, so that all begin alike.
fn line_ups(stage: &Stage) -> [(&'static str, Vec<TaskClient>); 3] {
    let clients = stage.clients();
    [("one", vec![clients[0].clone()]), ("other", vec![clients[1].clone()]), ("both", clients)]
}

async fn compared(stage: Stage, mut samples: Vec<Sample>) -> Result<Measured> {
    let both = samples.pop().context("nothing was measured")?;
    let alone = samples.iter().map(Sample::per_second).fold(0.0, f64::max);
    let measured = Measured { limit: Some(alone), ..both.into() };
    stage.close(measured).await
}
