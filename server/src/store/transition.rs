//! THE guarded write: every move of a task goes through [`Store::apply`].
//!
//! A task is read, [`lifecycle::apply`](crate::lifecycle::apply) changes it in memory, and what has changed becomes
//! one update of one document that names the id, the status, the version and the lease it expects. Two callers can
//! never both succeed: the one who comes second finds another version, reads again, and is told what stands in the
//! way. Each write carries a stamp, so that a write whose answer was lost is found again instead of guessed at.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::options::FindOptions;
use task_repo_protocol::{Receipt, Uuid};

use super::command::{Written, cstr};
use super::query::without_payload;
use super::{Store, StoreError, stored_id};
use crate::lifecycle::{self, Effect, Intent, Refusal, Verb};
use crate::scope::Scope;
use crate::task::TaskRecord;

/// A verb to be done to one task.
#[derive(Debug, Clone)]
pub struct Change {
    /// What the caller can see.
    pub scope: Scope,
    /// The task.
    pub id: Uuid,
    /// What is to be done.
    pub intent: Intent,
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The task afterwards; its payloads only where the intent needed them.
    pub task: TaskRecord,
    /// What to answer; of a repetition, what was answered before.
    pub receipt: Receipt,
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such task for this caller.
    Missing,
    /// The task does not allow it.
    Task(Refusal),
    /// The database could not do it.
    Store(StoreError),
}

/// A task with all changes made to it in memory, and the update that makes them last.
pub(super) struct Staged {
    pub(super) record: TaskRecord,
    statement: RawDocumentBuf,
    stamp: i64,
}

/// How long to wait before asking a database again that did not answer.
const PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Makes these changes; each gets its own answer, in order. Several of one task are made one after the other and
    /// written at once.
    pub async fn apply(&self, changes: Vec<Change>) -> Vec<Result<Applied, Refused>> {
        let give_up = Instant::now() + self.timeout * 2;
        let mut results: Vec<_> =
            changes.iter().map(|_| Err(Refused::Store(StoreError::Unavailable))).collect();
        let mut open: HashMap<Uuid, Vec<usize>> = HashMap::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            open.entry(change.id).or_default().push(index);
        }
        while !open.is_empty() && Instant::now() < give_up {
            let payload = open.values().flatten().any(|index| changes[*index].intent.needs_payload());
            let ids = open.keys().copied().collect();
            let Ok(mut records) = self.read_for_change(ids, payload).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let mut staged = Vec::new();
            open.retain(|id, indexes| match records.remove(id) {
                None => {
                    for index in indexes.iter() {
                        results[*index] = Err(Refused::Missing);
                    }
                    false
                }
                Some(record) => match self.stage(record, indexes, &changes, &mut results) {
                    Some(stage) => {
                        staged.push(stage);
                        true
                    }
                    None => false,
                },
            });
            for (id, landed) in self.write(&staged).await {
                if landed {
                    open.remove(&id);
                }
            }
        }
        // What is still open was staged with an answer that never became true.
        for index in open.into_values().flatten() {
            results[index] = Err(Refused::Store(StoreError::OutcomeUnknown));
        }
        results
    }

    /// Makes all changes of one task in memory. `None`: nothing is to be written.
    fn stage(
        &self,
        mut record: TaskRecord,
        indexes: &[usize],
        changes: &[Change],
        results: &mut [Result<Applied, Refused>],
    ) -> Option<Staged> {
        let staging = Staging::of(&record)?;
        let mut is_new = false;
        for &index in indexes {
            let change = &changes[index];
            if !change.scope.sees(&record) {
                results[index] = Err(Refused::Missing);
                continue;
            }
            let mut trial = record.clone();
            results[index] = match lifecycle::apply(&mut trial, &change.intent, self.clock().now()) {
                Err(refusal) => Err(Refused::Task(refusal)),
                Ok(Effect::Repeated(receipt)) => Ok(Applied { task: record.clone(), receipt }),
                Ok(Effect::Changed) => {
                    is_new = true;
                    record = trial;
                    Ok(Applied { receipt: record.receipt(), task: record.clone() })
                }
            };
        }
        let expiring = indexes.iter().any(|index| changes[*index].intent.verb() == Verb::Expire);
        if is_new { staging.finish(record, expiring) } else { None }
    }

    async fn read_for_change(
        &self,
        ids: Vec<Uuid>,
        payload: bool,
    ) -> Result<HashMap<Uuid, TaskRecord>, StoreError> {
        let ids: Vec<_> = ids.into_iter().map(stored_id).collect();
        let options = FindOptions::builder().max_time(self.timeout);
        let options = if payload { options.build() } else { options.projection(without_payload()).build() };
        let found = self.find("for a change", doc! { "_id": { "$in": ids } }, options).await?;
        Ok(found.into_iter().map(|task| (task.id, task)).collect())
    }

    /// Writes what was staged; says of each whether it has landed. Those that have not met another's write.
    pub(super) async fn write(&self, staged: &[Staged]) -> Vec<(Uuid, bool)> {
        if staged.is_empty() {
            return Vec::new();
        }
        let statements = staged.iter().map(|stage| stage.statement.clone()).collect();
        if let Written::Answered { matched, .. } = self.update_command(statements).await
            && matched == staged.len()
        {
            return staged.iter().map(|stage| (stage.record.id, true)).collect();
        }
        let stamps = self.stamps(staged).await;
        staged
            .iter()
            .map(|stage| (stage.record.id, stamps.get(&stage.record.id) == Some(&stage.stamp)))
            .collect()
    }

    /// The latest write of each task, as a majority has it; empty when the database does not say in time.
    async fn stamps(&self, staged: &[Staged]) -> HashMap<Uuid, i64> {
        #[derive(serde::Deserialize)]
        struct Stamp {
            #[serde(rename = "_id")]
            id: bson::Uuid,
            stamp: i64,
        }
        let ids: Vec<_> = staged.iter().map(|stage| stored_id(stage.record.id)).collect();
        let tasks = self.tasks.clone_with_type::<Stamp>();
        let filter = doc! { "_id": { "$in": ids } };
        let options = FindOptions::builder().projection(doc! { "stamp": 1 }).max_time(self.timeout).build();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<Stamp>>().await };
        match self.read("stamps", find).await {
            Ok(found) => found.into_iter().map(|it| (Uuid::from_bytes(it.id.bytes()), it.stamp)).collect(),
            Err(_) => HashMap::new(),
        }
    }
}

