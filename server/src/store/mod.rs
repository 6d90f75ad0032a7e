//! Tasks and keys in MongoDB. The only place that names the driver.
//!
//! Every function takes many items and returns one result per item: callers that arrive together can be carried by
//! one command. Every write is journaled on a majority before it is answered.
//!
//! | file | what it does |
//! |---|---|
//! | [`connect`] | options, start-up checks, the database's clock |
//! | [`indexes`] | which indexes there are, and why |
//! | [`command`] | one write command and what came of it |
//! | [`group_commit`] | carrying callers that arrive together |
//! | [`form`] | the form in which tasks are stored |
//! | [`insert`] | new tasks |
//! | [`transition`] | changing a task: reading it, applying the lifecycle, writing what has changed |
//! | [`guarded_write`] | THE guarded write: every move of a task |
//! | [`claim`] | ready work in claim order, and taking it |
//! | [`by_id`] | reading tasks by id before they are changed or called missing |
//! | [`read`] | reading documents one by one, past those that cannot be read |
//! | [`query`] | reading: by id, by result |
//! | [`listing`] | what a list is asked for, and which part of which index it is in |
//! | [`list`] | pages of lists |
//! | [`deadline`] | by when a request is answered |
//! | [`due`] | what the background loops look for |
//! | [`outage`] | when leases could not be renewed |
//! | [`leases`] | what this server knows of the tasks it has leased |
//! | [`keys`] | issued API keys |
//! | [`schema`] | which version of the stored form the database has |
//! | [`servers`] | which servers there are, and what all of them must know |
//! | [`removal`] | removing tasks whose retention has ended |
//! | [`job_lease`] | what only one server does at a time |

mod by_id;
mod claim;
mod command;
mod connect;
mod deadline;
mod due;
mod form;
mod group_commit;
mod guarded_write;
mod indexes;
mod insert;
mod job_lease;
mod keys;
mod leases;
mod list;
mod listing;
mod outage;
mod query;
mod read;
mod removal;
mod schema;
mod servers;
mod transition;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocumentBuf};
use mongodb::options::{AggregateOptions, DistinctOptions, FindOptions, Hint};
use mongodb::{Client, Collection, Database};
use task_repo_protocol::Uuid;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::events::Hub;
use crate::task::TaskRecord;

use group_commit::{GroupCommit, Limits};

pub use claim::{Awaited, ClaimOrder, Claimed, From, Ready, Selection};
pub use connect::ConnectError;
pub use due::{DuePage, DueTask, DueTasks};
pub use guarded_write::new_stamp;
pub use insert::InsertRefused;
pub use keys::{KeyRecord, SecretHash};
pub use list::Found;
pub use listing::{Listing, Order, Position};
pub use outage::Outage;
pub use query::Want;
pub use read::{Unreadable, UnreadableDocument};
pub use removal::Removed;
pub use schema::{SCHEMA, SchemaVersion};
pub use servers::{Changes, ServerRecord};
pub use transition::{Applied, Change, Refused};

/// The database, and the runtime its driver lives on.
#[derive(Clone)]
pub struct Store {
    client: Client,
    database: Database,
    tasks: Collection<RawDocumentBuf>,
    keys: Collection<RawDocumentBuf>,
    // Connections belong to the runtime that opened them; request threads come and go.
    runtime: Handle,
    timeout: Duration,
    clock: Arc<Clock>,
    groups: Arc<Groups>,
    leases: leases::Leases,
    unreadable: Unreadable,
    arriving: read::Arriving,
    hub: Arc<Hub>,
    form: form::Form,
    places: Arc<Semaphore>,
    payload_pages: Arc<Semaphore>,
}

/// How many calls may be with the driver, sent or waiting for a connection.
const PLACES: usize = 2048;
/// How many pages of lists with payloads are read at once.
const PAYLOAD_PAGES: usize = 4;

/// Most bytes of tasks that one read brings; the first comes whatever its size.
const MAX_READ_BYTES: usize = 16 << 20;

