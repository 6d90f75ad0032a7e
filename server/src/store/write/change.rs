//! Changing a task: what it is now, what the lifecycle makes of it, and the guarded write that makes that last.
//!
//! A task is read, or taken from the lease cache; [`lifecycle::apply`](crate::lifecycle::apply) changes it in memory; the
//! difference becomes a [guarded write](super::guard). Two changes of one task can never both succeed: the write of the
//! second misses, and the task is read again.
//!
//! A refusal writes nothing, so no miss can show that the read was old. Just after a failover a majority read may be,
//! because a new primary shows for a moment less than a majority has. So a refusal is answered only after a second,
//! linearizable read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::{Receipt, Uuid};

use crate::access::Scope;
use crate::fault_injection::{self, InjectedFault};
use crate::lifecycle::{self, Effect, Intent, Refusal};
use crate::store::carried::{
    PendingEvent, ReadKind, ReadOutcome, ReadRequest, Staged, Staging, WriteNonce, WriteOutcome,
};
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

/// The result of a change.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The task afterwards; its payloads only where the intent needed them.
    pub task: Arc<TaskRecord>,
    /// The answer; for a repetition, the answer that was given before.
    pub receipt: Receipt,
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotApplied {
    /// There is no such task for this caller.
    Missing,
    /// The task does not allow it.
    Task(Refusal),
    /// The database could not do it.
    Store(StoreError),
}

/// How long to wait before asking a database again that did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often the database is asked for a write of unknown outcome before its event is given up.
const EMIT_TRIES: u32 = 20;