/// A task as it was read, to be compared with what becomes of it.
pub(super) struct Staging {
    before: RawDocumentBuf,
    guard: RawDocumentBuf,
    lease_until: Option<bson::DateTime>,
}

impl Staging {
    /// Remembers `record` as it is.
    pub(super) fn of(record: &TaskRecord) -> Option<Self> {
        let before = stored(record)?;
        let mut guard = rawdoc! {
            "_id": stored_id(record.id),
            "tenant": record.tenant.as_str(),
            "status": record.status.as_str(),
            "version": record.version,
        };
        if let Some(lease) = &record.lease {
            guard.append(cstr("lease.token"), stored_id(lease.token));
        }
        Some(Self { before, guard, lease_until: record.lease_until.map(bson::DateTime::from_chrono) })
    }

    /// The update that turns what was remembered into `record`.
    pub(super) fn finish(self, mut record: TaskRecord, expiring: bool) -> Option<Staged> {
        // Never 0, and never twice the same: it tells this write from any other.
        record.stamp = rand::random::<i64>() | 1;
        let after = stored(&record)?;
        let mut guard = self.guard;
        if let Some(until) = self.lease_until.filter(|_| expiring) {
            // A heartbeat renews a lease without a new version; who takes it away must not overlook that.
            guard.append(cstr("lease_until"), until);
        }
        let update = difference(&self.before, &after)?;
        let stamp = record.stamp;
        Some(Staged { record, statement: rawdoc! { "q": guard, "u": update }, stamp })
    }
}

fn stored(record: &TaskRecord) -> Option<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(record)
        .inspect_err(|error| tracing::error!(%error, "a task has no stored form"))
        .ok()
}

/// `$set` and `$unset` of the top-level fields in which the two differ.
fn difference(before: &RawDocumentBuf, after: &RawDocumentBuf) -> Option<RawDocumentBuf> {
    let mut set = RawDocumentBuf::new();
    let mut unset = RawDocumentBuf::new();
    for element in after {
        let (key, value) = element.ok()?;
        if before.get(key).ok()? != Some(value) {
            set.append(key, value);
        }
    }
    for element in before {
        let (key, _) = element.ok()?;
        if after.get(key).ok()?.is_none() {
            unset.append(key, "");
        }
    }
    let mut update = RawDocumentBuf::new();
    update.append(cstr("$set"), set);
    if !unset.is_empty() {
        update.append(cstr("$unset"), unset);
    }
    Some(update)
}
