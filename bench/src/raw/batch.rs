//! One command for many tasks.

use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use mongodb::bson::{Binary, Document, RawDocumentBuf, doc};
use mongodb::options::FindOptions;

use super::{BATCH, IN_FLIGHT, STATEMENTS, Shelf, Tasks, claim_order, document, ready};
use crate::bench::{Bench, Measured};
use crate::load::{Load, Step, closed_loop};

impl Tasks {
    /// `insertMany`.
    pub(super) async fn insert_batch(&self) -> Result<()> {
        let batch: Vec<_> = (0..BATCH).map(|_| document::pending()).collect();
        self.collection.insert_many(batch).ordered(false).await?;
        Ok(())
    }

    /// Ready tasks in claim order, whole, from `filter` on.
    pub(super) async fn read_ready(&self, filter: Document) -> Result<Vec<RawDocumentBuf>> {
        let limit = i64::try_from(BATCH)?;
        let batch = u32::try_from(BATCH)?;
        let options = FindOptions::builder().sort(claim_order()).limit(limit).batch_size(batch).build();
        Ok(self.collection.find(filter).with_options(options).await?.try_collect().await?)
    }

    /// `updateMany` by ids and status.
    pub(super) async fn lease_batch(&self, found: &[RawDocumentBuf]) -> Result<Vec<Binary>> {
        let ids: Vec<_> = found.iter().filter_map(document::id_of).collect();
        let filter = doc! { "_id": { "$in": &ids }, "status": "pending" };
        let updated = self.collection.update_many(filter, document::lease()).await?;
        ensure!(updated.matched_count == ids.len() as u64, "somebody else claimed in between");
        Ok(ids)
    }

    /// `update` with one statement for each task.
    pub(super) async fn settle_batch(&self, ids: &[Binary]) -> Result<()> {
        let statement = |id| doc! { "q": document::held(id), "u": document::completion() };
        let statements: Vec<_> = ids.iter().map(statement).collect();
        let command = doc! {
            "update": self.collection.name(), "updates": statements, "ordered": false,
            "writeConcern": { "w": "majority", "j": true },
        };
        let answer = self.database.run_command(command).await?;
        let matched = answer.get_i32("n").unwrap_or(0);
        ensure!(usize::try_from(matched)? == ids.len(), "only {matched} of {} were settled", ids.len());
        Ok(())
    }
}

/// `insertMany`.
pub(crate) async fn inserts(bench: &Bench) -> Result<Measured> {
    let tasks = Tasks::new(bench).await?;
    let sample = closed_loop(&bench.without_servers(), Load::of(IN_FLIGHT, bench.time()), move |_| {
        let tasks = tasks.clone();
        async move {
            tasks.insert_batch().await?;
            Ok(Step::counted(BATCH))
        }
    })
    .await?;
    Ok(sample.into())
}

/// A sorted read of ready tasks and `updateMany` by ids and status, one after the other.
pub(crate) async fn claims(bench: &Bench) -> Result<Measured> {
    let tasks = Tasks::filled(bench, bench.pick(30_000, 100_000), document::pending).await?;
    let load = Load::of(1, bench.time()).cold();
    let sample = closed_loop(&bench.without_servers(), load, move |_| {
        let tasks = tasks.clone();
        async move {
            let found = tasks.read_ready(ready()).await?;
            Ok(Step::counted(tasks.lease_batch(&found).await?.len()))
        }
    })
    .await?;
    Ok(sample.into())
}

/// `update` commands with one statement for each task.
pub(crate) async fn settlements(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(30_000, 120_000);
    let tasks = Tasks::new(bench).await?;
    let ids: Vec<_> = (0..count).map(|_| document::id()).collect();
    for some in ids.chunks(1_000) {
        tasks.collection.insert_many(some.iter().cloned().map(document::processing)).await?;
    }
    let held = Shelf::of(ids.chunks(STATEMENTS).map(<[Binary]>::to_vec));
    let load = Load::of(IN_FLIGHT, bench.time()).cold();
    let sample = closed_loop(&bench.without_servers(), load, move |_| {
        let (tasks, ids) = (tasks.clone(), held.take());
        async move {
            let Some(ids) = ids else { return Ok(Step::Done) };
            tasks.settle_batch(&ids).await?;
            Ok(Step::counted(ids.len()))
        }
    })
    .await?;
    Ok(sample.into())
}
