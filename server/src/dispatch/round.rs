//! Claim rounds: one read and one guarded write for all callers who ask for the same.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rand::RngExt as _;
use task_repo_protocol::{Priority, Uuid};

use super::delivery::GiveBack;
use super::gate::Gate;
use super::group::{ClaimGroup, ClaimGroups, DequeuedCaller};
use super::ready_cache::MAX_TASKS_PER_READ;
use crate::store::{ReadyFrom, Store, StoreError};
use crate::task::TaskRecord;

/// A caller with less time left is not served: its part would only cut the time of the others short.
const MIN_TIME_LEFT: Duration = Duration::from_millis(10);
/// How long a group without callers is kept. A worker that has got tasks asks for more within that time, and finds what
/// was read ahead for it.
const EMPTY_GROUP_KEPT: Duration = Duration::from_millis(250);
/// Most bytes of tasks in one answer; the first comes whatever its size.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// After this many passes in a row that claimed nothing, because other servers were faster, the round ends. Callers that
/// wait are tried again at the waker's next tick.
const MAX_MISSED_PASSES: u32 = 12;

/// A caller, and what it has been given in this round.
struct ServedCaller {
    caller: DequeuedCaller,
    tasks: Vec<TaskRecord>,
    bytes: usize,
    /// Why its claims were not written, if they were not.
    failed: Option<StoreError>,
}

impl ServedCaller {
    fn of(caller: DequeuedCaller) -> Self {
        let mut served = Self { caller, tasks: Vec::new(), bytes: 0, failed: None };
        served.check_time_left();
        served
    }

    fn check_time_left(&mut self) {
        if self.caller.waiting.until < Instant::now() + MIN_TIME_LEFT {
            self.failed.get_or_insert(StoreError::Unavailable);
        }
    }

    /// How many more tasks it may be given.
    fn missing(&self) -> usize {
        let is_full = self.bytes >= MAX_ANSWER_BYTES || self.tasks.first().is_some_and(was_lost);
        if is_full { 0 } else { self.caller.waiting.limit - self.tasks.len() }
    }

    /// Whether nothing more is done for it: it is gone, too late, or has all it asked for.
    fn is_done(&mut self) -> bool {
        self.check_time_left();
        self.failed.is_some() || self.missing() == 0 || self.caller.waiting.reply.is_closed()
    }

    /// Answers it with what it was given or why it was given nothing, or has it wait on.
    fn end(self, give_back: &GiveBack) {
        match self.failed {
            Some(error) if self.tasks.is_empty() => self.caller.answer(Err(error), give_back),
            None if self.tasks.is_empty() => drop(self.caller.requeue()),
            _ => self.caller.answer(Ok(self.tasks), give_back),
        }
    }
}

/// Whether a worker was lost with this task before. The task may be what kills its workers, so it is claimed alone: no
/// other task shall be lost with it.
fn was_lost(task: &TaskRecord) -> bool {
    task.losses > 0
}

/// Pairs tasks with callers, in the order of both. A task that was lost before goes only to a caller without tasks. The
/// second value is the tasks left over.
fn assign(tasks: Vec<TaskRecord>, served: &[ServedCaller]) -> (Vec<(TaskRecord, usize)>, Vec<TaskRecord>) {
    let mut missing: Vec<_> = served.iter().map(ServedCaller::missing).collect();
    let mut has_none: Vec<_> = served.iter().map(|it| it.tasks.is_empty()).collect();
    let (mut assigned, mut left) = (Vec::with_capacity(tasks.len()), Vec::new());
    let mut next = 0;
    for task in tasks {
        let alone = was_lost(&task);
        while next < missing.len() && missing[next] == 0 {
            next += 1;
        }
        let owner = if alone {
            (next..missing.len()).find(|owner| has_none[*owner] && missing[*owner] > 0)
        } else {
            Some(next).filter(|owner| *owner < missing.len())
        };
        let Some(owner) = owner else {
            left.push(task);
            continue;
        };
        missing[owner] = if alone { 0 } else { missing[owner] - 1 };
        has_none[owner] = false;
        assigned.push((task, owner));
    }
    (assigned, left)
}

