//! The database as the store has it: connections, what is carried together, and one call within its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, Timestamp};
use mongodb::options::{AggregateOptions, DistinctOptions, FindOptions, Hint};
use mongodb::{Client, Collection, Database};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::arriving::Arriving;
use super::group_commit::{GroupCommit, Limits};
use crate::clock::Clock;
use crate::events::Hub;
use crate::store::carried::{ClaimId, Drafted, NotInserted, ReadOutcome, ReadRequest, Staged, WriteOutcome};
use crate::store::error::StoreError;
use crate::store::form::Form;
use crate::store::index_state::IndexState;
use crate::store::lease_cache::LeaseCache;
use crate::store::unreadable::Unreadable;
use crate::task::TaskRecord;

/// The database, and the runtime its driver lives on.
#[derive(Clone)]
pub struct Store {
    pub(in crate::store) client: Client,
    pub(in crate::store) database: Database,
    pub(in crate::store) tasks: Collection<RawDocumentBuf>,
    pub(in crate::store) keys: Collection<RawDocumentBuf>,
    // Connections belong to the runtime that opened them; request threads come and go.
    pub(in crate::store) runtime: Handle,
    pub(in crate::store) timeout: Duration,
    pub(in crate::store) clock: Arc<Clock>,
    pub(in crate::store) groups: Arc<GroupCommits>,
    pub(in crate::store) leases: LeaseCache,
    pub(in crate::store) unreadable: Unreadable,
    pub(in crate::store) indexes: Arc<IndexState>,
    pub(in crate::store) arriving: Arriving,
    pub(in crate::store) hub: Arc<Hub>,
    pub(in crate::store) form: Form,
    /// The database's own time when this server began to use it.
    pub(in crate::store) connected_at: Option<Timestamp>,
    pub(in crate::store) places: Arc<Semaphore>,
    pub(in crate::store) payload_pages: Arc<Semaphore>,
}

/// How many calls may be with the driver, sent or waiting for a connection.
pub(in crate::store) const PLACES: usize = 2048;
/// How many pages of lists with payloads are read at once.
pub(in crate::store) const PAYLOAD_PAGES: usize = 4;

/// Most bytes of tasks that one read brings; the first comes whatever its size.
pub(in crate::store) const MAX_READ_BYTES: usize = 16 << 20;

/// The group commits: one for each kind of item that is carried together.
pub(in crate::store) struct GroupCommits {
    pub(in crate::store) inserts: GroupCommit<Drafted, Result<(), NotInserted>>,
    pub(in crate::store) writes: GroupCommit<Staged, WriteOutcome>,
    pub(in crate::store) reads: GroupCommit<ReadRequest, Result<ReadOutcome, StoreError>>,
    pub(in crate::store) certain_reads: GroupCommit<ReadRequest, Result<ReadOutcome, StoreError>>,
    pub(in crate::store) claim_ids: GroupCommit<ClaimId, Result<Vec<TaskRecord>, StoreError>>,
}

impl Default for GroupCommits {
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
    pub(in crate::store) async fn distinct(
        &self,
        field: &'static str,
        filter: Document,
        until: Instant,
    ) -> Result<Vec<String>, StoreError> {
        let tasks = self.tasks.clone();
        let options = DistinctOptions::builder().max_time(self.timeout).build();
        let distinct = async move { tasks.distinct(field, filter).with_options(options).await };
        let found = self.call("distinct values", until, distinct).await?;
        Ok(found.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// Options of a `find` that uses the index of that name.
    pub(in crate::store) fn by_index(&self, index: &str) -> FindOptions {
        FindOptions::builder().hint(Hint::Name(index.to_owned())).max_time(self.timeout).build()
    }

    /// The same of an `aggregate`.
    pub(in crate::store) fn aggregate_by_index(&self, index: &str) -> AggregateOptions {
        AggregateOptions::builder().hint(Hint::Name(index.to_owned())).max_time(self.timeout).build()
    }

    /// By when a step that begins now has its answer where no `Caller` brings a deadline: in a background job, in a command
    /// that carries several callers, and in the look-up of a key.
    pub fn step_deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The time that one call may take in all, as the settings have it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs a call on the driver's runtime. It has its answer by `until`.
    ///
    /// A driver's future must not be dropped half-way, so it runs as a task of its own and only the wait is cut off.
    pub(in crate::store) async fn call<T, F>(
        &self,
        what: &'static str,
        until: Instant,
        call: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
    {
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
                Err(if self.indexes.heed(&error) { StoreError::Unindexed } else { StoreError::Unavailable })
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
