//! Giving ready work to whoever asks, now or as soon as there is some.
//!
//! Callers who ask for the same selection share one round at a time: one read in claim order and one guarded write
//! serve them all, first come, first served. Whoever waits lives in memory and costs the database nothing. A caller
//! that has gone away is given nothing: what was claimed for it goes back at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use task_repo_protocol::claim::ClaimOne;
use task_repo_protocol::{Claim, Status, Uuid};
use tokio::sync::oneshot;

use super::desk::{Group, Waiter, lock};
use super::{Failure, TaskService};
use crate::lifecycle::{Grant, Intent, Verb};
use crate::scope::Scope;
use crate::store::{Change, Selection, StoreError};
use crate::task::TaskRecord;

/// Most tasks that one round takes.
const MAX_ROUND: usize = 1000;
/// After how many rounds in a row that took nothing of what was ready the callers are told so.
const MAX_FRUITLESS: u32 = 20;
/// How long a claim id is remembered.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

/// Tasks claimed for a caller. Unless it is taken, what it holds goes back to the queue.
#[must_use]
pub struct Handout {
    tasks: Vec<TaskRecord>,
    /// Handed out before, by a claim with the same id: a repeat does not put them back.
    repeated: bool,
    service: Arc<TaskService>,
}

impl Handout {
    /// The tasks, while they may still go back.
    pub fn tasks(&self) -> &[TaskRecord] {
        &self.tasks
    }

    /// The caller has them.
    pub fn take(mut self) -> Vec<TaskRecord> {
        std::mem::take(&mut self.tasks)
    }
}

impl Drop for Handout {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        if !tasks.is_empty() && !self.repeated {
            let service = Arc::clone(&self.service);
            self.service
                .background
                .spawn_on(async move { service.give_back(tasks).await }, &self.service.runtime);
        }
    }
}