/// What is carried together.
struct Groups {
    inserts: GroupCommit<insert::Drafted, Result<(), InsertRefused>>,
    writes: GroupCommit<guarded_write::Staged, guarded_write::Fate>,
    reads: GroupCommit<by_id::Wanted, Result<by_id::Read, StoreError>>,
    certain_reads: GroupCommit<by_id::Wanted, Result<by_id::Read, StoreError>>,
    claim_ids: GroupCommit<claim::ClaimId, Result<Vec<TaskRecord>, StoreError>>,
}

impl Default for Groups {
    fn default() -> Self {
        let limits = Limits {
            in_flight: 2,
            enough: 100,
            items: 500,
            bytes: 8 << 20,
            waiting_items: 20_000,
            waiting_bytes: 64 << 20,
        };
        // A question is small, what it brings may be a whole task.
        let reads = Limits { bytes: 32 << 20, waiting_bytes: usize::MAX, ..limits };
        Self {
            inserts: GroupCommit::new(limits),
            // Much of what the database does for a move keeps one thread busy: two commands at once use both ends.
            writes: GroupCommit::new(Limits { enough: 32, ..limits }),
            reads: GroupCommit::new(reads),
            certain_reads: GroupCommit::new(reads),
            claim_ids: GroupCommit::new(limits),
        }
    }
}

/// Why the database could not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was applied.
    #[error("the database does not answer: nothing was applied, try again later")]
    Unavailable,
    /// Too much waits already; nothing was applied.
    #[error("too much waits for the database already: nothing was applied, try again later")]
    Overloaded,
    /// It may have been applied.
    #[error(
        "the database did not say whether it was applied: repeat the call with the same idempotency key, claim id or lease token"
    )]
    OutcomeUnknown,
    /// The document is there, but this server cannot read it; one of another version may. Nothing was applied.
    #[error("it is stored in a form that this server cannot read; a server of a newer version may")]
    Unreadable,
}

/// An id in its stored form.
fn stored_id(id: Uuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() }
}

/// The other way round.
fn read_id(stored: &Bson) -> Option<Uuid> {
    match stored {
        Bson::Binary(binary) => Uuid::from_slice(&binary.bytes).ok(),
        _ => None,
    }
}

/// A hash in its stored form.
fn stored_bytes(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}

impl Store {
    /// Where the moves of tasks are told that this server makes.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The time, by the database's clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The values of a field that `filter` finds, read off an index alone.
    async fn distinct(&self, field: &'static str, filter: Document) -> Result<Vec<String>, StoreError> {
        let tasks = self.tasks.clone();
        let options = DistinctOptions::builder().max_time(self.timeout).build();
        let distinct = async move { tasks.distinct(field, filter).with_options(options).await };
        let found = self.call("distinct values", distinct).await?;
        Ok(found.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// Options of a `find` that uses the index of that name.
    fn by_index(&self, index: &str) -> FindOptions {
        FindOptions::builder().hint(Hint::Name(index.to_owned())).max_time(self.timeout).build()
    }

    /// The same of an `aggregate`.
    fn aggregate_by_index(&self, index: &str) -> AggregateOptions {
        AggregateOptions::builder().hint(Hint::Name(index.to_owned())).max_time(self.timeout).build()
    }

    /// Runs a call on the driver's runtime, within the deadline.
    ///
    /// A driver's future must not be dropped half-way, so it runs as a task of its own and only the wait is cut off.
    async fn call<T, F>(&self, what: &'static str, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
    {
        let until = self.deadline();
        if until <= Instant::now() {
            return Err(StoreError::Unavailable);
        }
        // A call whose wait was cut off goes on; its place is taken until it has really ended.
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(StoreError::Overloaded);
        };
        let call = self.runtime.spawn(async move {
            let result = call.await;
            drop(place);
            result
        });
        match tokio::time::timeout_at(until.into(), call).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => {
                tracing::warn!(what, %error, "a database call failed");
                Err(StoreError::Unavailable)
            }
            Ok(Err(error)) => {
                tracing::error!(what, %error, "a database call was cut off");
                Err(StoreError::Unavailable)
            }
            Err(_) => {
                tracing::warn!(what, "a database call took too long");
                Err(StoreError::Unavailable)
            }
        }
    }
}
