//! Reading documents one by one. One that cannot be read is left out, counted and named, and stops nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use mongodb::options::FindOptions;
use mongodb::{Collection, Cursor};
use serde::de::DeserializeOwned;
use task_repo_protocol::Uuid;

use super::{Store, StoreError};
use crate::task::TaskRecord;
use crate::telemetry::masked;

/// How long an unreadable document is remembered that is not met again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long looks for work pass it by before they try to read it again.
const PASSED_BY: Duration = Duration::from_secs(2);
/// How many are remembered.
const CAPACITY: u64 = 1000;
/// How many more documents a bounded read asks for after unreadable ones were in its way.
const MORE: usize = 50;
/// Most bytes of documents that all reads together may have brought and not yet handed on.
const MAX_ARRIVING: usize = 96 << 20;
/// How many documents the database sends at once while that much is on its way that a read might go beyond it.
const SMALL_BATCH: u32 = 4;

/// Documents that this server could not read.
#[derive(Clone)]
pub struct Unreadable {
    known: Cache<String, Arc<UnreadableDocument>>,
    /// Tasks that were met a moment ago.
    met: Cache<Uuid, ()>,
}

/// A document that this server could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableDocument {
    /// The collection it is in.
    pub collection: String,
    /// Its id, masked.
    pub id: String,
    /// The field that does not fit, as far as it is known. Values are not shown: they may be anybody's.
    pub field: String,
    /// When it was first met.
    pub since: DateTime<Utc>,
}

impl Default for Unreadable {
    fn default() -> Self {
        Self {
            known: Cache::builder().max_capacity(CAPACITY).time_to_idle(REMEMBERED).build(),
            met: Cache::builder().max_capacity(CAPACITY).time_to_live(PASSED_BY).build(),
        }
    }
}

impl Unreadable {
    /// Those that were met in the last ten minutes, the longest known first; 1 000 at most.
    pub fn list(&self) -> Vec<UnreadableDocument> {
        let mut documents: Vec<_> = self.known.iter().map(|(_, document)| (*document).clone()).collect();
        documents.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        documents
    }

    /// Ids that a look for work need not read again just now.
    pub(super) fn passed_by(&self) -> Vec<Uuid> {
        if self.met.entry_count() == 0 {
            return Vec::new();
        }
        self.met.iter().map(|(id, ())| *id).collect()
    }

    fn note<T: DeserializeOwned>(&self, collection: &str, document: &RawDocument) {
        metrics::counter!("task_repo_unreadable_documents_total", "collection" => collection.to_owned())
            .increment(1);
        let id = match document.get("_id").ok().flatten().map(Bson::try_from) {
            Some(Ok(id)) => super::read_id(&id).map_or_else(
                || id.to_string(),
                |id| {
                    self.met.insert(id, ());
                    id.to_string()
                },
            ),
            _ => String::new(),
        };
        if self.known.get(&id).is_some() {
            return;
        }
        let unreadable = UnreadableDocument {
            collection: collection.to_owned(),
            id: masked(&id),
            field: field_at_fault::<T>(document),
            since: Utc::now(),
        };
        let UnreadableDocument { collection, id: masked, field, .. } = &unreadable;
        tracing::error!(collection, id = masked, field, "a document cannot be read and is left out");
        self.known.insert(id, Arc::new(unreadable));
    }
}

/// The first field that does not fit `T`.
fn field_at_fault<T: DeserializeOwned>(document: &RawDocument) -> String {
    let Ok(document) = Document::try_from(document) else { return "malformed".to_owned() };
    let deserializer = bson::Deserializer::new(Bson::Document(document));
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        Err(error) if error.path().iter().next().is_some() => error.path().to_string(),
        _ => "missing or malformed".to_owned(),
    }
}

/// Bytes of documents that all reads of a server have brought and not yet handed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Arriving(Arc<AtomicUsize>);

/// The part of one read. It counts until it is dropped.
#[derive(Debug, Default)]
struct Arrived {
    of_all: Arriving,
    bytes: usize,
}

