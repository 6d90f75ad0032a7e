//! Tasks in a database of their own, and how many go into one command.

use anyhow::Result;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, Database, IndexModel};

use super::document;
use crate::bench::Bench;

/// Documents in one insert or claim.
pub(super) const BATCH: usize = 500;

/// Statements in one update command that settles.
pub(super) const STATEMENTS: usize = 200;

/// Batches of a kind on their way at once: more bring nothing on one disk.
pub(super) const IN_FLIGHT: usize = 2;

/// Tasks in a database of their own.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) database: Database,
    pub(super) collection: Collection<RawDocumentBuf>,
}

impl Tasks {
    /// An empty collection with its indexes.
    pub(super) async fn new(bench: &Bench) -> Result<Self> {
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
    pub(super) async fn filled(bench: &Bench, count: usize, make: fn() -> RawDocumentBuf) -> Result<Self> {
        let tasks = Self::new(bench).await?;
        for first in (0..count).step_by(1_000) {
            let batch: Vec<_> = (first..count.min(first + 1_000)).map(|_| make()).collect();
            tasks.collection.insert_many(batch).await?;
        }
        Ok(tasks)
    }
}

/// The filter of ready tasks.
pub(super) fn ready() -> Document {
    doc! { "tenant": document::TENANT, "status": "pending", "task_type": document::QUEUE }
}

/// The order of claims.
pub(super) fn claim_order() -> Document {
    doc! { "priority": -1, "ready_at": 1, "_id": 1 }
}
