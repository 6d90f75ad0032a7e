//! Finding, reading and removing stored tasks that this server cannot read.
//!
//! No index knows them. So a page looks at a bounded number of a tenant's documents, in the order of the index that has all of
//! them, whatever the types of their fields.

use std::time::Instant;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use mongodb::options::{FindOneOptions, ReadConcern};
use task_repo_protocol::{DateTime, Utc};

use super::driver::Store;
use super::driver::command::Written;
use super::error::StoreError;
use super::ids::StoredId;
use super::indexes::NEWEST_OF_ALL;
use crate::access::Scope;
use crate::task::TaskRecord;

/// Most documents that a page looks at.
const MAX_SCANNED: usize = 10_000;
/// Most bytes of them.
const MAX_SCANNED_BYTES: usize = 32 << 20;
/// How many the database sends at once.
const BATCH: u32 = 200;
/// How many parts of the index there are: the tenant's documents, and those without a tenant before and behind all tenants.
const PARTS: i32 = 3;

/// A stored task that this server cannot read.
#[derive(Debug, Clone)]
pub struct UnreadableTask {
    /// Its id in its stored form, whatever that is.
    pub id: StoredId,
    /// The collection it is in.
    pub collection: String,
    /// The field that does not fit.
    pub field: String,
    /// When this server first met it.
    pub since: DateTime<Utc>,
    /// All of it.
    pub document: RawDocumentBuf,
}

/// A page of such tasks.
#[derive(Debug, Default)]
pub struct UnreadableScan {
    /// In the order of the index.
    pub tasks: Vec<UnreadableTask>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<ScanPlace>,
}

/// Where a page begins: behind a document of a part of the index.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanPlace {
    part: i32,
    /// Tenant, time of creation and id of that document, whatever their types. `None`: at the part's beginning.
    key: Option<Document>,
}

/// What a page may still look at, and find.
#[derive(Debug, Clone, Copy)]
struct Budget {
    documents: usize,
    bytes: usize,
    found: usize,
    ends: Instant,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.documents == 0 || self.bytes == 0 || self.found == 0 || Instant::now() >= self.ends
    }
}

impl ScanPlace {
    fn begin(part: i32) -> Self {
        Self { part, key: None }
    }

    fn behind(part: i32, document: &RawDocumentBuf) -> Option<Self> {
        let mut key = Document::new();
        for field in ["tenant", "created_at", "_id"] {
            let value = document.get(field).ok().flatten().and_then(|value| Bson::try_from(value).ok());
            // An array has an entry for each of its items: no single place. A page that ends there takes one more.
            if matches!(value, Some(Bson::Array(_))) {
                return None;
            }
            key.insert(field, value.unwrap_or(Bson::Null));
        }
        Some(Self { part, key: Some(key) })
    }

    /// The form in which it goes to a caller.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut document = doc! { "part": self.part };
        document.extend(self.key.clone().map(|key| ("key".to_owned(), Bson::Document(key))));
        bson::serialize_to_vec(&document).unwrap_or_default()
    }

    /// The other way round. `None`: it is none, or not one of that tenant.
    pub fn from_bytes(bytes: &[u8], tenant: &str, strays: bool) -> Option<Self> {
        let document: Document = bson::deserialize_from_slice(bytes).ok()?;
        let part = document.get_i32("part").ok()?;
        let key = document.get_document("key").ok().cloned();
        let fields = key.iter().flat_map(Document::keys).map(String::as_str);
        let is_whole = key.is_none() || fields.eq(["tenant", "created_at", "_id"]);
        let is_theirs = match key.as_ref().and_then(|key| key.get("tenant")) {
            Some(Bson::String(theirs)) => part == 0 && theirs == tenant,
            Some(_) => part > 0,
            None => true,
        };
        let exists = part == 0 || strays && (1..PARTS).contains(&part);
        (is_whole && is_theirs && exists).then_some(Self { part, key })
    }

    /// The ends of what is left of the part in the index.
    fn range(&self, tenant: &str) -> (Document, Document) {
        // Times and ids run down.
        let at =
            |tenant: Bson, rest: Bson| doc! { "tenant": tenant, "created_at": rest.clone(), "_id": rest };
        let (first, last) = match self.part {
            0 => (at(tenant.into(), Bson::MaxKey), at(tenant.into(), Bson::MinKey)),
            1 => (at(Bson::MinKey, Bson::MaxKey), at(String::new().into(), Bson::MaxKey)),
            _ => (at(Document::new().into(), Bson::MaxKey), at(Bson::MaxKey, Bson::MinKey)),
        };
        (self.key.clone().unwrap_or(first), last)
    }
}

impl UnreadableTask {
    /// Whether a caller with that scope sees it. `strays`: also those of which nobody can tell whose they are.
    pub fn is_in(&self, scope: &Scope, strays: bool) -> bool {
        let text = |field| self.document.get_str(field).ok();
        let is_stray = || !matches!(self.document.get("tenant"), Ok(Some(bson::RawBsonRef::String(_))));
        let is_theirs = text("tenant") == Some(&*scope.tenant) || strays && is_stray();
        is_theirs
            && scope.user.as_deref().is_none_or(|user| text("user_id") == Some(user))
            && (scope.task_types.is_none() || text("task_type").is_some_and(|name| scope.may_use(name)))
    }
}

