//! Reading documents one by one, past those that cannot be read, and no more of them than fit.

use std::time::Instant;

use bson::{Bson, Document, RawDocumentBuf};
use futures_util::TryStreamExt as _;
use mongodb::options::FindOptions;
use mongodb::{Collection, Cursor};
use serde::de::DeserializeOwned;
use task_repo_protocol::Uuid;

use super::arriving::Arrived;
use super::store::Store;
use crate::store::error::StoreError;
use crate::store::ids::read_id;
use crate::store::unreadable::Unreadable;
use crate::task::TaskRecord;

/// How many more documents a bounded read asks for after unreadable ones were in its way.
const MORE: usize = 50;
/// How many documents the database sends at once while that much is on its way that a read might go beyond it.
const SMALL_BATCH: u32 = 4;

/// The result of a read.
#[derive(Debug)]
pub(in crate::store) struct Reading<T> {
    /// Documents that could be read, in order.
    pub(in crate::store) found: Vec<T>,
    /// Of those that could not, ids and tenants as far as these could.
    pub(in crate::store) unreadable: Vec<(Uuid, Option<String>)>,
    /// Documents that there were, readable or not.
    pub(in crate::store) seen: usize,
    /// There were more, but too many bytes.
    pub(in crate::store) is_cut: bool,
    /// It counts as arriving until whoever asked has taken out what it wants.
    arrived: Arrived,
}

/// How much a read may bring, and how long it may take.
struct Bound<T> {
    max_bytes: usize,
    weigh: fn(&T) -> usize,
    until: Instant,
}

impl<T> Bound<T> {
    /// As much as there is.
    fn open(until: Instant) -> Self {
        Self { max_bytes: usize::MAX, weigh: |_| 0, until }
    }
}

impl Store {
    /// The documents that were met and could not be read.
    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// All tasks that a filter finds.
    pub(in crate::store) async fn find(
        &self,
        what: &'static str,
        filter: Document,
        options: FindOptions,
        until: Instant,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        self.find_within(what, filter, options, usize::MAX, until).await
    }

    /// Tasks in the order of `options`, as many as `options` allow of those that can be read, and no more than so many
    /// [bytes](TaskRecord::bytes); the first comes whatever its size.
    pub(in crate::store) async fn find_within(
        &self,
        what: &'static str,
        filter: Document,
        mut options: FindOptions,
        max_bytes: usize,
        until: Instant,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let limit = options.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let mut asked = limit;
        if self.arriving.is_high() {
            options.batch_size = Some(SMALL_BATCH);
        }
        loop {
            let bound = Bound { max_bytes, weigh: TaskRecord::bytes, until };
            let (tasks, filter, store) = (self.tasks.clone(), filter.clone(), self.clone());
            let options_now = options.clone();
            let mut reading = self
                .call(what, until, async move {
                    let cursor = tasks.find(filter).with_options(options_now).await?;
                    store.read_all(cursor, tasks.name(), bound).await
                })
                .await?
                .ok_or(StoreError::Overloaded)?;
            let (Some(limit), Some(before)) = (limit, asked) else { return Ok(reading) };
            // Documents that cannot be read must not take the places of those that can.
            let is_short = reading.found.len() < limit && reading.seen >= before && !reading.is_cut;
            if !is_short {
                reading.found.truncate(limit);
                return Ok(reading);
            }
            let more = before + 2 * (reading.seen - reading.found.len()) + MORE;
            asked = Some(more);
            options.limit = i64::try_from(more).ok();
            options.batch_size = u32::try_from(more).ok();
        }
    }

    /// What a pipeline brings of tasks that can be read, in its order, by that index, and no more than so many
    /// [bytes](TaskRecord::bytes); the first comes whatever its size.
    pub(in crate::store) async fn aggregate_within(
        &self,
        what: &'static str,
        pipeline: Vec<Document>,
        index: &'static str,
        max_bytes: usize,
        until: Instant,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let mut options = self.aggregate_by_index(index);
        if self.arriving.is_high() {
            options.batch_size = Some(SMALL_BATCH);
        }
        let bound = Bound { max_bytes, weigh: TaskRecord::bytes, until };
        let (tasks, store) = (self.tasks.clone(), self.clone());
        self.call(what, until, async move {
            let aggregate = tasks.aggregate(pipeline).with_options(options);
            let cursor = aggregate.with_type::<RawDocumentBuf>().await?;
            store.read_all(cursor, tasks.name(), bound).await
        })
        .await?
        .ok_or(StoreError::Overloaded)
    }

    /// All documents of a collection that a filter finds and that can be read.
    pub(in crate::store) async fn find_readable<T>(
        &self,
        what: &'static str,
        collection: &Collection<RawDocumentBuf>,
        filter: Document,
        options: FindOptions,
        until: Instant,
    ) -> Result<Reading<T>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (collection, store) = (collection.clone(), self.clone());
        let bound = Bound::open(until);
        self.call(what, until, async move {
            let cursor = collection.find(filter).with_options(options).await?;
            store.read_all(cursor, collection.name(), bound).await
        })
        .await?
        .ok_or(StoreError::Overloaded)
    }

    /// Documents as they are.
    pub(in crate::store) async fn documents(
        &self,
        what: &'static str,
        collection: &str,
        filter: Document,
        options: FindOptions,
    ) -> Result<Vec<Document>, StoreError> {
        let collection = self.database.collection::<Document>(collection);
        self.call(what, self.step_deadline(), async move {
            collection.find(filter).with_options(options).await?.try_collect().await
        })
        .await
    }

    /// Reads a cursor to its end, or to what is too much. `None`: other reads have brought too much already.
    ///
    /// # Errors
    /// When the database fails, or nobody waits for what it sends any more.
    async fn read_all<T: DeserializeOwned>(
        &self,
        mut cursor: Cursor<RawDocumentBuf>,
        collection: &str,
        bound: Bound<T>,
    ) -> mongodb::error::Result<Option<Reading<T>>> {
        let arrived = self.arriving.begin();
        let mut reading =
            Reading { found: Vec::new(), unreadable: Vec::new(), seen: 0, is_cut: false, arrived };
        let mut bytes = 0;
        while cursor.advance().await? {
            if Instant::now() >= bound.until {
                return Err(mongodb::error::Error::custom("it came too late"));
            }
            let document = cursor.current();
            reading.seen += 1;
            let fits = reading.arrived.add(document.as_bytes().len());
            let Ok(read) = bson::deserialize_from_slice::<T>(document.as_bytes()) else {
                self.unreadable.note::<T>(collection, document);
                let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
                let tenant = document.get_str("tenant").ok().map(str::to_owned);
                reading.unreadable.extend(id.as_ref().and_then(read_id).map(|id| (id, tenant)));
                continue;
            };
            bytes += (bound.weigh)(&read);
            let is_bounded = bound.max_bytes < usize::MAX;
            if (bytes > bound.max_bytes || !fits && is_bounded) && !reading.found.is_empty() {
                reading.is_cut = true;
                return Ok(Some(reading));
            }
            if !fits && !is_bounded {
                return Ok(None);
            }
            reading.found.push(read);
        }
        Ok(Some(reading))
    }
}
