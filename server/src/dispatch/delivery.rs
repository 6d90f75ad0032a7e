//! Claimed tasks on their way to their caller. What does not reach the caller goes back to the queue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use task_repo_protocol::{Json, Task, Uuid};

use super::claim_id::ClaimIdLock;
use crate::access::Scope;
use crate::background::Background;
use crate::lifecycle::{Grant, Intent};
use crate::store::{Change, NotApplied, Store, StoreError};
use crate::task::{TaskRecord, view};

/// How long to wait before the next try to give tasks back.
const GIVE_BACK_RETRY: Duration = Duration::from_millis(200);

/// The result of a claim.
pub(super) type Delivered = Result<Delivery, StoreError>;

/// Tasks claimed for a caller. Dropped before they are [taken](Self::taken), they go back to the queue.
#[must_use]
pub struct Delivery {
    tasks: Vec<TaskRecord>,
    /// What earlier attempts have left, as JSON text.
    checkpoints: HashMap<Uuid, String>,
    /// Delivered before, to a claim with the same id: a repeat does not give them back.
    is_repeat: bool,
    claim_id: Option<ClaimIdLock>,
    give_back: GiveBack,
}

impl Delivery {
    /// Tasks that were claimed just now.
    pub(super) fn of(tasks: Vec<TaskRecord>, claim_id: Option<ClaimIdLock>, give_back: &GiveBack) -> Self {
        Self { tasks, checkpoints: HashMap::new(), is_repeat: false, claim_id, give_back: give_back.clone() }
    }

    /// Tasks that an earlier claim with the same id has taken.
    pub(super) fn repeat(
        tasks: Vec<TaskRecord>,
        claim_id: Option<ClaimIdLock>,
        give_back: &GiveBack,
    ) -> Self {
        Self { tasks, checkpoints: HashMap::new(), is_repeat: true, claim_id, give_back: give_back.clone() }
    }

    /// The tasks that have a checkpoint beside them.
    pub fn with_checkpoint(&self) -> Vec<Uuid> {
        self.tasks.iter().filter(|task| task.has_checkpoint).map(|task| task.id).collect()
    }

    /// Takes these checkpoints along.
    pub fn add_checkpoints(&mut self, checkpoints: HashMap<Uuid, String>) {
        self.checkpoints = checkpoints;
    }

    /// The tasks with their payloads and lease tokens, once; they may still go back.
    pub fn present(&mut self) -> Vec<Task> {
        let checkpoints = &mut self.checkpoints;
        let show = |task: &mut TaskRecord| Task {
            checkpoint: checkpoints.remove(&task.id).map(Json::known).into(),
            ..view::view_and_strip(task, true)
        };
        self.tasks.iter_mut().map(show).collect()
    }

    /// The caller has them.
    pub fn taken(mut self) {
        self.tasks.clear();
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let (tasks, claim_id) = (std::mem::take(&mut self.tasks), self.claim_id.take());
        if tasks.is_empty() || self.is_repeat {
            return;
        }
        let give_back = self.give_back.clone();
        self.give_back.background.spawn(async move {
            give_back.tasks(tasks, Instant::now()).await;
            // The same claim id may be answered again only now, or the repeat would find tasks that are on their way back.
            drop(claim_id);
        });
    }
}

/// Gives tasks back to the queue that were claimed for nobody.
#[derive(Clone)]
pub(super) struct GiveBack {
    store: Store,
    background: Background,
}

impl GiveBack {
    pub(super) fn new(store: Store, background: Background) -> Self {
        Self { store, background }
    }

    /// Resolves when the server's background work ends.
    pub(super) async fn stopping(&self) {
        self.background.stopping().await;
    }

    /// Gives back what was claimed, beside the request. See [`tasks`](Self::tasks).
    pub(super) fn spawn(&self, tasks: Vec<TaskRecord>, comes_until: Instant) {
        let give_back = self.clone();
        self.background.spawn(async move { give_back.tasks(tasks, comes_until).await });
    }

    /// The same for one task of which only the lease's token is known.
    pub(super) fn spawn_one(&self, scope: &Scope, id: Uuid, token: Uuid) {
        let (give_back, change) = (self.clone(), withdrawal(&scope.tenant, id, token));
        self.background.spawn(async move { give_back.withdraw(vec![change], Instant::now()).await });
    }

    /// Gives back what was claimed for a caller that has gone away, until the database has said what became of it. The
    /// insert of a task may still be in flight: until `comes_until` a missing one is tried again, after it it never was.
    async fn tasks(&self, tasks: Vec<TaskRecord>, comes_until: Instant) {
        let withdrawal =
            |task: &TaskRecord| Some(withdrawal(&task.tenant, task.id, task.lease.as_ref()?.token));
        self.withdraw(tasks.iter().filter_map(withdrawal).collect(), comes_until).await;
    }

    async fn withdraw(&self, mut changes: Vec<Change>, comes_until: Instant) {
        metrics::counter!("task_repo_claims_given_back_total").increment(changes.len() as u64);
        loop {
            let results = self.store.apply(changes.clone(), self.store.step_deadline()).await;
            let mut in_doubt = Vec::new();
            for (change, result) in changes.into_iter().zip(results) {
                match result {
                    Ok(_) | Err(NotApplied::Store(StoreError::Unreadable)) => {}
                    Err(NotApplied::Store(_)) => in_doubt.push(change),
                    Err(NotApplied::Missing) if Instant::now() < comes_until => in_doubt.push(change),
                    // It was never claimed, or is not held any more.
                    Err(NotApplied::Missing | NotApplied::Task(_)) => {}
                }
            }
            changes = in_doubt;
            if changes.is_empty() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(GIVE_BACK_RETRY) => {}
                // Their leases will run out.
                () = self.background.stopping() => return,
            }
        }
    }
}

/// The change that undoes a claim which gave this token.
fn withdrawal(tenant: &str, id: Uuid, token: Uuid) -> Change {
    Change { scope: Scope::tenant(tenant), id, intent: Intent::Withdraw { token } }
}

/// A new lease.
pub(super) fn grant(worker_id: &str, lease_seconds: Option<u32>, claim_id: Option<Vec<u8>>) -> Grant {
    Grant {
        token: Uuid::new_v4(),
        execution_id: Uuid::now_v7(),
        worker_id: worker_id.to_owned(),
        lease_seconds,
        claim_id,
    }
}
