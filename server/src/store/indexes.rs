//! Which indexes there are, and why. All are made at start; making them again changes nothing.
//!
//! Reads name their index, so one that this release does not use is dropped at a start when no server is registered that
//! reads it. One that comes back makes it again.
//!
//! Partial wherever a field is rare, so that a plain task pays only for what it uses.

use bson::{Document, doc};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use super::beside::BESIDE;
use super::driver::Store;
use super::task_types::{TYPES_BY_CHANGE, TYPES_BY_NAME};

/// Ready work in claim order.
pub(super) const READY: &str = "ready";
/// Ready work of one user in claim order.
pub(super) const READY_BY_USER: &str = "ready_by_user_and_type";
/// Ready work with a tag in claim order.
pub(super) const READY_BY_TAG: &str = "ready_by_tag_and_type";
/// Tasks in a status, newest first. Only servers of 0.1.0 read it, and make it. Each move of a task writes to it.
const NEWEST_BY_STATUS: &str = "newest";
/// The stored form that those servers write.
const READS_NEWEST_BY_STATUS: &str = "1.0";
/// A tenant's tasks, newest first.
pub(super) const NEWEST_OF_ALL: &str = "newest_of_all";
/// Tasks of a type, newest first.
pub(super) const NEWEST_BY_TYPE: &str = "newest_by_type";
/// A user's tasks, newest first.
pub(super) const NEWEST_BY_USER: &str = "newest_by_user";
/// Tasks with a tag, newest first.
pub(super) const NEWEST_BY_TAG: &str = "newest_by_tag";
/// Scheduled tasks by due time.
pub(super) const DUE: &str = "due";
/// Leases by end.
pub(super) const LEASES: &str = "leases";
/// Tasks by what they produced.
pub(super) const RESULTS: &str = "results";
/// Tasks by the claim that took them.
pub(super) const CLAIMS: &str = "claims";
/// Tasks by the idempotency key that made them.
pub(super) const IDEMPOTENCY: &str = "idempotency";
/// Tasks by when they may be removed.
pub(super) const REMOVAL: &str = "removal";

fn index(name: &str, keys: Document, mut options: IndexOptions) -> IndexModel {
    options.name = Some(name.to_owned());
    IndexModel::builder().keys(keys).options(options).build()
}

fn partial(filter: Document) -> IndexOptions {
    IndexOptions::builder().partial_filter_expression(filter).build()
}

fn unique(mut options: IndexOptions) -> IndexOptions {
    options.unique = Some(true);
    options
}

fn models() -> Vec<IndexModel> {
    let claim_order = doc! { "priority": -1, "ready_at": 1, "_id": 1 };
    let newest = doc! { "created_at": -1, "_id": -1 };
    let keyed = |first: Document, rest: &Document| {
        let mut keys = doc! { "tenant": 1 };
        keys.extend(first);
        keys.extend(rest.clone());
        keys
    };
    // Last, so that lists of all types come in order; what is of other types is stepped over without reading it.
    let typed = |first: Document| {
        let mut keys = keyed(first, &claim_order);
        keys.insert("task_type", 1);
        keys
    };
    vec![
        // `status` is the same in every entry, but without it a list of the types that have work would read each task.
        index(
            READY,
            keyed(doc! { "status": 1, "task_type": 1 }, &claim_order),
            partial(doc! { "status": "pending" }),
        ),
        index(
            READY_BY_USER,
            typed(doc! { "user_id": 1 }),
            partial(doc! { "status": "pending", "user_id": { "$exists": true } }),
        ),
        index(
            READY_BY_TAG,
            typed(doc! { "tags": 1 }),
            partial(doc! { "status": "pending", "tags": { "$exists": true } }),
        ),
        // Without the status: a move writes nothing to them.
        index(NEWEST_OF_ALL, keyed(doc! {}, &newest), IndexOptions::default()),
        index(NEWEST_BY_TYPE, keyed(doc! { "task_type": 1 }, &newest), IndexOptions::default()),
        index(
            NEWEST_BY_USER,
            keyed(doc! { "user_id": 1 }, &newest),
            partial(doc! { "user_id": { "$exists": true } }),
        ),
        index(
            NEWEST_BY_TAG,
            keyed(doc! { "tags": 1 }, &newest),
            partial(doc! { "tags": { "$exists": true } }),
        ),
        index(DUE, doc! { "run_at": 1 }, partial(doc! { "status": "scheduled" })),
        index(LEASES, doc! { "lease_until": 1 }, partial(doc! { "status": "processing" })),
        index(
            RESULTS,
            keyed(doc! { "result_id": 1 }, &newest),
            partial(doc! { "result_id": { "$exists": true } }),
        ),
        index(
            CLAIMS,
            keyed(doc! { "claim_ids": 1 }, &doc! {}),
            partial(doc! { "claim_ids": { "$exists": true } }),
        ),
        index(
            IDEMPOTENCY,
            keyed(doc! { "idempotency_key": 1 }, &doc! {}),
            unique(partial(doc! { "idempotency_key": { "$exists": true } })),
        ),
        index(REMOVAL, doc! { "remove_at": 1 }, partial(doc! { "remove_at": { "$exists": true } })),
    ]
}

impl Store {
    /// The indexes that there must be, by collection.
    pub(super) fn wanted_indexes(&self) -> Vec<(String, Vec<IndexModel>)> {
        let of_task = || vec![index("task", doc! { "task": 1 }, IndexOptions::default())];
        let of_keys = vec![
            index("hash", doc! { "hashes.hash": 1 }, unique(IndexOptions::default())),
            index("tenant", doc! { "tenant": 1, "created_at": -1 }, IndexOptions::default()),
        ];
        let mut wanted =
            vec![(self.tasks.name().to_owned(), models()), (self.keys.name().to_owned(), of_keys)];
        let of_types = vec![
            index(TYPES_BY_NAME, doc! { "tenant": 1, "task_type": 1 }, unique(IndexOptions::default())),
            index(TYPES_BY_CHANGE, doc! { "changed_at": 1 }, IndexOptions::default()),
        ];
        wanted.push((self.types_name(), of_types));
        wanted.extend(BESIDE.map(|name| (self.beside(name), of_task())));
        wanted
    }

    pub(super) async fn make_indexes(&self) -> mongodb::error::Result<()> {
        for (collection, indexes) in self.wanted_indexes() {
            self.database.collection::<Document>(&collection).create_indexes(indexes).await?;
        }
        self.drop_unread().await;
        Ok(())
    }

    /// Drops the index that no server reads any more, if it is there. The next start does what this one cannot.
    async fn drop_unread(&self) {
        let Ok(servers) = self.servers(self.step_deadline()).await else { return };
        if servers.iter().any(|server| server.schema == READS_NEWEST_BY_STATUS) {
            tracing::info!(
                "servers of 0.1.0 are registered: their index is kept, and costs each write a little"
            );
            return;
        }
        let names = self.tasks.list_index_names().await.unwrap_or_default();
        if names.iter().any(|name| name == NEWEST_BY_STATUS) {
            match self.tasks.drop_index(NEWEST_BY_STATUS).await {
                Ok(()) => tracing::info!("the index that only servers of 0.1.0 read is dropped"),
                Err(error) => tracing::warn!(%error, "the index that only servers of 0.1.0 read stays"),
            }
        }
    }
}
