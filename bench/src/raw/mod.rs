//! Raw limits: the work of a task queue done by the database's driver alone, as well as it can be done that way.
//!
//! The tasks are as long as the service's and have the same two indexes that every task is in. All writes are
//! journaled on a majority. Retryable writes are off, because they cost the database a second write each.

mod batch;
mod document;
mod pipeline;
mod single;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, Database, IndexModel};

pub(crate) use batch::{claims as claim_batches, inserts as insert_batches, settlements as settle_batches};
pub(crate) use pipeline::{drain, lives};
pub(crate) use single::{claims, completions, inserts, round_trip};

use crate::bench::Bench;

/// Callers of the single calls.
pub(crate) const CALLERS: usize = 64;

/// Documents in one insert or claim.
const BATCH: usize = 500;

/// Statements in one update command that settles.
const STATEMENTS: usize = 200;

/// Batches of a kind on their way at once: more bring nothing on one disk.
const IN_FLIGHT: usize = 2;

/// Tasks in a database of their own.
#[derive(Clone)]
struct Tasks {
    database: Database,
    collection: Collection<RawDocumentBuf>,
}

impl Tasks {
    /// An empty collection with its indexes.
    async fn new(bench: &Bench) -> Result<Self> {
        let database = bench.fresh_database();
        let collection = database.collection::<RawDocumentBuf>("tasks");
        let pending = IndexOptions::builder()
            .name("ready".to_owned())
            .partial_filter_expression(doc! { "status": "pending" })
            .build();
        let ready =
            doc! { "tenant": 1, "status": 1, "task_type": 1, "priority": -1, "ready_at": 1, "_id": 1 };
        let newest = doc! { "tenant": 1, "status": 1, "created_at": -1, "_id": -1 };
        let newest = IndexModel::builder().keys(newest).build();
        collection
            .create_indexes([IndexModel::builder().keys(ready).options(pending).build(), newest])
            .await?;
        Ok(Self { database, collection })
    }

    /// The same with `count` tasks in it, as `make` makes them.
    async fn filled(bench: &Bench, count: usize, make: fn() -> RawDocumentBuf) -> Result<Self> {
        let tasks = Self::new(bench).await?;
        for first in (0..count).step_by(1_000) {
            let batch: Vec<_> = (first..count.min(first + 1_000)).map(|_| make()).collect();
            tasks.collection.insert_many(batch).await?;
        }
        Ok(tasks)
    }
}

/// The filter of ready tasks.
fn ready() -> Document {
    doc! { "tenant": document::TENANT, "status": "pending", "task_type": document::QUEUE }
}

/// The order of claims.
fn claim_order() -> Document {
    doc! { "priority": -1, "ready_at": 1, "_id": 1 }
}

/// What callers take from each other.
struct Shelf<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shelf<T> {
    fn of(things: impl IntoIterator<Item = T>) -> Self {
        Self(Arc::new(Mutex::new(things.into_iter().collect())))
    }

    fn put(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(thing);
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
