//! New tasks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc};
use task_repo_protocol::Uuid;

use crate::events::TaskEvent;
use crate::fault_injection::{self, InjectedFault};
use crate::lifecycle::{self, Effect, Grant, Intent};
use crate::store::carried::{Drafted, NotInserted, new_stamp};
use crate::store::driver::command::Written;
use crate::store::driver::{MAX_READ_BYTES, Store};
use crate::store::error::StoreError;
use crate::store::ids::{stored_bytes, stored_id};
use crate::store::indexes::IDEMPOTENCY;
use crate::store::read::as_created;
use crate::task::TaskRecord;

impl Store {
    /// Creates tasks; each gets its own answer, in order. Tasks of callers that arrive together are written together.
    /// The outcome of an insert that is not known by `until` is unknown.
    pub async fn insert(&self, tasks: &[Arc<TaskRecord>], until: Instant) -> Vec<Result<(), NotInserted>> {
        let failed = |error| vec![Err(NotInserted::Store(error)); tasks.len()];
        // Only the unique index tells a repetition from a new call.
        if tasks.iter().any(|task| task.idempotency_key.is_some()) && self.indexes.is_incomplete() {
            return failed(StoreError::Unindexed);
        }
        let draft =
            |task: &Arc<TaskRecord>| Some(Drafted { task: Arc::clone(task), document: self.form.of(task)? });
        let Some(documents) = tasks.iter().map(draft).collect::<Option<Vec<_>>>() else {
            return failed(StoreError::Unavailable);
        };
        let bytes = documents.iter().map(|drafted| drafted.document.as_bytes().len()).sum();
        let store = self.clone();
        if fault_injection::is_injected(InjectedFault::EarlyAcknowledgement) {
            self.runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                store.insert_documents(documents).await
            });
            return vec![Ok(()); tasks.len()];
        }
        let run = move |documents| {
            let store = store.clone();
            async move { store.insert_documents(documents).await }
        };
        self.groups.inserts.submit(documents, bytes, until, &self.runtime, run).await.unwrap_or_else(failed)
    }

    /// Creates a task that somebody claims from the start: one write instead of two. The task as it was claimed comes
    /// back in either case.
    pub async fn insert_claimed(
        &self,
        mut task: TaskRecord,
        grant: Grant,
    ) -> (TaskRecord, Result<(), NotInserted>) {
        if lifecycle::apply(&mut task, &Intent::Claim(grant), self.clock().now()) != Ok(Effect::Changed) {
            return (task, Err(NotInserted::Store(StoreError::Unavailable)));
        }
        task.stamp = new_stamp();
        task.note_creation();
        let task = Arc::new(task);
        // Giving the task back must not be faster than the command, which tries for two deadlines.
        let until = self.step_deadline() + 2 * self.timeout;
        let inserted = self.insert(&[Arc::clone(&task)], until).await.pop();
        let inserted = inserted.unwrap_or(Err(NotInserted::Store(StoreError::OutcomeUnknown)));
        let mut task = Arc::unwrap_or_clone(task);
        if inserted.is_ok() {
            let payload = task.take_payload();
            if let Some(fields) = self.form.of(&task) {
                self.leases.note(task.id, fields);
            }
            task.put_payload(payload);
        }
        (task, inserted)
    }

    async fn insert_documents(&self, drafted: Vec<Drafted>) -> Vec<Result<(), NotInserted>> {
        let (tasks, documents): (Vec<_>, Vec<_>) =
            drafted.into_iter().map(|drafted| (drafted.task, drafted.document)).unzip();
        let results = self.insert_all(&documents).await;
        let is_told =
            |(task, result): &(&Arc<TaskRecord>, &Result<_, _>)| result.is_ok() && !task.only_holds_a_key();
        for (task, _) in tasks.iter().zip(&results).filter(is_told) {
            self.hub.emit(&TaskEvent { before: None, moves: &[task.creation()], task });
        }
        results
    }

    async fn insert_all(&self, documents: &[RawDocumentBuf]) -> Vec<Result<(), NotInserted>> {
        let give_up = Instant::now() + self.timeout;
        let mut results = vec![Err(NotInserted::Store(StoreError::OutcomeUnknown)); documents.len()];
        let mut open: Vec<usize> = (0..documents.len()).collect();
        let mut sent_before = false;
        while !open.is_empty() {
            let batch: Vec<_> = open.iter().map(|index| &documents[*index]).collect();
            match self.insert_command(&batch).await {
                Written::Answered { errors, .. } => {
                    for &index in &open {
                        results[index] = Ok(());
                    }
                    for error in errors {
                        let index = open[error.index.min(open.len() - 1)];
                        results[index] = match error.duplicate_in.as_deref() {
                            // Our own id is there already: an earlier try of this very call.
                            Some("_id") if sent_before => Ok(()),
                            Some("idempotency_key") => Err(NotInserted::Duplicate),
                            _ => Err(NotInserted::Store(StoreError::Unavailable)),
                        };
                    }
                    open.clear();
                }
                Written::Unsent if !sent_before => {
                    return vec![Err(NotInserted::Store(StoreError::Overloaded)); documents.len()];
                }
                Written::Unknown | Written::Unsent if Instant::now() < give_up => {
                    sent_before = true;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Written::Unknown | Written::Unsent => return results,
            }
        }
        results
    }

    /// The tasks that were created with these idempotency keys (hashes), deleted ones too; without what came after their
    /// creation. Few are held with all their payloads: of each, `strip` may take off what is not needed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn by_idempotency_keys(
        &self,
        tenant: &str,
        mut keys: HashSet<Vec<u8>>,
        strip: impl Fn(&mut TaskRecord),
        until: Instant,
    ) -> Result<HashMap<Vec<u8>, TaskRecord>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        loop {
            let stored: Vec<_> = keys.iter().map(|key| stored_bytes(key)).collect();
            let filter = doc! { "tenant": tenant, "idempotency_key": { "$in": stored, "$exists": true } };
            let mut options = self.by_index(IDEMPOTENCY);
            options.projection = Some(as_created());
            let reading =
                self.find_within("by idempotency key", filter, options, MAX_READ_BYTES, until).await?;
            if reading.seen - usize::from(reading.is_cut) > reading.found.len() {
                return Err(StoreError::Unreadable);
            }
            for mut task in reading.found {
                let Some(key) = task.idempotency_key.clone() else { continue };
                keys.remove(&key);
                strip(&mut task);
                found.insert(key, task);
            }
            if !reading.is_cut {
                return Ok(found);
            }
        }
    }

    /// Lets go of idempotency keys that have had their day.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_idempotency_keys(
        &self,
        tenant: &str,
        ids: &[Uuid],
        until: Instant,
    ) -> Result<(), StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        let tasks = self.tasks.clone();
        let filter = doc! { "tenant": tenant, "_id": { "$in": ids } };
        let update = doc! { "$unset": { "idempotency_key": "", "idempotency_body": "", "idempotency_request": "",
        "idempotency_limits": "" } };
        self.call("forget idempotency keys", until, async move { tasks.update_many(filter, update).await })
            .await
            .map(|_| ())
    }
}
