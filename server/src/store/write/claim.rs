//! Leasing ready tasks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::lifecycle::{self, Effect, Grant, Intent};
use crate::store::carried::{Staging, WriteNonce, WriteOutcome};
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::task::TaskRecord;

/// The result of leasing tasks.
#[derive(Debug, Default)]
pub struct ClaimWrite {
    /// Leased, with their payloads.
    pub tasks: Vec<TaskRecord>,
    /// Perhaps leased: the database did not say.
    pub in_doubt: Vec<TaskRecord>,
}

impl Store {
    /// Leases these tasks: those that are still free. What is not known by `until` is in doubt.
    ///
    /// # Errors
    /// When too much waits for the database already: nothing was leased.
    pub async fn claim(
        &self,
        picks: Vec<(TaskRecord, Grant)>,
        until: Instant,
    ) -> Result<ClaimWrite, StoreError> {
        let (now, nonce) = (self.clock().now(), WriteNonce::new());
        let mut staged = Vec::with_capacity(picks.len());
        let mut taken = Vec::with_capacity(picks.len());
        let mut named = HashSet::with_capacity(picks.len());
        for (mut task, grant) in picks {
            // The stamp tells one write of a task from those of others, not from another of the same call.
            if !named.insert(task.id) {
                continue;
            }
            let (from, version) = (task.status, task.version);
            // Payloads do not change; they need not be compared.
            let payload = task.take_payload();
            let Some(staging) = Staging::of(&task, nonce, self.form) else { continue };
            let intent = Intent::Claim(grant);
            if lifecycle::apply(&mut task, &intent, now) != Ok(Effect::Changed) {
                continue;
            }
            let moves = lifecycle::move_of(from, version, &intent, &task).into_iter().collect();
            if let Some(stage) = staging.finish(task, moves) {
                taken.push((Arc::clone(&stage.record), payload));
                staged.push(stage);
            }
        }
        let outcomes = self.write(staged, until).await;
        let mut claimed = ClaimWrite::default();
        let mut failed = None;
        for ((task, payload), outcome) in taken.into_iter().zip(outcomes) {
            match outcome {
                WriteOutcome::Landed => {
                    let mut task = Arc::unwrap_or_clone(task);
                    task.put_payload(payload);
                    claimed.tasks.push(task);
                }
                WriteOutcome::Unknown => claimed.in_doubt.push(Arc::unwrap_or_clone(task)),
                WriteOutcome::Missed => {}
                WriteOutcome::Failed(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if claimed.tasks.is_empty() && claimed.in_doubt.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }
}