/// Of the leases whose write has an unknown outcome, those that no caller would ever ask for again. A caller that is told
/// nothing else repeats its claim id, and then has them.
fn unclaimed(
    in_doubt: Vec<TaskRecord>,
    owners: &HashMap<Uuid, usize>,
    served: &[ServedCaller],
) -> Vec<TaskRecord> {
    let is_asked_for_again = |task: &TaskRecord| {
        let owner = task.lease.as_ref().and_then(|lease| owners.get(&lease.token));
        owner.is_some_and(|owner| {
            let ServedCaller { caller, tasks, .. } = &served[*owner];
            caller.waiting.claim_id.is_some() && tasks.is_empty() && !caller.waiting.reply.is_closed()
        })
    };
    in_doubt.into_iter().filter(|task| !is_asked_for_again(task)).collect()
}

/// The result of one pass over the ready work.
enum Pass {
    /// There may be more.
    Again,
    /// Other servers took every task first.
    AllMissed,
    /// Nothing more is ready.
    Empty,
    /// The database does not say what is ready.
    Failed(StoreError),
}

/// Serves claim groups.
pub(super) struct Rounds {
    store: Store,
    groups: Arc<ClaimGroups>,
    gate: Arc<Gate>,
    give_back: GiveBack,
}

impl Rounds {
    pub(super) fn new(store: Store, groups: Arc<ClaimGroups>, gate: Arc<Gate>, give_back: GiveBack) -> Self {
        Self { store, groups, gate, give_back }
    }

    /// Serves a group until nobody waits in it any more, nor comes back soon. A defect that ends this early ends the calls
    /// that wait in the group, not those to come.
    pub(super) async fn serve(self, group: Arc<ClaimGroup>) {
        let serving = AssertUnwindSafe(self.serve_until_over(&group));
        if serving.catch_unwind().await.is_err() {
            tracing::error!("claims were answered with an error because of a defect");
            self.groups.abandon(&group);
        }
    }

    async fn serve_until_over(&self, group: &Arc<ClaimGroup>) {
        loop {
            if group.callers.lock().is_empty() {
                let is_over = tokio::select! {
                    () = group.changed() => false,
                    () = tokio::time::sleep(EMPTY_GROUP_KEPT) => true,
                    () = self.give_back.stopping() => return,
                };
                if is_over && self.groups.leave(group) {
                    return;
                }
            } else if group.take_round_request() {
                self.round(group).await;
            } else {
                tokio::select! {
                    () = group.changed() => {}
                    () = self.give_back.stopping() => return,
                }
            }
        }
    }

