//! Giving ready work to whoever asks, now or as soon as there is some.
//!
//! Callers who ask for the same selection share one round at a time: one read in claim order and one guarded write
//! serve them all, first come, first served. Whoever waits lives in memory and costs the database nothing. A caller
//! that has gone away is given nothing: what was claimed for it goes back at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use task_repo_protocol::claim::ClaimOne;
use task_repo_protocol::{Claim, Task, Uuid};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::desk::Turn;
use super::waiters::Waiter;
use super::{Failure, TaskService};
use crate::access::Scope;
use crate::lifecycle::{Grant, Intent, Verb};
use crate::store::{Applied, Change, Refused, Selection, StoreError, Want};
use crate::task::{AttemptRecord, Kept, Order, Status, TaskRecord, view};

/// How long a claim id is remembered.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);
/// How long after its deadline a claim's answer may take from the database to its caller.
const GRACE: Duration = Duration::from_millis(250);
/// How long to wait before trying again to put tasks back.
const PAUSE: Duration = Duration::from_millis(200);

/// What a claim comes to.
pub(super) type Answer = Result<Handout, StoreError>;

/// Tasks claimed for a caller. Unless it is taken, what it holds goes back to the queue.
#[must_use]
pub struct Handout {
    tasks: Vec<TaskRecord>,
    /// Handed out before, by a claim with the same id: a repeat does not put them back.
    repeated: bool,
    turn: Option<Turn>,
    service: Arc<TaskService>,
}

impl Handout {
    pub(super) fn of(tasks: Vec<TaskRecord>, turn: Option<Turn>, service: &Arc<TaskService>) -> Self {
        Self { tasks, repeated: false, turn, service: Arc::clone(service) }
    }

    /// The tasks with their payloads and lease tokens, once; they may still go back.
    pub fn present(&mut self) -> Vec<Task> {
        self.tasks.iter_mut().map(|task| view::view_and_strip(task, true)).collect()
    }

    /// The caller has them.
    pub fn taken(mut self) {
        self.tasks.clear();
    }
}

