//! Giving ready work to whoever asks, now or as soon as there is some. [`Dispatch`] is the one door.
//!
//! Callers who ask for the same selection are a claim group and share one claim round at a time: one read in claim order
//! and one guarded write serve them all, first come, first served. A caller that waits lives in memory and costs the
//! database nothing. A caller that has gone away is given nothing: what was claimed for it goes back at once.
//!
//! | file | what it does |
//! |---|---|
//! | [`gate`] | what may be given out now |
//! | [`group`] | claim groups, and which of them a task concerns |
//! | [`callers`] | the callers of a group in the order in which they came |
//! | [`round`] | claim rounds: one read and one write for all callers of a group |
//! | [`ready_cache`] | ready tasks that were read ahead |
//! | [`partition`] | several servers on one queue |
//! | [`handoff`] | tasks that are created as claimed |
//! | [`delivery`] | claimed tasks that their caller does not have yet |
//! | [`claim_id`], [`repeated_claim`] | one answer at a time for a claim id, and the same answer again |

mod callers;
mod claim_id;
mod delivery;
mod gate;
mod group;
mod handoff;
mod partition;
mod ready_cache;
mod repeated_claim;
mod round;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::claim::ClaimOne;
use task_repo_protocol::{Claim, Uuid};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::access::{Caller, Scope};
use crate::background::Background;
use crate::events::TaskEvent;
use crate::lifecycle::Intent;
use crate::store::{Awaited, Change, NotApplied, NotInserted, Selection, Store, StoreError};
use crate::task::{Status, TaskRecord};
use crate::task_types::KnownTypes;

use callers::WaitingCaller;
use claim_id::{ClaimIdLocks, claim_hash};
use delivery::{GiveBack, grant};
use gate::Gate;
use group::ClaimGroups;
use round::Rounds;

pub use delivery::Delivery;

/// How long after its deadline a claim's answer may take from the database to its caller.
const ANSWER_GRACE: Duration = Duration::from_millis(250);

/// Gives ready work to whoever asks.
pub struct Dispatch {
    store: Store,
    background: Background,
    groups: Arc<ClaimGroups>,
    gate: Arc<Gate>,
    claim_ids: ClaimIdLocks,
    give_back: GiveBack,
}

impl Dispatch {
    /// With nobody waiting. It hears from the store which tasks become ready on this server.
    pub fn new(store: Store, types: Arc<KnownTypes>, background: Background) -> Arc<Self> {
        let groups = Arc::<ClaimGroups>::default();
        let gate = Arc::new(Gate::new(types, Arc::clone(store.clock())));
        let (heard, asked) = (Arc::clone(&groups), Arc::clone(&gate));
        store.hub().subscribe(move |TaskEvent { before, task, .. }| {
            if task.status == Status::Pending && task.deleted_at.is_none() {
                match before {
                    _ if asked.is_closed(&task.tenant, &task.task_type) => heard.hold_back(task),
                    // Its payloads are at hand: a caller that waits need not read it.
                    None => heard.offer(task),
                    Some(_) => heard.ready_again(task),
                }
            }
        });
        let give_back = GiveBack::new(store.clone(), background.clone());
        let claim_ids = ClaimIdLocks::default();
        Arc::new(Self { store, background, groups, gate, claim_ids, give_back })
    }

