//! Batches of several kinds at once: what comes out at the end is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use mongodb::bson::{Binary, DateTime, RawDocumentBuf, doc};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::batch::Backlog;
use super::document;
use super::shared_queue::SharedQueue;
use super::tasks::{BATCH, IN_FLIGHT, STATEMENTS, Tasks, claim_order, ready};
use crate::bench::{Bench, Measured};
use crate::load::{CallOutcome, Load, closed_loop};

/// Ready tasks from which on inserts wait for claims: ten batches.
const MAX_READY: usize = 5_000;
/// Claimed batches of statements from which on claims wait for settlements.
const MAX_CLAIMED_BATCHES: usize = 8;

/// How long a caller with nothing to do waits before it looks again.
const IDLE_PAUSE: Duration = Duration::from_millis(1);

/// How far behind the newest task it has seen the claimer reads, in milliseconds: inserts overtake each other.
const OVERLAP_MS: i64 = 20;

/// Claims and settlements side by side.
#[derive(Clone)]
struct Pipeline {
    tasks: Tasks,
    claimed: SharedQueue<Vec<Binary>>,
    ready: Arc<AtomicUsize>,
    /// Tasks that are still to be settled.
    left: Arc<AtomicUsize>,
    source: Source,
}

/// Where the claimer finds ready tasks.
#[derive(Clone)]
enum Source {
    /// All of them were there before.
    Backlog(Backlog),
    /// They keep coming. The newest that was seen is where the claimer goes on.
    Growing(Arc<Mutex<Option<DateTime>>>),
}

impl Source {
    /// The next batch, whole; empty when there is nothing just now.
    async fn next(&self, tasks: &Tasks) -> Result<Vec<RawDocumentBuf>> {
        let position = match self {
            Self::Backlog(backlog) => return backlog.next().await,
            Self::Growing(position) => position,
        };
        let mut position = position.lock().await;
        let mut filter = ready();
        if let Some(position) = *position {
            // All have one priority; unless it is named, the bounds on the index end before it.
            filter.insert("priority", 50);
            let since = DateTime::from_millis(position.timestamp_millis() - OVERLAP_MS);
            filter.insert("ready_at", doc! { "$gte": since });
        }
        let find = tasks.collection.find(filter).sort(claim_order());
        let find = find.limit(i64::try_from(BATCH)?).batch_size(u32::try_from(BATCH)?);
        let found: Vec<RawDocumentBuf> = find.await?.try_collect().await?;
        let newest = found.last().and_then(|task| task.get_datetime("ready_at").ok());
        // After a read that found nothing the next begins at the front: an insert may be later by more than the overlap.
        *position = newest.and((*position).max(newest));
        Ok(found)
    }
}

impl Pipeline {
    fn of(tasks: Tasks, source: Source, ready: usize, left: usize) -> Self {
        let [ready, left] = [ready, left].map(|count| Arc::new(AtomicUsize::new(count)));
        Self { tasks, claimed: SharedQueue::of([]), ready, left, source }
    }

    fn is_done(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// A moment with nothing to do.
    async fn idle(&self) -> Result<CallOutcome> {
        sleep(IDLE_PAUSE).await;
        Ok(if self.is_done() { CallOutcome::NothingLeft } else { CallOutcome::Uncounted })
    }

    async fn insert(&self) -> Result<CallOutcome> {
        if self.ready.load(Ordering::Relaxed) >= MAX_READY {
            return self.idle().await;
        }
        self.tasks.insert_batch().await?;
        self.ready.fetch_add(BATCH, Ordering::Relaxed);
        Ok(CallOutcome::Uncounted)
    }

    async fn claim(&self) -> Result<CallOutcome> {
        if self.claimed.len() >= MAX_CLAIMED_BATCHES {
            return self.idle().await;
        }
        let found = self.source.next(&self.tasks).await?;
        if found.is_empty() {
            return self.idle().await;
        }
        let ids = self.tasks.lease_batch(&found).await?;
        self.ready.fetch_sub(ids.len().min(self.ready.load(Ordering::Relaxed)), Ordering::Relaxed);
        for some in ids.chunks(STATEMENTS) {
            self.claimed.push(some.to_vec());
        }
        Ok(CallOutcome::Uncounted)
    }

    async fn settle(&self) -> Result<CallOutcome> {
        let Some(ids) = self.claimed.pop() else { return self.idle().await };
        self.tasks.settle_batch(&ids).await?;
        self.left.fetch_sub(ids.len(), Ordering::Relaxed);
        Ok(CallOutcome::counted(ids.len()))
    }
}

/// A backlog of ready tasks is claimed and settled in batches.
pub(crate) async fn drain(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(40_000, 150_000);
    let tasks = Tasks::filled(bench, count, document::pending).await?;
    let source = Source::Backlog(Backlog::of(&tasks).await?);
    let pipeline = Pipeline::of(tasks, source, count, count);
    let load = Load::of(1 + IN_FLIGHT, bench.duration()).without_warm_up();
    let sample = closed_loop(&bench.without_servers(), load, move |caller| {
        let pipeline = pipeline.clone();
        async move { if caller == 0 { pipeline.claim().await } else { pipeline.settle().await } }
    })
    .await?;
    Ok(sample.into())
}

/// Tasks are inserted, claimed and settled in batches, all at the same time: whole lives.
pub(crate) async fn lives(bench: &Bench) -> Result<Measured> {
    let source = Source::Growing(Arc::default());
    let pipeline = Pipeline::of(Tasks::new(bench).await?, source, 0, usize::MAX);
    let load = Load::of(1 + 2 * IN_FLIGHT, bench.duration()).without_warm_up();
    let sample = closed_loop(&bench.without_servers(), load, move |caller| {
        let pipeline = pipeline.clone();
        async move {
            match caller {
                0 => pipeline.claim().await,
                1 | 2 => pipeline.insert().await,
                _ => pipeline.settle().await,
            }
        }
    })
    .await?;
    Ok(sample.into())
}