impl Store {
    /// Tasks that this server cannot read and `scope` sees, from `place` on, `limit` at most. Looks at 10 000 documents or
    /// 32 MiB for a page, or for half of the time until `until`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unreadable_tasks(
        &self,
        scope: &Scope,
        strays: bool,
        place: Option<ScanPlace>,
        limit: usize,
        until: Instant,
    ) -> Result<UnreadableScan, StoreError> {
        let now = Instant::now();
        let mut budget = Budget {
            documents: MAX_SCANNED,
            bytes: MAX_SCANNED_BYTES,
            found: limit,
            ends: now + until.saturating_duration_since(now) / 2,
        };
        // The driver holds up to 16 MiB of each.
        let permit = tokio::time::timeout_at(until.into(), self.payload_pages.acquire()).await;
        let _permit = permit.map_err(|_| StoreError::Overloaded)?;
        let (mut tasks, mut place) = (Vec::new(), place.unwrap_or(ScanPlace::begin(0)));
        loop {
            let part = place.part;
            let (mut found, left, end) = self.scan_part(scope, strays, place, budget, until).await?;
            tasks.append(&mut found);
            budget = left;
            let behind = || (strays && part + 1 < PARTS).then(|| ScanPlace::begin(part + 1));
            match end.is_none().then(behind).flatten() {
                Some(next) if !budget.is_spent() => place = next,
                next => return Ok(UnreadableScan { tasks, next: end.or(next) }),
            }
        }
    }

    /// Looks at a part of the index. Returns what it found, what is left of the budget, and where to go on in this part.
    async fn scan_part(
        &self,
        scope: &Scope,
        strays: bool,
        place: ScanPlace,
        mut budget: Budget,
        until: Instant,
    ) -> Result<(Vec<UnreadableTask>, Budget, Option<ScanPlace>), StoreError> {
        let (first, last) = place.range(&scope.tenant);
        let mut options = self.by_index(NEWEST_OF_ALL);
        options.sort = Some(doc! { "tenant": 1, "created_at": -1, "_id": -1 });
        (options.min, options.max) = (Some(first), Some(last));
        options.batch_size = Some(BATCH);
        // With the one that the page before ended with.
        options.limit = i64::try_from(budget.documents + 1).ok();
        let (tasks, store, scope) = (self.tasks.clone(), self.clone(), scope.clone());
        self.call("unreadable tasks", until, async move {
            let mut cursor = tasks.find(Document::new()).with_options(options).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                let document = cursor.deserialize_current()?;
                let here = ScanPlace::behind(place.part, &document);
                if here.as_ref() == Some(&place) {
                    continue;
                }
                budget.documents = budget.documents.saturating_sub(1);
                budget.bytes = budget.bytes.saturating_sub(document.as_bytes().len());
                if let Some(task) = store.if_unreadable(document).filter(|task| task.is_in(&scope, strays)) {
                    budget.found = budget.found.saturating_sub(1);
                    found.push(task);
                }
                if budget.is_spent() && here.is_some() {
                    return Ok((found, budget, here));
                }
            }
            Ok((found, budget, None))
        })
        .await
    }

    /// One of these tasks, as it is now for certain. `Ok(None)`: there is none of that id. The error is the task that can be
    /// read after all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unreadable_task(
        &self,
        id: &StoredId,
        until: Instant,
    ) -> Result<Option<Result<UnreadableTask, Box<TaskRecord>>>, StoreError> {
        let tasks = self.tasks.clone();
        let (filter, options) = (doc! { "_id": &id.0 }, self.certainly());
        let found = self.call("an unreadable task", until, async move {
            tasks.find_one(filter).with_options(options).await
        });
        let Some(document) = found.await? else { return Ok(None) };
        Ok(Some(match bson::deserialize_from_slice::<TaskRecord>(document.as_bytes()) {
            Ok(task) => Err(Box::new(task)),
            Err(_) => Ok(self.unreadable_now(document)),
        }))
    }

    /// Removes such a task as it was read, with what lies beside it. `false`: it has changed since.
    ///
    /// # Errors
    /// When the database does not answer, or does not say whether it is gone.
    pub async fn remove_unreadable(&self, task: &UnreadableTask) -> Result<bool, StoreError> {
        // No stamp guards it, because that may be what cannot be read: it must be, byte for byte, what was read.
        let same = rawdoc! { "$eq": ["$$ROOT", { "$literal": task.document.clone() }] };
        let mut named =
            RawDocumentBuf::try_from(&doc! { "_id": &task.id.0 }).map_err(|_| StoreError::Unreadable)?;
        named.append(bson::raw::cstr!("$expr"), same);
        let removed = match self.delete_command(&rawdoc! { "q": named, "limit": 1 }).await {
            Written::Answered { matched, errors } if errors.is_empty() => matched > 0,
            Written::Unknown => return Err(StoreError::OutcomeUnknown),
            Written::Unsent => return Err(StoreError::Overloaded),
            Written::Answered { .. } => return Err(StoreError::Unavailable),
        };
        if removed {
            self.unreadable.forget(&task.id.0);
            self.remove_what_is_beside(std::slice::from_ref(&task.id.0))
                .await
                .map_err(|_| StoreError::OutcomeUnknown)?;
        }
        Ok(removed)
    }

    fn certainly(&self) -> FindOneOptions {
        FindOneOptions::builder().max_time(self.timeout).read_concern(ReadConcern::linearizable()).build()
    }

    fn if_unreadable(&self, document: RawDocumentBuf) -> Option<UnreadableTask> {
        let is_readable = bson::deserialize_from_slice::<TaskRecord>(document.as_bytes()).is_ok();
        (!is_readable).then(|| self.unreadable_now(document))
    }

    fn unreadable_now(&self, document: RawDocumentBuf) -> UnreadableTask {
        let collection = self.tasks.name();
        self.unreadable.note::<TaskRecord>(collection, &document);
        let id = StoredId::in_document(&document);
        let known = self.unreadable.known(&id.0);
        let field = known.as_ref().map_or_else(|| "?".to_owned(), |known| known.field.clone());
        let since = known.map_or_else(Utc::now, |known| known.since);
        UnreadableTask { id, collection: collection.to_owned(), field, since, document }
    }
}