    /// Claims up to the request's limit, waiting as long as it says for the first task.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, caller: &Caller, claim: Claim) -> Result<Delivery, StoreError> {
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0));
        let end = tokio::time::Instant::now() + wait;
        let until = tokio::time::Instant::from(caller.deadline.at()) + wait;
        let too_late = |_| StoreError::Unavailable;
        let claim_id = claim.claim_id.map(|id| claim_hash(&caller.scope, id));
        let lock = match &claim_id {
            Some(id) => Some(timeout_at(until, self.claim_ids.lock(id)).await.map_err(too_late)?),
            None => None,
        };
        if let Some(id) = &claim_id {
            let deadline = caller.deadline.renewed_until(until.into());
            // Boxed: else the future of each waiting claim is as large as this look-up (docs/decisions/0009).
            let held =
                Box::pin(repeated_claim::held_by(&self.store, &caller.scope, id, deadline.at())).await?;
            if let Some(held) = held {
                return Ok(Delivery::repeat(held, lock, &self.give_back));
            }
        }
        let (reply, answer) = oneshot::channel();
        let (considered, is_considered) = oneshot::channel();
        let waiting = WaitingCaller {
            limit: claim.limit.unwrap_or(1) as usize,
            worker_id: claim.worker_id,
            lease_seconds: claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
            claim_id,
            claim_id_lock: lock,
            waits: !wait.is_zero(),
            considered: Some(considered),
            until: until.into(),
            reply,
        };
        let selection = Selection {
            scope: Scope { task_types: None, ..caller.scope.clone() },
            task_types: sorted(claim.task_types),
            tags: claim.tags.as_ref().map(TaskRecord::stored_tags).unwrap_or_default(),
        };
        let until = until + ANSWER_GRACE;
        let (mut registration, unserved) = self.groups.join(&selection, waiting, answer);
        if let Some(group) = unserved {
            self.background.spawn(self.rounds().serve(group));
        }
        let answer = registration.answer();
        if wait.is_zero() {
            let answered = timeout_at(until, answer).await.map_err(too_late)?;
            return answered.unwrap_or(Err(StoreError::Unavailable));
        }
        let time_is_up = async {
            tokio::time::sleep_until(end).await;
            // However short the wait: what is ready now is found. Dropped counts as told.
            timeout_at(until, is_considered).await.is_ok()
        };
        let nothing = || Ok(Delivery::of(Vec::new(), None, &self.give_back));
        let is_considered = tokio::select! {
            answered = &mut *answer => {
                // Without an answer only where a defect has ended its round.
                return answered.unwrap_or(Err(StoreError::Unavailable));
            }
            is_considered = time_is_up => is_considered,
            () = self.background.draining() => true,
        };
        // Time is up. What was claimed just now still counts; nothing can come after this.
        answer.close();
        let unanswered = |_| if is_considered { nothing() } else { Err(StoreError::Unavailable) };
        answer.try_recv().unwrap_or_else(unanswered)
    }

    /// Claims one known task.
    ///
    /// # Errors
    /// When there is no such task or it is not pending.
    pub async fn claim_one(
        &self,
        caller: &Caller,
        id: Uuid,
        claim: ClaimOne,
    ) -> Result<Delivery, NotApplied> {
        let seconds = claim.lease_seconds.and_then(|seconds| u32::try_from(seconds).ok());
        let grant = grant(&claim.worker_id, seconds, None);
        let token = grant.token;
        let change = Change { scope: caller.scope.clone(), id, intent: Intent::Claim(grant) };
        let (store, give_back, until) = (self.store.clone(), self.give_back.clone(), caller.deadline.at());
        // The write goes on when the caller goes away. So does what follows it: the lease then goes back.
        let claiming = self.background.spawn(async move {
            let scope = change.scope.clone();
            let mut results = store.apply(vec![change], until).await;
            match results.pop().unwrap_or(Err(NotApplied::Store(StoreError::OutcomeUnknown))) {
                Ok(applied) => {
                    metrics::counter!("task_repo_tasks_claimed_total").increment(1);
                    Ok(Delivery::of(vec![Arc::unwrap_or_clone(applied.task)], None, &give_back))
                }
                Err(refused) => {
                    if refused == NotApplied::Store(StoreError::OutcomeUnknown) {
                        give_back.spawn_one(&scope, id, token);
                    }
                    Err(refused)
                }
            }
        });
        claiming.await.unwrap_or(Err(NotApplied::Store(StoreError::OutcomeUnknown)))
    }

    /// Inserts a task that is ready as claimed by the caller who is first in waiting for just such a one, when nothing else
    /// is ready for that caller. `None`: there is no such caller, and nothing was inserted.
    pub async fn hand_off(&self, draft: &TaskRecord, until: Instant) -> Option<Result<(), NotInserted>> {
        if self.gate.is_closed(&draft.tenant, &draft.task_type) {
            return None;
        }
        let caller = self.groups.dequeue_for(draft)?;
        let (store, give_back, draft) = (self.store.clone(), self.give_back.clone(), draft.clone());
        // It goes on when the creator goes away: the caller who waits is there all the same.
        let inserting = self
            .background
            .spawn(async move { handoff::insert_claimed(&store, &give_back, caller, draft).await });
        let inserted = timeout_at(until.into(), inserting).await;
        let unknown = Err(NotInserted::Store(StoreError::OutcomeUnknown));
        Some(inserted.map_or(unknown, |inserted| inserted.unwrap_or(unknown)))
    }

    /// Every caller that waits is looked for again, and answered if the server is about to stop.
    pub fn wake_all(&self) {
        self.groups.wake_all();
    }

    /// Work of that type is ready: callers that wait for any of it are looked for again.
    pub fn wake_type(&self, tenant: &str, task_type: &str) {
        self.groups.wake_type(tenant, task_type);
    }

    /// Work of that type may be given out again: callers that wait for any of it, or for some, are looked for again.
    pub fn resumed(&self, tenant: &str, task_type: &str) {
        self.groups.resumed(tenant, task_type);
    }

    /// A task is ready that another server has made so: callers that wait for such a one are looked for again.
    pub fn wake_for(&self, task: &TaskRecord) {
        self.groups.wake_for(task);
    }

    /// What callers wait for that may be given out, by tenant, each thing once.
    pub fn awaited(&self) -> HashMap<Arc<str>, Awaited> {
        self.groups.awaited(&self.gate)
    }

    /// How many claims wait for work.
    pub fn waiting(&self) -> usize {
        self.groups.waiting()
    }

    /// How many claims wait for work of that type after a read that found none for them.
    pub fn idle(&self, task_type: &str) -> usize {
        self.groups.idle(task_type)
    }

    fn rounds(&self) -> Rounds {
        Rounds::new(
            self.store.clone(),
            Arc::clone(&self.groups),
            Arc::clone(&self.gate),
            self.give_back.clone(),
        )
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}