impl TaskService {
    /// Claims up to the request's limit, waiting as long as it says for the first task.
    ///
    /// # Errors
    /// When the key may not use one of the types, or the database does not answer.
    pub async fn claim(self: &Arc<Self>, scope: &Scope, claim: Claim) -> Result<Handout, Failure> {
        self.may_claim(scope, &claim)?;
        let claim_id = claim.claim_id.map(|id| claim_hash(scope, id));
        let _turn = match &claim_id {
            // The same claim sent twice at once must not take work twice.
            Some(id) => Some(self.desk.turn(id).await),
            None => None,
        };
        if let Some(id) = &claim_id
            && let Some(held) = self.claimed_before(scope, id).await?
        {
            return Ok(Handout { tasks: held, repeated: true, service: Arc::clone(self) });
        }
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0));
        let (reply, mut answer) = oneshot::channel();
        let waiter = Waiter {
            limit: claim.limit.unwrap_or(1) as usize,
            worker_id: claim.worker_id,
            lease_seconds: claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
            claim_id,
            waits: !wait.is_zero(),
            reply,
        };
        let selection = Selection {
            scope: Scope { task_types: None, ..scope.clone() },
            task_types: sorted(claim.task_types),
            tags: claim.tags.as_ref().map(TaskRecord::stored_tags).unwrap_or_default(),
        };
        if let Some(group) = self.desk.join(&selection, waiter) {
            let service = Arc::clone(self);
            self.background.spawn_on(async move { service.serve(group).await }, &self.runtime);
        }
        if wait.is_zero() {
            return answer.await.unwrap_or(Err(StoreError::Unavailable)).map_err(Failure::from);
        }
        let empty = Handout { tasks: Vec::new(), repeated: false, service: Arc::clone(self) };
        let answered = tokio::select! {
            answered = &mut answer => Some(answered),
            () = tokio::time::sleep(wait) => None,
            () = self.draining.cancelled() => None,
        };
        if let Some(answered) = answered {
            return answered.unwrap_or(Ok(empty)).map_err(Failure::from);
        }
        // Time is up. What was claimed just now still counts; nothing can come after this.
        answer.close();
        answer.try_recv().unwrap_or(Ok(empty)).map_err(Failure::from)
    }

    /// Refuses a claim of types that the key may not use.
    ///
    /// # Errors
    /// The first such type.
    pub fn may_claim(&self, scope: &Scope, claim: &Claim) -> Result<(), Failure> {
        match claim.task_types.iter().find(|name| !scope.may_use(name)) {
            Some(name) => Err(Failure::TypeForbidden(name.clone())),
            None => Ok(()),
        }
    }

    /// Claims one known task.
    ///
    /// # Errors
    /// When there is no such task or it is not pending.
    pub async fn claim_one(&self, scope: &Scope, id: Uuid, claim: ClaimOne) -> Result<TaskRecord, Failure> {
        let seconds = claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok());
        let intent = Intent::Claim(grant(&claim.worker_id, seconds, None));
        let applied = self.change(scope, id, intent).await?;
        metrics::counter!("task_repo_tasks_claimed_total").increment(1);
        Ok(applied.task)
    }

    /// What a claim with that id took before, if it did: what is still held by it.
    async fn claimed_before(
        &self,
        scope: &Scope,
        claim_id: &[u8],
    ) -> Result<Option<Vec<TaskRecord>>, Failure> {
        let since = self.store.clock().now() - REMEMBERED;
        let mut known = false;
        let mut held = Vec::new();
        for task in self.store.claimed_by(scope, claim_id).await? {
            let by_this = |attempt: &&crate::task::AttemptRecord| {
                attempt.claim_id.as_deref() == Some(claim_id) && attempt.started_at > since
            };
            let tokens: Vec<_> = task.attempts.iter().filter(by_this).map(|attempt| attempt.token).collect();
            known |= !tokens.is_empty();
            let holds = task.status == Status::Processing
                && task.lease.as_ref().is_some_and(|lease| tokens.contains(&Some(lease.token)));
            if holds && scope.sees(&task) {
                held.push(task);
            }
        }
        held.sort_by_key(|task| (-task.priority, task.ready_at, task.id));
        Ok(known.then_some(held))
    }

    /// Serves a group until nobody waits in it any more.
    async fn serve(self: Arc<Self>, group: Arc<Group>) {
        loop {
            let mut waiters = std::mem::take(&mut *lock(&group.waiters));
            waiters.retain(|waiter| !waiter.reply.is_closed());
            if waiters.is_empty() {
                if self.desk.leave(&group) {
                    return;
                }
                continue;
            }
            let left = self.round(&group.selection, waiters).await;
            let idle = {
                let mut waiters = lock(&group.waiters);
                let nobody_new = waiters.is_empty();
                for waiter in left.into_iter().rev() {
                    waiters.push_front(waiter);
                }
                nobody_new && !waiters.is_empty()
            };
            if idle {
                tokio::select! {
                    () = group.wake.notified() => {}
                    () = self.stopping.cancelled() => return,
                }
            }
        }
    }

    /// One round for all who wait: claims until everybody has what was asked for or nothing is ready. Returns those
    /// who got nothing and go on waiting.
    async fn round(self: &Arc<Self>, selection: &Selection, waiters: VecDeque<Waiter>) -> Vec<Waiter> {
        let mut served: Vec<(Waiter, Vec<TaskRecord>)> =
            waiters.into_iter().map(|w| (w, Vec::new())).collect();
        let mut fruitless = 0;
        let failed = loop {
            served.retain(|(waiter, tasks)| !tasks.is_empty() || !waiter.reply.is_closed());
            let wanted: usize = served.iter().map(|(waiter, tasks)| waiter.limit - tasks.len()).sum();
            let wanted = wanted.min(MAX_ROUND);
            if wanted == 0 {
                break None;
            }
            let ready = match self.store.ready(selection, wanted).await {
                Ok(ready) => ready,
                Err(error) => break Some(error),
            };
            if ready.is_empty() {
                break None;
            }
            // Others may have been faster; a database that reads but does not write must not be asked for ever.
            fruitless = if self.hand_out(ready, &mut served).await { 0 } else { fruitless + 1 };
            if fruitless >= MAX_FRUITLESS {
                break Some(StoreError::Unavailable);
            }
        };
        let mut left = Vec::new();
        for (waiter, tasks) in served {
            let answer = match failed {
                Some(error) if tasks.is_empty() => Err(error),
                _ if tasks.is_empty() && waiter.waits && !self.is_draining() => {
                    left.push(waiter);
                    continue;
                }
                _ => Ok(Handout { tasks, repeated: false, service: Arc::clone(self) }),
            };
            // A caller that has gone away drops the handout, and with it the tasks go back.
            let _ = waiter.reply.send(answer);
        }
        left
    }

    /// Leases ready tasks to the callers in order; `false` when none could be had.
    async fn hand_out(&self, ready: Vec<TaskRecord>, served: &mut [(Waiter, Vec<TaskRecord>)]) -> bool {
        let mut owners = HashMap::with_capacity(ready.len());
        let mut open = served
            .iter()
            .enumerate()
            .flat_map(|(index, (waiter, tasks))| std::iter::repeat_n(index, waiter.limit - tasks.len()));
        let picks: Vec<_> = ready
            .into_iter()
            .zip(open.by_ref())
            .map(|(task, owner)| {
                let waiter = &served[owner].0;
                let grant = grant(&waiter.worker_id, waiter.lease_seconds, waiter.claim_id.clone());
                owners.insert(grant.token, owner);
                (task, grant)
            })
            .collect();
        let claimed = self.store.claim(picks).await;
        let any = !claimed.is_empty();
        for task in claimed {
            if let Some(owner) = task.lease.as_ref().and_then(|lease| owners.get(&lease.token)) {
                metrics::counter!("task_repo_tasks_claimed_total").increment(1);
                served[*owner].1.push(task);
            }
        }
        any
    }

    /// Puts back what was claimed for a caller that has gone away.
    async fn give_back(&self, tasks: Vec<TaskRecord>) {
        let changes = tasks
            .iter()
            .filter_map(|task| {
                let token = task.lease.as_ref()?.token;
                let scope = Scope::tenant(&task.tenant);
                Some(Change { scope, id: task.id, intent: Intent::Withdraw { token } })
            })
            .collect();
        metrics::counter!("task_repo_claims_given_back_total").increment(tasks.len() as u64);
        for applied in self.store.apply(changes).await.into_iter().flatten() {
            self.announce(&applied.task);
        }
    }

    /// Makes one change and tells whoever waits for it.
    pub(super) async fn change(
        &self,
        scope: &Scope,
        id: Uuid,
        intent: Intent,
    ) -> Result<crate::store::Applied, Failure> {
        let verb = intent.verb();
        let change = Change { scope: scope.clone(), id, intent };
        let mut results = self.store.apply(vec![change]).await;
        let result = results.pop().unwrap_or(Err(crate::store::Refused::Missing));
        let applied = result.map_err(|refused| Failure::of(id, verb, &refused))?;
        if verb != Verb::Heartbeat {
            self.announce(&applied.task);
        }
        Ok(applied)
    }
}

fn grant(worker_id: &str, lease_seconds: Option<u32>, claim_id: Option<Vec<u8>>) -> Grant {
    Grant {
        token: Uuid::new_v4(),
        execution_id: Uuid::now_v7(),
        worker_id: worker_id.to_owned(),
        lease_seconds,
        claim_id,
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// A claim id belongs to tenant and user; the tenant is in the filter.
fn claim_hash(scope: &Scope, id: Uuid) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(scope.user.as_deref().unwrap_or_default());
    hash.update(b"\0");
    hash.update(id.as_bytes());
    hash.finalize()[..16].to_vec()
}