    /// One round for all callers that wait: claims until each has what it asked for or nothing is ready. Callers that came
    /// first are served first, as many at once as one read serves.
    async fn round(&self, group: &Arc<ClaimGroup>) {
        let before = group.callers.lock().next();
        let mut served: Vec<ServedCaller> = Vec::new();
        let mut missed_passes = 0;
        let failed = loop {
            // A caller that has all it asked for does not wait for the others.
            served.extract_if(.., ServedCaller::is_done).for_each(|it| it.end(&self.give_back));
            let mut wanted: usize = served.iter().map(ServedCaller::missing).sum();
            while wanted < MAX_TASKS_PER_READ
                && let Some(caller) = group.dequeue_first(before)
            {
                let it = ServedCaller::of(caller);
                if it.failed.is_some() {
                    it.end(&self.give_back);
                } else {
                    wanted += it.missing();
                    served.push(it);
                }
            }
            if served.is_empty() {
                break None;
            }
            match self.pass(group, &mut served, missed_passes).await {
                Pass::Again => missed_passes = 0,
                Pass::AllMissed if missed_passes < MAX_MISSED_PASSES => {
                    missed_passes += 1;
                    // Two servers that read the same tasks at the same time would go on missing them in turn.
                    let pause = rand::rng().random_range(0..u64::from(2 * missed_passes));
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Pass::AllMissed | Pass::Empty => break None,
                Pass::Failed(error) => break Some(error),
            }
        };
        for mut it in served {
            it.failed = it.failed.or(failed);
            it.end(&self.give_back);
        }
        let mut callers = group.callers.lock();
        let (done, answer) = match failed {
            None => (callers.found_nothing(before), Ok(())),
            Some(error) => (callers.leave(before), Err(error)),
        };
        drop(callers);
        for caller in done {
            caller.answer(answer.map(|()| Vec::new()), &self.give_back);
        }
    }

    /// Takes ready work from the cache, or reads it, and leases it to the callers in order.
    async fn pass(&self, group: &ClaimGroup, served: &mut [ServedCaller], missed_passes: u32) -> Pass {
        let wanted = served.iter().map(ServedCaller::missing).sum::<usize>().min(MAX_TASKS_PER_READ);
        let selection = self.gate.open(&group.selection);
        let (mut tasks, knows_everything) = {
            let mut cache = group.ready.lock();
            cache.limit_to(&selection.task_types);
            if selection.task_types.is_empty() {
                return Pass::Empty;
            }
            (cache.take(wanted), cache.knows_everything())
        };
        let mut is_all = false;
        let mut has_read_front = false;
        if tasks.len() < wanted && (group.take_read_request() || !knows_everything) {
            // Where other servers are faster, read further.
            let missing = ((wanted - tasks.len()) << missed_passes.min(6)).min(MAX_TASKS_PER_READ);
            let (from, limit) = group.ready.lock().next_read(&selection, missing, tasks.len());
            let ready = match self.store.ready(&selection, from, limit).await {
                Ok(ready) => ready,
                Err(error) => {
                    group.ready.lock().forget();
                    return Pass::Failed(error);
                }
            };
            has_read_front = from == ReadyFrom::Front;
            is_all = has_read_front && ready.tasks.len() < limit && !ready.is_cut;
            if has_read_front {
                // They are among what was found, if they are still ready.
                tasks.clear();
            }
            let mut cache = group.ready.lock();
            cache.add(from, limit, ready);
            tasks.extend(cache.take(wanted - tasks.len()));
            if tasks.is_empty() && from != ReadyFrom::Front {
                return Pass::Again;
            }
        }
        let Some(first) = tasks.first() else { return Pass::Empty };
        let priority = first.priority;
        // What was read ahead must not keep new work of higher priority waiting for more than one round.
        let read_above = async {
            let is_ahead = group.ready.lock().is_ahead();
            if has_read_front || !is_ahead || priority >= i32::from(Priority::CRITICAL.get()) {
                return;
            }
            if let Ok(above) = self.store.ready(&selection, ReadyFrom::Above(priority), wanted).await {
                group.ready.lock().add_before(above.tasks);
            }
        };
        let (assigned, left) = assign(tasks, served);
        let is_left = !left.is_empty();
        if is_left {
            group.ready.lock().add_before(left);
            // A caller that waits beyond those of this round may have no task yet.
            group.request_round();
        }
        if assigned.is_empty() {
            return Pass::Empty;
        }
        // All tasks of a caller get the same stored token, so that the database is told it once (docs/decisions/0011).
        let grants: Vec<_> = served.iter().map(|it| it.caller.waiting.grant()).collect();
        let owners: HashMap<_, _> = grants.iter().map(|grant| grant.token).zip(0..).collect();
        let owners_of: Vec<_> = assigned.iter().map(|(_, owner)| *owner).collect();
        let picks: Vec<_> = assigned.into_iter().map(|(task, owner)| (task, grants[owner].clone())).collect();
        let picked = picks.len();
        let until = served.iter().map(|it| it.caller.waiting.until).min().unwrap_or_else(Instant::now);
        let until = until.min(self.store.step_deadline());
        let (claimed, ()) = tokio::join!(self.store.claim(picks, until), read_above);
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                group.ready.lock().forget();
                // A caller that had no part in the write has lost nothing.
                for owner in owners_of {
                    served[owner].failed = Some(error);
                }
                return Pass::Again;
            }
        };
        let landed = claimed.tasks.len();
        metrics::counter!("task_repo_tasks_claimed_total").increment(landed as u64);
        for task in claimed.tasks {
            if let Some(owner) = task.lease.as_ref().and_then(|lease| owners.get(&lease.token)) {
                served[*owner].bytes += task.bytes();
                served[*owner].tasks.push(task);
            }
        }
        if !claimed.in_doubt.is_empty() {
            for task in &claimed.in_doubt {
                if let Some(owner) = task.lease.as_ref().and_then(|lease| owners.get(&lease.token)) {
                    served[*owner].failed = Some(StoreError::OutcomeUnknown);
                }
            }
            self.give_back.spawn(unclaimed(claimed.in_doubt, &owners, served), Instant::now());
            group.ready.lock().forget();
            return Pass::Again;
        }
        group.ready.lock().claimed(picked, landed);
        match landed {
            0 => Pass::AllMissed,
            _ if is_all && landed == picked && !is_left => Pass::Empty,
            _ => Pass::Again,
        }
    }
}
