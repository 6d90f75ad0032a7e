//! One command for many tasks.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use mongodb::Cursor;
use mongodb::bson::{Binary, RawDocumentBuf, doc};
use tokio::sync::Mutex;

use super::document;
use super::shared_queue::SharedQueue;
use super::tasks::{BATCH, IN_FLIGHT, STATEMENTS, Tasks, claim_order, ready};
use crate::bench::{Bench, Measured};
use crate::load::{CallOutcome, Load, closed_loop};

impl Tasks {
    /// `insertMany`.
    pub(super) async fn insert_batch(&self) -> Result<()> {
        let batch: Vec<_> = (0..BATCH).map(|_| document::pending()).collect();
        self.collection.insert_many(batch).ordered(false).await?;
        Ok(())
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

/// A backlog that is there from the beginning, read once from front to back. Reading from the front again would step over
/// the index entries of all tasks that are claimed already.
#[derive(Clone)]
pub(super) struct Backlog(Arc<Mutex<Cursor<RawDocumentBuf>>>);

impl Backlog {
    /// What is ready now, in claim order.
    pub(super) async fn of(tasks: &Tasks) -> Result<Self> {
        let find = tasks.collection.find(ready()).sort(claim_order()).batch_size(u32::try_from(BATCH)?);
        Ok(Self(Arc::new(Mutex::new(find.await?))))
    }

    /// The next batch, whole; empty at the end.
    pub(super) async fn next(&self) -> Result<Vec<RawDocumentBuf>> {
        let mut cursor = self.0.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH
            && let Some(task) = cursor.try_next().await?
        {
            batch.push(task);
        }
        Ok(batch)
    }
}

/// `insertMany`.
pub(crate) async fn inserts(bench: &Bench) -> Result<Measured> {
    let tasks = Tasks::new(bench).await?;
    let sample = closed_loop(&bench.without_servers(), Load::of(IN_FLIGHT, bench.duration()), move |_| {
        let tasks = tasks.clone();
        async move {
            tasks.insert_batch().await?;
            Ok(CallOutcome::counted(BATCH))
        }
    })
    .await?;
    Ok(sample.into())
}

/// Ready tasks read in claim order, and `updateMany` by ids and status.
pub(crate) async fn claims(bench: &Bench) -> Result<Measured> {
    let tasks = Tasks::filled(bench, bench.pick(30_000, 200_000), document::pending).await?;
    let backlog = Backlog::of(&tasks).await?;
    let load = Load::of(IN_FLIGHT, bench.duration()).without_warm_up();
    let sample = closed_loop(&bench.without_servers(), load, move |_| {
        let (tasks, backlog) = (tasks.clone(), backlog.clone());
        async move {
            let found = backlog.next().await?;
            Ok(CallOutcome::counted(tasks.lease_batch(&found).await?.len()))
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
    let held = SharedQueue::of(ids.chunks(STATEMENTS).map(<[Binary]>::to_vec));
    let load = Load::of(IN_FLIGHT, bench.duration()).without_warm_up();
    let sample = closed_loop(&bench.without_servers(), load, move |_| {
        let (tasks, ids) = (tasks.clone(), held.pop());
        async move {
            let Some(ids) = ids else { return Ok(CallOutcome::NothingLeft) };
            tasks.settle_batch(&ids).await?;
            Ok(CallOutcome::counted(ids.len()))
        }
    })
    .await?;
    Ok(sample.into())
}
