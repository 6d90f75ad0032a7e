//! THE guarded write: every move of a task goes through [`Store::apply`].
//!
//! A task is read, [`lifecycle::apply`](crate::lifecycle::apply) changes it in memory, and what has changed becomes
//! one update of one document that names the id, the status, the version and the lease it expects. Two callers can
//! never both succeed: the one who comes second finds another version, reads again, and is told what stands in the
//! way. Each write carries a stamp, so that a write whose answer was lost is found again instead of guessed at.

use std::collections::{HashMap, HashSet};
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

/// What became of a staged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is durable.
    Landed,
    /// Another's write was first; nothing has changed.
    Missed,
    /// The database did not say, neither when it wrote nor when it was asked.
    Unknown,
}

/// A refusal that our own unheard write may have caused is none: whoever has no token to recognise it by is told that
/// the outcome is unknown.
fn unsay(indexes: &[usize], changes: &[Change], results: &mut [Result<Applied, Refused>]) {
    for &index in indexes {
        if changes[index].intent.token().is_none() && results[index].is_err() {
            results[index] = Err(Refused::Store(StoreError::OutcomeUnknown));
        }
    }
}

/// How long to wait before asking a database again that did not answer.
const PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Makes these changes; each gets its own answer, in order. Changes of callers that arrive together are written
    /// together, and several of one task are made one after the other and written at once.
    pub async fn apply(&self, changes: Vec<Change>) -> Vec<Result<Applied, Refused>> {
        let (count, bytes) = (changes.len(), changes.iter().map(|change| change.intent.bytes()).sum());
        let store = self.clone();
        let run = move |changes| {
            let store = store.clone();
            async move { store.apply_now(changes).await }
        };
        let applied = self.groups.changes.submit(changes, bytes, &self.runtime, run).await;
        applied.unwrap_or_else(|error| (0..count).map(|_| Err(Refused::Store(error))).collect())
    }

    async fn apply_now(&self, changes: Vec<Change>) -> Vec<Result<Applied, Refused>> {
        let give_up = Instant::now() + self.timeout * 2;
        let mut results: Vec<_> =
            changes.iter().map(|_| Err(Refused::Store(StoreError::Unavailable))).collect();
        let mut open: HashMap<Uuid, Vec<usize>> = HashMap::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            open.entry(change.id).or_default().push(index);
        }
        // Tasks whose write may have landed unheard.
        let mut in_doubt = HashSet::new();
        let mut staged = self.stage_from_memory(&open, &changes, &mut results);
        loop {
            let fates = self.write(&staged).await;
            for (stage, fate) in staged.iter().zip(&fates) {
                match fate {
                    Fate::Landed => drop(open.remove(&stage.record.id)),
                    Fate::Unknown => drop(in_doubt.insert(stage.record.id)),
                    Fate::Missed => {}
                }
            }
            staged.clear();
            if open.is_empty() || Instant::now() >= give_up {
                break;
            }
            if fates.contains(&Fate::Unknown) {
                tokio::time::sleep(PAUSE).await;
            }
            let payload = open.values().flatten().any(|index| changes[*index].intent.needs_payload());
            let ids = open.keys().copied().collect();
            let Ok(mut records) = self.read_for_change(ids, payload).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            open.retain(|id, indexes| {
                let stage = match records.remove(id) {
                    None => {
                        for index in indexes.iter() {
                            results[*index] = Err(Refused::Missing);
                        }
                        None
                    }
                    Some(record) => self.stage(record, indexes, &changes, &mut results),
                };
                if stage.is_none() && in_doubt.contains(id) {
                    unsay(indexes, &changes, &mut results);
                }
                let is_open = stage.is_some();
                staged.extend(stage);
                is_open
            });
        }
        // What is still open has an answer that never became true.
        for (id, indexes) in open {
            let unknown = in_doubt.contains(&id);
            let error = if unknown { StoreError::OutcomeUnknown } else { StoreError::Unavailable };
            for index in indexes {
                results[index] = Err(Refused::Store(error));
            }
        }
        results
    }

    /// Stages what this server can make of the tasks it remembers: only what changes them. Whatever else comes out is
    /// not said before the database was asked.
    fn stage_from_memory(
        &self,
        open: &HashMap<Uuid, Vec<usize>>,
        changes: &[Change],
        results: &mut [Result<Applied, Refused>],
    ) -> Vec<Staged> {
        open.iter()
            .filter(|(_, indexes)| !indexes.iter().any(|index| changes[*index].intent.needs_payload()))
            .filter_map(|(id, indexes)| {
                let record = self.leases.recall(*id)?;
                let before = record.version;
                let staged = self.stage(record, indexes, changes, results)?;
                let all_good = indexes.iter().all(|index| {
                    results[*index]
                        .as_ref()
                        .is_ok_and(|applied| applied.receipt.version >= before.unsigned_abs())
                });
                all_good.then_some(staged)
            })
            .collect()
    }

    /// Makes all changes of one task in memory. `None`: nothing is to be written.
    fn stage(
        &self,
        mut record: TaskRecord,
        indexes: &[usize],
        changes: &[Change],
        results: &mut [Result<Applied, Refused>],
    ) -> Option<Staged> {
        let staging = Staging::of(&record);
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
        // A heartbeat renews a lease without a new version; who takes the lease away, or renews it as well, must not
        // overlook that.
        let by_lease = indexes
            .iter()
            .any(|index| matches!(changes[*index].intent.verb(), Verb::Expire | Verb::Heartbeat));
        if !is_new {
            return None;
        }
        let staged = staging.ok_or(NoStoredForm).and_then(|staging| staging.finish(record, by_lease));
        if staged.is_err() {
            for index in indexes {
                results[*index] = Err(Refused::Store(StoreError::Unavailable));
            }
        }
        staged.ok()
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

    /// Writes what was staged; says of each, in order, what became of it.
    pub(super) async fn write(&self, staged: &[Staged]) -> Vec<Fate> {
        if staged.is_empty() {
            return Vec::new();
        }
        let statements: Vec<_> = staged.iter().map(|stage| &stage.statement).collect();
        let written = self.update_command(&statements).await;
        let all = matches!(written, Written::Answered { matched, .. } if matched == staged.len());
        // Not all: another was first somewhere, or the answer was lost. The stamps tell which.
        let stamps = if all { None } else { Some(self.stamps(staged).await) };
        let heard = matches!(written, Written::Answered { .. });
        let fate = |stage: &Staged| match &stamps {
            None => Fate::Landed,
            Some(Some(stamps)) if stamps.get(&stage.record.id) == Some(&stage.stamp) => Fate::Landed,
            // A write that was not heard of may still be on its way.
            Some(Some(_)) if heard => Fate::Missed,
            Some(_) => Fate::Unknown,
        };
        let fates: Vec<_> = staged.iter().map(fate).collect();
        for (stage, fate) in staged.iter().zip(&fates) {
            match fate {
                Fate::Landed => self.leases.note(&stage.record),
                Fate::Missed | Fate::Unknown => self.leases.forget(stage.record.id),
            }
        }
        fates
    }

    /// The latest write of each task, as a majority has it; `None` when the database does not say.
    async fn stamps(&self, staged: &[Staged]) -> Option<HashMap<Uuid, i64>> {
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
        let found = self.call("stamps", find).await.ok()?;
        Some(found.into_iter().map(|it| (Uuid::from_bytes(it.id.bytes()), it.stamp)).collect())
    }
}

/// A task that BSON cannot hold.
pub(super) struct NoStoredForm;

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
    pub(super) fn finish(self, mut record: TaskRecord, by_lease: bool) -> Result<Staged, NoStoredForm> {
        // Never 0, and never twice the same: it tells this write from any other.
        record.stamp = rand::random::<i64>() | 1;
        let after = stored(&record).ok_or(NoStoredForm)?;
        let mut guard = self.guard;
        if let Some(until) = self.lease_until.filter(|_| by_lease) {
            guard.append(cstr("lease_until"), until);
        }
        let update = difference(&self.before, &after).ok_or(NoStoredForm)?;
        let stamp = record.stamp;
        Ok(Staged { record, statement: rawdoc! { "q": guard, "u": update }, stamp })
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