impl Drop for Handout {
    fn drop(&mut self) {
        let (tasks, turn) = (std::mem::take(&mut self.tasks), self.turn.take());
        if !tasks.is_empty() && !self.repeated {
            let service = Arc::clone(&self.service);
            let put_back = async move {
                service.give_back(tasks, Instant::now()).await;
                // Only now may the same claim id be answered again.
                drop(turn);
            };
            self.service.background.spawn_on(put_back, &self.service.runtime);
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
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0));
        let end = tokio::time::Instant::now() + wait;
        let until = tokio::time::Instant::from(self.store.deadline()) + wait;
        let too_late = |_| Failure::from(StoreError::Unavailable);
        let claim_id = claim.claim_id.map(|id| claim_hash(scope, id));
        let turn = match &claim_id {
            // The same claim sent twice at once must not take work twice.
            Some(id) => Some(timeout_at(until, self.desk.turn(id)).await.map_err(too_late)?),
            None => None,
        };
        if let Some(id) = &claim_id {
            self.store.waited(until.into());
            // Apart, since every claim that waits carries the room of its largest step.
            let look = Box::pin(self.claimed_before(scope, id, self.store.deadline()));
            if let Some(held) = look.await? {
                let mut handout = Handout::of(held, turn, self);
                handout.repeated = true;
                return Ok(handout);
            }
        }
        let (reply, answer) = oneshot::channel();
        let (looked, has_looked) = oneshot::channel();
        let waiter = Waiter {
            limit: claim.limit.unwrap_or(1) as usize,
            worker_id: claim.worker_id,
            lease_seconds: claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
            claim_id,
            turn,
            waits: !wait.is_zero(),
            looked: Some(looked),
            until: until.into(),
            reply,
        };
        let selection = Selection {
            scope: Scope { task_types: None, ..scope.clone() },
            task_types: sorted(claim.task_types),
            tags: claim.tags.as_ref().map(TaskRecord::stored_tags).unwrap_or_default(),
        };
        // Its answer is on its way by then.
        let until = until + GRACE;
        let (mut seat, unserved) = self.desk.join(&selection, waiter, answer);
        if let Some(group) = unserved {
            let service = Arc::clone(self);
            self.background.spawn_on(async move { service.serve_safely(group).await }, &self.runtime);
        }
        let answer = seat.answer();
        if wait.is_zero() {
            let answered = timeout_at(until, answer).await.map_err(too_late)?;
            return answered.unwrap_or(Err(StoreError::Unavailable)).map_err(Failure::from);
        }
        let time_is_up = async {
            tokio::time::sleep_until(end).await;
            // However short the wait: what is ready now is found. Dropped counts as told.
            timeout_at(until, has_looked).await.is_ok()
        };
        let nothing = || Ok(Handout::of(Vec::new(), None, self));
        let has_looked = tokio::select! {
            answered = &mut *answer => {
                return answered.unwrap_or_else(|_| nothing()).map_err(Failure::from);
            }
            has_looked = time_is_up => has_looked,
            () = self.draining.cancelled() => true,
        };
        // Time is up. What was claimed just now still counts; nothing can come after this.
        answer.close();
        let unanswered = |_| if has_looked { nothing() } else { Err(StoreError::Unavailable) };
        answer.try_recv().unwrap_or_else(unanswered).map_err(Failure::from)
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
    pub async fn claim_one(
        self: &Arc<Self>,
        scope: &Scope,
        id: Uuid,
        claim: ClaimOne,
    ) -> Result<Handout, Failure> {
        let seconds = claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok());
        let grant = grant(&claim.worker_id, seconds, None);
        let withdrawal = withdrawal(&scope.tenant, id, grant.token);
        let change = Change { scope: scope.clone(), id, intent: Intent::Claim(grant) };
        let (service, until) = (Arc::clone(self), self.store.deadline());
        // The write goes on when the caller goes away. So does what follows it: the lease then goes back.
        let claiming = async move {
            let mut results = service.store.apply_by(vec![change], until).await;
            let result = results.pop().unwrap_or(Err(Refused::Store(StoreError::OutcomeUnknown)));
            match result {
                Ok(applied) => {
                    metrics::counter!("task_repo_tasks_claimed_total").increment(1);
                    Ok(Handout::of(vec![Arc::unwrap_or_clone(applied.task)], None, &service))
                }
                Err(refused) => {
                    if refused == Refused::Store(StoreError::OutcomeUnknown) {
                        let back = Arc::clone(&service);
                        let give_back = async move { back.withdraw(vec![withdrawal], Instant::now()).await };
                        service.background.spawn_on(give_back, &service.runtime);
                    }
                    Err(Failure::of(id, Verb::Claim, &refused))
                }
            }
        };
        let claiming = self.background.spawn_on(claiming, &self.runtime);
        claiming.await.unwrap_or(Err(Failure::Store(StoreError::OutcomeUnknown)))
    }

    /// What a claim with that id took before, if it did: what is still held by it.
    async fn claimed_before(
        &self,
        scope: &Scope,
        claim_id: &[u8],
        until: Instant,
    ) -> Result<Option<Vec<TaskRecord>>, Failure> {
        let since = self.store.clock().now() - REMEMBERED;
        let mut known = false;
        let mut held = Vec::new();
        for task in self.store.claimed_by(scope, claim_id, until).await? {
            let by_this = |attempt: &&Kept<AttemptRecord>| {
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
        held.sort_by(|one, other| {
            Order::Claim.compare(&Order::Claim.position(one), &Order::Claim.position(other))
        });
        let held = self.keep(held, until).await?;
        Ok(known.then_some(held))
    }

    /// Of these tasks, those that are still leased as they were read, with their payloads. From now on they do not go
    /// back with an earlier answer that may have been lost.
    async fn keep(&self, held: Vec<TaskRecord>, until: Instant) -> Result<Vec<TaskRecord>, Failure> {
        let change = |task: &TaskRecord| {
            let token = task.lease.as_ref()?.token;
            let scope = Scope::tenant(&task.tenant);
            Some(Change { scope, id: task.id, intent: Intent::Repeat { token } })
        };
        let changes: Vec<_> = held.iter().filter_map(change).collect();
        if changes.is_empty() {
            return Ok(held);
        }
        let wants: Vec<_> =
            changes.iter().map(|change| Want { scope: change.scope.clone(), id: change.id }).collect();
        let results = self.store.apply_by(changes, until).await;
        let read = timeout_at(until.into(), self.store.get(&wants, true)).await;
        let payloads = read.map_err(|_| StoreError::Unavailable)??.into_iter();
        let mut kept = Vec::with_capacity(held.len());
        for ((mut task, result), payload) in held.into_iter().zip(results).zip(payloads) {
            match result {
                Ok(_) => {
                    // Deleted since then, or not to be read, it is not to be worked on.
                    let Ok(Some(mut read)) = payload else { continue };
                    task.put_payload(read.take_payload());
                    kept.push(task);
                }
                Err(Refused::Store(error)) if error != StoreError::Unreadable => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(kept)
    }

    /// Puts back what was claimed for a caller that has gone away, until the database has said what became of it. A task
    /// that is not there may still come until then.
    pub(super) async fn give_back(&self, tasks: Vec<TaskRecord>, comes_until: Instant) {
        let withdrawal =
            |task: &TaskRecord| Some(withdrawal(&task.tenant, task.id, task.lease.as_ref()?.token));
        self.withdraw(tasks.iter().filter_map(withdrawal).collect(), comes_until).await;
    }

    /// The same by the changes that do it.
    async fn withdraw(&self, mut changes: Vec<Change>, comes_until: Instant) {
        metrics::counter!("task_repo_claims_given_back_total").increment(changes.len() as u64);
        loop {
            let results = self.store.apply(changes.clone()).await;
            let mut in_doubt = Vec::new();
            for (change, result) in changes.into_iter().zip(results) {
                match result {
                    Ok(_) | Err(Refused::Store(StoreError::Unreadable)) => {}
                    Err(Refused::Store(_)) => in_doubt.push(change),
                    Err(Refused::Missing) if Instant::now() < comes_until => in_doubt.push(change),
                    // It was never claimed, or is not held any more.
                    Err(Refused::Missing | Refused::Task(_)) => {}
                }
            }
            changes = in_doubt;
            if changes.is_empty() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                // Their leases will run out.
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// Makes one change.
    pub(super) async fn change(&self, scope: &Scope, id: Uuid, intent: Intent) -> Result<Applied, Failure> {
        let verb = intent.verb();
        let change = Change { scope: scope.clone(), id, intent };
        let mut results = self.store.apply(vec![change]).await;
        let result = results.pop().unwrap_or(Err(Refused::Store(StoreError::OutcomeUnknown)));
        result.map_err(|refused| Failure::of(id, verb, &refused))
    }
}

/// What undoes a claim that gave this token.
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

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// A claim id belongs to tenant and user.
fn claim_hash(scope: &Scope, id: Uuid) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [&*scope.tenant, scope.user.as_deref().unwrap_or_default()] {
        hash.update(part);
        hash.update(b"\0");
    }
    hash.update(id.as_bytes());
    hash.finalize()[..16].to_vec()
}
