//! Changing a task: what it is now, what the lifecycle makes of it, and the guarded write that makes that last.
//!
//! A task is read, or recalled where this server has leased it; [`lifecycle::apply`](crate::lifecycle::apply) changes
//! it in memory; the difference becomes a [guarded write](super::guard). Two callers can never both succeed:
//! the one who comes second finds another task than it read, reads again, and is told what stands in the way.
//!
//! A refusal writes nothing that could miss. It is said only after a second read, which no change of the primary can make
//! old: a new one may show for a moment less than a majority has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::{Receipt, Uuid};

use crate::access::Scope;
use crate::fault_injection::{self, InjectedFault};
use crate::lifecycle::{self, Effect, Intent, Refusal};
use crate::store::carried::{Fate, Kind, Mark, News, Read, Staged, Staging, Wanted};
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::stored_id;
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
    pub task: Arc<TaskRecord>,
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

/// How long to wait before asking a database again that did not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the database is asked for a write whose answer was lost before nobody is told of it.
const TELLING_TRIES: u32 = 20;

impl Store {
    /// Makes these changes; each gets its own answer, in order. Several of one task are made one after the other and
    /// written at once. Reads and writes of callers that arrive together are carried by one command each.
    /// What is not known by `until` is in doubt.
    pub async fn apply(&self, changes: Vec<Change>, until: Instant) -> Vec<Result<Applied, Refused>> {
        let mut call = Call::of(changes);
        let mut overloaded = false;
        while !call.open.is_empty() && !overloaded && Instant::now() < until {
            let (mut staged, unread) = self.stage_from_memory(&mut call);
            match self.read_for_change(unread, until).await {
                Ok(records) => staged.extend(self.stage_from_database(&mut call, records)),
                Err(error) => {
                    overloaded = error == StoreError::Overloaded;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if staged.is_empty() {
                continue;
            }
            if fault_injection::is_injected(InjectedFault::UnguardedSweeper)
                && staged.iter().any(Staged::is_unguarded)
            {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let news: Vec<_> = staged.iter().map(Staged::news).collect();
            let fates = self.write(staged, until).await;
            let mut doubt = false;
            for (news, fate) in news.into_iter().zip(fates) {
                let id = news.task.id;
                match fate {
                    Fate::Landed => drop(call.open.remove(&id)),
                    Fate::Missed => {}
                    Fate::Failed(error) => call.fail(id, error),
                    Fate::Unknown => {
                        doubt |= call.in_doubt.insert(id, news.task.stamp).is_none()
                            || call.open.contains_key(&id);
                        self.tell_once_known(news);
                    }
                }
            }
            if doubt {
                tokio::time::sleep(PAUSE).await;
            }
        }
        call.end(if overloaded { StoreError::Overloaded } else { StoreError::Unavailable })
    }

    /// Stages what this server can make of the tasks it remembers, and names those that must be read. Only what
    /// changes a task is believed: whatever else comes out is not said before the database was asked.
    fn stage_from_memory(&self, call: &mut Call) -> (Vec<Staged>, Vec<Wanted>) {
        let (mut staged, mut unread) = (Vec::with_capacity(call.open.len()), Vec::new());
        let mark = Mark::new();
        for (id, indexes) in &call.open {
            let payload = indexes.iter().any(|index| call.changes[*index].intent.needs_payload());
            let kind = Kind { payload, certain: call.refused.contains(id) };
            let recalled = if payload { None } else { self.leases.take(*id) };
            let stage = recalled.and_then(|fields| {
                let record: TaskRecord = bson::deserialize_from_slice(fields.as_bytes()).ok()?;
                let before = record.version.unsigned_abs();
                let staging = Some(Staging::with(&record, fields, mark, self.form));
                let stage = self.stage(record, staging, indexes, &call.changes, &mut call.results)?;
                let is_new = |index: &usize| {
                    call.results[*index].as_ref().is_ok_and(|applied| applied.receipt.version >= before)
                };
                indexes.iter().all(is_new).then_some(stage)
            });
            match stage {
                Some(stage) => staged.push(stage),
                None => unread.push(Wanted { id: *id, kind }),
            }
        }
        (staged, unread)
    }

    /// Stages what the database says of tasks; those that nothing is to be written for have their answers.
    fn stage_from_database(&self, call: &mut Call, records: Vec<(Uuid, Read)>) -> Vec<Staged> {
        let mut staged = Vec::with_capacity(records.len());
        let mark = Mark::new();
        for (id, record) in records {
            let Some(indexes) = call.open.remove(&id) else { continue };
            let stage = match record {
                // The write whose answer was lost is there: what was answered in memory is true.
                Read::Task(record) if call.in_doubt.get(&id) == Some(&record.stamp) => continue,
                Read::Task(record) => {
                    let staging = Staging::of(&record, mark, self.form);
                    self.stage(*record, staging, &indexes, &call.changes, &mut call.results)
                }
                Read::Missing => call.refuse(&indexes, |_| Refused::Missing),
                Read::Unreadable(tenant) => call.refuse(&indexes, |change| {
                    // Whose it is must be known, or it does not exist for that caller.
                    let is_theirs = tenant.as_deref() == Some(&*change.scope.tenant);
                    if is_theirs { Refused::Store(StoreError::Unreadable) } else { Refused::Missing }
                }),
            };
            match stage {
                Some(stage) => {
                    call.open.insert(id, indexes);
                    staged.push(stage);
                }
                None if call.must_confirm(id, &indexes) => drop(call.open.insert(id, indexes)),
                None if call.in_doubt.contains_key(&id) => call.unsay(&indexes),
                None => {}
            }
        }
        staged
    }

    /// Makes all changes of one task in memory. `None`: nothing is to be written.
    fn stage(
        &self,
        mut record: TaskRecord,
        staging: Option<Staging>,
        indexes: &[usize],
        changes: &[Change],
        results: &mut [Result<Applied, Refused>],
    ) -> Option<Staged> {
        let mut receipts = Vec::with_capacity(indexes.len());
        let mut moves = Vec::new();
        let mut is_changed = false;
        for &index in indexes {
            let change = &changes[index];
            if !record.is_in(&change.scope) {
                results[index] = Err(Refused::Missing);
                continue;
            }
            let mut trial = record.clone();
            match lifecycle::apply(&mut trial, &change.intent, self.clock().now()) {
                Err(refusal) => results[index] = Err(Refused::Task(refusal)),
                Ok(Effect::Repeated(receipt)) => receipts.push((index, receipt)),
                Ok(Effect::Changed | Effect::Fenced) => {
                    is_changed = true;
                    moves.extend(lifecycle::move_of(record.status, record.version, &change.intent, &trial));
                    record = trial;
                    receipts.push((index, record.receipt()));
                }
            }
        }
        let (task, staged) = if is_changed {
            let Some(staged) = staging.and_then(|staging| staging.finish(record, moves)) else {
                for index in indexes {
                    results[*index] = Err(Refused::Store(StoreError::Unavailable));
                }
                return None;
            };
            (Arc::clone(&staged.record), Some(staged))
        } else {
            (Arc::new(record), None)
        };
        for (index, receipt) in receipts {
            results[index] = Ok(Applied { task: Arc::clone(&task), receipt });
        }
        staged
    }

    /// Tells of a write whose answer was lost, if it is found to be durable. Its caller may go; this does not. A write over
    /// it hides it: then whoever waits finds out by a tick.
    fn tell_once_known(&self, news: News) {
        let store = self.clone();
        self.runtime.spawn(async move {
            for _ in 0..TELLING_TRIES {
                tokio::time::sleep(PAUSE).await;
                // What a majority does not have yet may still come.
                let stamps = store.stamps(&[stored_id(news.task.id)]).await.unwrap_or_default();
                if stamps.get(&news.task.id) == Some(&news.task.stamp) {
                    return news.tell(&store.hub);
                }
            }
        });
    }
}

/// Changes on their way, and what has come of them so far.
struct Call {
    changes: Vec<Change>,
    results: Vec<Result<Applied, Refused>>,
    /// The changes without an answer, by task.
    open: HashMap<Uuid, Vec<usize>>,
    /// Tasks whose write may have landed unheard, with the stamp that it leaves.
    in_doubt: HashMap<Uuid, i64>,
    /// Tasks of which a read that may have been old said that something cannot be done.
    refused: HashSet<Uuid>,
}

impl Call {
    fn of(changes: Vec<Change>) -> Self {
        let results = changes.iter().map(|_| Err(Refused::Store(StoreError::Unavailable))).collect();
        let mut open: HashMap<_, Vec<_>> = HashMap::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            open.entry(change.id).or_default().push(index);
        }
        Self { changes, results, open, in_doubt: HashMap::new(), refused: HashSet::new() }
    }

    /// None of these changes of a task can be made.
    fn refuse(&mut self, indexes: &[usize], why: impl Fn(&Change) -> Refused) -> Option<Staged> {
        for index in indexes {
            self.results[*index] = Err(why(&self.changes[*index]));
        }
        None
    }

    /// Whether these changes of a task, for which nothing is to be written, are refused for the first time. Of what a
    /// background job does nobody is told, and it comes again.
    fn must_confirm(&mut self, id: Uuid, indexes: &[usize]) -> bool {
        let is_refused = |index: &usize| {
            let is_told = !matches!(self.changes[*index].intent, Intent::Expire { .. } | Intent::Promote);
            is_told && matches!(self.results[*index], Err(Refused::Missing | Refused::Task(_)))
        };
        indexes.iter().any(is_refused) && self.refused.insert(id)
    }

    /// A refusal that our own unheard write may have caused is none: whoever has no token to recognise it by is told
    /// that the outcome is unknown.
    fn unsay(&mut self, indexes: &[usize]) {
        for &index in indexes {
            if self.changes[index].intent.token().is_none() && self.results[index].is_err() {
                self.results[index] = Err(Refused::Store(StoreError::OutcomeUnknown));
            }
        }
    }

    /// A task that is still open has an answer that never became true.
    fn fail(&mut self, id: Uuid, error: StoreError) {
        let error = if self.in_doubt.contains_key(&id) { StoreError::OutcomeUnknown } else { error };
        for index in self.open.remove(&id).unwrap_or_default() {
            self.results[index] = Err(Refused::Store(error));
        }
    }

    /// All tasks that are still open have failed.
    fn end(mut self, error: StoreError) -> Vec<Result<Applied, Refused>> {
        let open: Vec<_> = self.open.keys().copied().collect();
        for id in open {
            self.fail(id, error);
        }
        self.results
    }
}