impl Arriving {
    fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_ARRIVING / 2
    }

    /// Nothing yet.
    fn begin(&self) -> Arrived {
        Arrived { of_all: self.clone(), bytes: 0 }
    }
}

impl Arrived {
    /// Adds a document. `false`: with it there is too much.
    fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.of_all.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_ARRIVING
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.of_all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a read has found.
#[derive(Debug)]
pub(super) struct Reading<T> {
    /// What could be read, in order.
    pub(super) found: Vec<T>,
    /// Of those that could not, ids and tenants as far as these could.
    pub(super) unreadable: Vec<(Uuid, Option<String>)>,
    /// Documents that there were, readable or not.
    pub(super) seen: usize,
    /// There were more, but too many bytes.
    pub(super) is_cut: bool,
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
    pub(super) async fn find(
        &self,
        what: &'static str,
        filter: Document,
        options: FindOptions,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        self.find_within(what, filter, options, usize::MAX).await
    }

    /// Tasks in the order of `options`, as many as `options` allow of those that can be read, and no more than so many
    /// [bytes](TaskRecord::bytes); the first comes whatever its size.
    pub(super) async fn find_within(
        &self,
        what: &'static str,
        filter: Document,
        mut options: FindOptions,
        max_bytes: usize,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let limit = options.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let mut asked = limit;
        if self.arriving.is_high() {
            options.batch_size = Some(SMALL_BATCH);
        }
        loop {
            let bound = Bound { max_bytes, weigh: TaskRecord::bytes, until: self.deadline() };
            let (tasks, filter, store) = (self.tasks.clone(), filter.clone(), self.clone());
            let options_now = options.clone();
            let mut reading = self
                .call(what, async move {
                    let cursor = tasks.find(filter).with_options(options_now).await?;
                    store.read_all(cursor, tasks.name(), bound).await
                })
                .await?
                .ok_or(StoreError::Overloaded)?;
            let (Some(limit), Some(before)) = (limit, asked) else { return Ok(reading) };
            // What cannot be read must not take the places of what can.
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
    pub(super) async fn aggregate_within(
        &self,
        what: &'static str,
        pipeline: Vec<Document>,
        index: &'static str,
        max_bytes: usize,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let mut options = self.aggregate_by_index(index);
        if self.arriving.is_high() {
            options.batch_size = Some(SMALL_BATCH);
        }
        let bound = Bound { max_bytes, weigh: TaskRecord::bytes, until: self.deadline() };
        let (tasks, store) = (self.tasks.clone(), self.clone());
        self.call(what, async move {
            let aggregate = tasks.aggregate(pipeline).with_options(options);
            let cursor = aggregate.with_type::<RawDocumentBuf>().await?;
            store.read_all(cursor, tasks.name(), bound).await
        })
        .await?
        .ok_or(StoreError::Overloaded)
    }

    /// All documents of a collection that a filter finds and that can be read.
    pub(super) async fn find_readable<T>(
        &self,
        what: &'static str,
        collection: &Collection<RawDocumentBuf>,
        filter: Document,
        options: FindOptions,
    ) -> Result<Reading<T>, StoreError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (collection, store) = (collection.clone(), self.clone());
        let bound = Bound::open(self.deadline());
        self.call(what, async move {
            let cursor = collection.find(filter).with_options(options).await?;
            store.read_all(cursor, collection.name(), bound).await
        })
        .await?
        .ok_or(StoreError::Overloaded)
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
                reading.unreadable.extend(id.as_ref().and_then(super::read_id).map(|id| (id, tenant)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_counts_until_it_is_handed_on() {
        let all = Arriving::default();
        let (mut one, mut other) = (all.begin(), all.begin());
        assert!(one.add(MAX_ARRIVING / 2) && !all.is_high());
        assert!(other.add(MAX_ARRIVING / 2) && all.is_high());
        assert!(!other.add(1), "together they are too much");
        drop(one);
        assert!(other.add(1));
        drop(other);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
