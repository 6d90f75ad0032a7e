//! One command for each task and step, as plain programs do it.

use anyhow::{Result, ensure};

use super::document;
use super::shared_queue::SharedQueue;
use super::tasks::{Tasks, claim_order, ready};
use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, CallOutcome, Load, Sample, closed_loop};

/// `insertOne` by one caller: what a journaled write takes when nothing else goes on.
pub(crate) async fn round_trip(bench: &Bench) -> Result<Measured> {
    Ok(insert(bench, Load::of(1, bench.duration())).await?.into())
}

/// `insertOne`.
pub(crate) async fn inserts(bench: &Bench) -> Result<Measured> {
    Ok(insert(bench, Load::of(CALLERS, bench.duration())).await?.into())
}

async fn insert(bench: &Bench, load: Load) -> Result<Sample> {
    let tasks = Tasks::new(bench).await?;
    closed_loop(&bench.without_servers(), load, move |_| {
        let collection = tasks.collection.clone();
        async move {
            collection.insert_one(document::pending()).await?;
            Ok(CallOutcome::Did(1))
        }
    })
    .await
}

/// Sorted `findOneAndUpdate`: the claim that everybody writes first.
pub(crate) async fn claims(bench: &Bench) -> Result<Measured> {
    let tasks = Tasks::filled(bench, bench.pick(8_000, 30_000), document::pending).await?;
    let sample = closed_loop(&bench.without_servers(), Load::of(CALLERS, bench.duration()), move |_| {
        let collection = tasks.collection.clone();
        async move {
            let found =
                collection.find_one_and_update(ready(), document::lease()).sort(claim_order()).await?;
            Ok(CallOutcome::counted(usize::from(found.is_some())))
        }
    })
    .await?;
    Ok(sample.into())
}

/// `updateOne` by id, guarded by status and token.
pub(crate) async fn completions(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(15_000, 60_000);
    let tasks = Tasks::new(bench).await?;
    let ids: Vec<_> = (0..count).map(|_| document::id()).collect();
    for some in ids.chunks(1_000) {
        tasks.collection.insert_many(some.iter().cloned().map(document::processing)).await?;
    }
    let held = SharedQueue::of(ids);
    let sample = closed_loop(&bench.without_servers(), Load::of(CALLERS, bench.duration()), move |_| {
        let (collection, id) = (tasks.collection.clone(), held.pop());
        async move {
            let Some(id) = id else { return Ok(CallOutcome::NothingLeft) };
            let updated = collection.update_one(document::held(&id), document::completion()).await?;
            ensure!(updated.matched_count == 1, "a task was not there to be completed");
            Ok(CallOutcome::Did(1))
        }
    })
    .await?;
    Ok(sample.into())
}