impl Store {
    /// Makes these changes; each gets its own answer, in order. Several changes of one task are made one after the other
    /// and written at once. Reads and writes of callers that arrive together are carried by one command each. The outcome
    /// of a write that is not known by `until` is unknown.
    pub async fn apply(&self, changes: Vec<Change>, until: Instant) -> Vec<Result<Applied, NotApplied>> {
        let mut run = ChangeRun::of(changes);
        let mut overloaded = false;
        while !run.open.is_empty() && !overloaded && Instant::now() < until {
            let (mut staged, unread) = self.stage_from_memory(&mut run);
            match self.read_for_change(unread, until).await {
                Ok(records) => staged.extend(self.stage_from_database(&mut run, records)),
                Err(error) => {
                    overloaded = error == StoreError::Overloaded;
                    tokio::time::sleep(RETRY_PAUSE).await;
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
            if self.keep_checkpoints(&staged, until).await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            let events: Vec<_> = staged.iter().map(Staged::pending_event).collect();
            let outcomes = self.write(staged, until).await;
            let mut doubt = false;
            for (event, outcome) in events.into_iter().zip(outcomes) {
                let id = event.task.id;
                match outcome {
                    WriteOutcome::Landed => drop(run.open.remove(&id)),
                    WriteOutcome::Missed => {}
                    WriteOutcome::Failed(error) => run.fail(id, error),
                    WriteOutcome::Unknown => {
                        doubt |=
                            run.in_doubt.insert(id, event.task.stamp).is_none() || run.open.contains_key(&id);
                        self.emit_once_known(event);
                    }
                }
            }
            if doubt {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        run.end(if overloaded { StoreError::Overloaded } else { StoreError::Unavailable })
    }

    /// Stages the changes of tasks that are in the lease cache, and names the tasks that must be read. The cache may be
    /// old, so only a change is taken from it: its guarded write would miss. A refusal is not, because no write tests it.
    fn stage_from_memory(&self, run: &mut ChangeRun) -> (Vec<Staged>, Vec<ReadRequest>) {
        let (mut staged, mut unread) = (Vec::with_capacity(run.open.len()), Vec::new());
        let nonce = WriteNonce::new();
        for (id, indexes) in &run.open {
            let payload = indexes.iter().any(|index| run.changes[*index].intent.needs_payload());
            let kind = ReadKind { payload, certain: run.refused.contains(id) };
            let recalled = if payload { None } else { self.leases.take(*id) };
            let stage = recalled.and_then(|fields| {
                let record: TaskRecord = bson::deserialize_from_slice(fields.as_bytes()).ok()?;
                let before = record.version.unsigned_abs();
                let staging = Some(Staging::with(&record, fields, nonce, self.form));
                let stage = self.stage(record, staging, indexes, &run.changes, &mut run.results)?;
                let is_new = |index: &usize| {
                    run.results[*index].as_ref().is_ok_and(|applied| applied.receipt.version >= before)
                };
                indexes.iter().all(is_new).then_some(stage)
            });
            match stage {
                Some(stage) => staged.push(stage),
                None => unread.push(ReadRequest { id: *id, kind }),
            }
        }
        (staged, unread)
    }

    /// Stages what the database says of tasks; those that nothing is to be written for have their answers.
    fn stage_from_database(&self, run: &mut ChangeRun, records: Vec<(Uuid, ReadOutcome)>) -> Vec<Staged> {
        let mut staged = Vec::with_capacity(records.len());
        let nonce = WriteNonce::new();
        for (id, record) in records {
            let Some(indexes) = run.open.remove(&id) else { continue };
            let stage = match record {
                // The write of unknown outcome has landed: what was answered in memory is true.
                ReadOutcome::Task(record) if run.in_doubt.get(&id) == Some(&record.stamp) => continue,
                ReadOutcome::Task(record) => {
                    let staging = Staging::of(&record, nonce, self.form);
                    self.stage(*record, staging, &indexes, &run.changes, &mut run.results)
                }
                ReadOutcome::Missing => run.refuse(&indexes, |_| NotApplied::Missing),
                ReadOutcome::Unreadable(tenant) => run.refuse(&indexes, |change| {
                    // Whose it is must be known, or it does not exist for that caller.
                    let is_theirs = tenant.as_deref() == Some(&*change.scope.tenant);
                    if is_theirs { NotApplied::Store(StoreError::Unreadable) } else { NotApplied::Missing }
                }),
            };
            match stage {
                Some(stage) => {
                    run.open.insert(id, indexes);
                    staged.push(stage);
                }
                None if run.must_confirm(id, &indexes) => drop(run.open.insert(id, indexes)),
                None if run.in_doubt.contains_key(&id) => run.doubt_refusals(&indexes),
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
        results: &mut [Result<Applied, NotApplied>],
    ) -> Option<Staged> {
        let mut receipts = Vec::with_capacity(indexes.len());
        let mut moves = Vec::new();
        let mut is_changed = false;
        for &index in indexes {
            let change = &changes[index];
            if !record.is_in(&change.scope) {
                results[index] = Err(NotApplied::Missing);
                continue;
            }
            let mut trial = record.clone();
            match lifecycle::apply(&mut trial, &change.intent, self.clock().now()) {
                Err(refusal) => results[index] = Err(NotApplied::Task(refusal)),
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
                    results[*index] = Err(NotApplied::Store(StoreError::Unavailable));
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

    /// Emits the event of a write of unknown outcome if that is found to be durable. It goes on when the caller goes away. A
    /// later write of the task hides the stamp that this one left; then calls that wait are woken by the next tick.
    fn emit_once_known(&self, event: PendingEvent) {
        let store = self.clone();
        self.runtime.spawn(async move {
            for _ in 0..EMIT_TRIES {
                tokio::time::sleep(RETRY_PAUSE).await;
                // A write that a majority does not have yet may still come.
                let stamps = store.stamps(&[stored_id(event.task.id)]).await.unwrap_or_default();
                if stamps.get(&event.task.id) == Some(&event.task.stamp) {
                    return event.emit(&store.hub);
                }
            }
        });
    }
}

/// Changes that are being made, and the results so far.
struct ChangeRun {
    changes: Vec<Change>,
    results: Vec<Result<Applied, NotApplied>>,
    /// The changes without an answer, by task.
    open: HashMap<Uuid, Vec<usize>>,
    /// Tasks with a write of unknown outcome, and the stamp that it leaves.
    in_doubt: HashMap<Uuid, i64>,
    /// Tasks whose change was refused by a read that may have been old.
    refused: HashSet<Uuid>,
}

impl ChangeRun {
    fn of(changes: Vec<Change>) -> Self {
        let results = changes.iter().map(|_| Err(NotApplied::Store(StoreError::Unavailable))).collect();
        let mut open: HashMap<_, Vec<_>> = HashMap::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            open.entry(change.id).or_default().push(index);
        }
        Self { changes, results, open, in_doubt: HashMap::new(), refused: HashSet::new() }
    }

    /// None of these changes of a task can be made.
    fn refuse(&mut self, indexes: &[usize], why: impl Fn(&Change) -> NotApplied) -> Option<Staged> {
        for index in indexes {
            self.results[*index] = Err(why(&self.changes[*index]));
        }
        None
    }

    /// Whether these changes of a task are refused for the first time, so that the refusal must be confirmed. A refusal of a
    /// background job is answered to nobody, and the job comes again.
    fn must_confirm(&mut self, id: Uuid, indexes: &[usize]) -> bool {
        let is_refused = |index: &usize| {
            let is_told = !matches!(self.changes[*index].intent, Intent::Expire { .. } | Intent::Promote);
            is_told && matches!(self.results[*index], Err(NotApplied::Missing | NotApplied::Task(_)))
        };
        indexes.iter().any(is_refused) && self.refused.insert(id)
    }

    /// After a write of unknown outcome a refusal may be its doing. A verb with a token recognises that by the receipt; one
    /// without cannot tell, so it answers `outcome_unknown`.
    fn doubt_refusals(&mut self, indexes: &[usize]) {
        for &index in indexes {
            if self.changes[index].intent.token().is_none() && self.results[index].is_err() {
                self.results[index] = Err(NotApplied::Store(StoreError::OutcomeUnknown));
            }
        }
    }

    /// The changes of a task that is still open have failed: what was answered in memory never became true.
    fn fail(&mut self, id: Uuid, error: StoreError) {
        let error = if self.in_doubt.contains_key(&id) { StoreError::OutcomeUnknown } else { error };
        for index in self.open.remove(&id).unwrap_or_default() {
            self.results[index] = Err(NotApplied::Store(error));
        }
    }

    /// All tasks that are still open have failed.
    fn end(mut self, error: StoreError) -> Vec<Result<Applied, NotApplied>> {
        let open: Vec<_> = self.open.keys().copied().collect();
        for id in open {
            self.fail(id, error);
        }
        self.results
    }
}
