//! Claim rounds: one read and one guarded write for all who ask for the same.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rand::RngExt as _;
use task_repo_protocol::{Priority, Uuid};

use super::TaskService;
use super::desk::{Group, Lent, lock};
use super::shelf::MAX_LOOK;
use crate::store::{ReadyFrom, StoreError};
use crate::task::TaskRecord;

/// A caller with less time left is not served.
const TIGHT: Duration = Duration::from_millis(10);
/// How long a group without callers is kept.
const LINGER: Duration = Duration::from_millis(250);
/// Most bytes of tasks in one answer; the first comes whatever its size.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// After how many rounds in a row in which others were faster with everything the callers wait for the next tick.
const MAX_FRUITLESS: u32 = 12;

/// A caller and what it has been given so far.
struct Served {
    caller: Lent,
    tasks: Vec<TaskRecord>,
    bytes: usize,
    /// What became of its part, if the database did not do it.
    failed: Option<StoreError>,
}

impl Served {
    fn of(caller: Lent) -> Self {
        let mut served = Self { caller, tasks: Vec::new(), bytes: 0, failed: None };
        served.look_at_the_clock();
        served
    }

    /// Who has so little time left that its part would only cut the others' short is too late.
    fn look_at_the_clock(&mut self) {
        if self.caller.waiter.until < Instant::now() + TIGHT {
            self.failed.get_or_insert(StoreError::Unavailable);
        }
    }

    fn missing(&self) -> usize {
        let is_full = self.bytes >= MAX_ANSWER_BYTES || self.tasks.first().is_some_and(is_suspect);
        if is_full { 0 } else { self.caller.waiter.limit - self.tasks.len() }
    }

    /// Nothing more is done for it: it is gone, too late, or has all it asked for.
    fn is_done(&mut self) -> bool {
        self.look_at_the_clock();
        self.failed.is_some() || self.missing() == 0 || self.caller.waiter.reply.is_closed()
    }

    /// It has what it was given, or hears why it was given nothing, or else waits on.
    fn end(self, service: &Arc<TaskService>) {
        match self.failed {
            Some(error) if self.tasks.is_empty() => self.caller.answer(Err(error), service),
            None if self.tasks.is_empty() => drop(self.caller.put_back()),
            _ => self.caller.answer(Ok(self.tasks), service),
        }
    }
}

/// Whether a worker was lost with it before. It may be the task that kills its workers, so it is handed out alone: no
/// other task shall be lost with it.
fn is_suspect(task: &TaskRecord) -> bool {
    task.losses > 0
}

/// Gives each task a caller, in the order of both: pairs of them, and the suspects that nobody has both hands free for.
fn assign(tasks: Vec<TaskRecord>, served: &[Served]) -> (Vec<(TaskRecord, usize)>, Vec<TaskRecord>) {
    let mut missing: Vec<_> = served.iter().map(Served::missing).collect();
    let mut is_free: Vec<_> = served.iter().map(|it| it.tasks.is_empty()).collect();
    let (mut assigned, mut left) = (Vec::with_capacity(tasks.len()), Vec::new());
    let mut next = 0;
    for task in tasks {
        let alone = is_suspect(&task);
        while next < missing.len() && missing[next] == 0 {
            next += 1;
        }
        let owner = if alone {
            (next..missing.len()).find(|owner| is_free[*owner] && missing[*owner] > 0)
        } else {
            Some(next).filter(|owner| *owner < missing.len())
        };
        let Some(owner) = owner else {
            left.push(task);
            continue;
        };
        missing[owner] = if alone { 0 } else { missing[owner] - 1 };
        is_free[owner] = false;
        assigned.push((task, owner));
    }
    (assigned, left)
}

/// Leases in doubt that nobody would ever know of. Who is told nothing but that they are in doubt asks again with its
/// claim id.
fn orphans(in_doubt: Vec<TaskRecord>, owners: &HashMap<Uuid, usize>, served: &[Served]) -> Vec<TaskRecord> {
    let asks_again = |task: &TaskRecord| {
        let owner = task.lease.as_ref().and_then(|lease| owners.get(&lease.token));
        owner.is_some_and(|owner| {
            let Served { caller, tasks, .. } = &served[*owner];
            caller.waiter.claim_id.is_some() && tasks.is_empty() && !caller.waiter.reply.is_closed()
        })
    };
    in_doubt.into_iter().filter(|task| !asks_again(task)).collect()
}

/// What one pass over the ready work came to.
enum Pass {
    /// There may be more.
    Again,
    /// Others were faster with all of it.
    Fruitless,
    /// Nothing more is ready.
    Empty,
    /// The database does not say what is ready.
    Failed(StoreError),
}

impl TaskService {
    /// [Serves](Self::serve) a group. A defect that ends that early ends the calls that wait there, not those to come.
    pub(super) async fn serve_safely(self: Arc<Self>, group: Arc<Group>) {
        let served = AssertUnwindSafe(Arc::clone(&self).serve(Arc::clone(&group))).catch_unwind().await;
        if served.is_err() {
            tracing::error!("claims were answered with an error because of a defect");
            self.desk.abandon(&group);
        }
    }

    /// Serves a group until nobody waits in it any more, nor comes back soon.
    async fn serve(self: Arc<Self>, group: Arc<Group>) {
        loop {
            if lock(&group.waiters).is_empty() {
                // Who has got work asks for more in a moment; what was read ahead for it is still there then.
                let is_over = tokio::select! {
                    () = group.changed() => false,
                    () = tokio::time::sleep(LINGER) => true,
                    () = self.stopping.cancelled() => return,
                };
                if is_over && self.desk.leave(&group) {
                    return;
                }
            } else if group.take_stir() {
                self.round(&group).await;
            } else {
                tokio::select! {
                    () = group.changed() => {}
                    () = self.stopping.cancelled() => return,
                }
            }
        }
    }

    /// One round for all who wait: claims until everybody has what was asked for or nothing is ready. Those who came
    /// first are served first, as many at once as one look serves.
    async fn round(self: &Arc<Self>, group: &Arc<Group>) {
        let until = lock(&group.waiters).next();
        let mut served: Vec<Served> = Vec::new();
        let mut fruitless = 0;
        let failed = loop {
            // Who has all it asked for does not wait for the others.
            served.extract_if(.., Served::is_done).for_each(|it| it.end(self));
            let mut wanted: usize = served.iter().map(Served::missing).sum();
            while wanted < MAX_LOOK
                && let Some(caller) = group.lend_first(until)
            {
                let it = Served::of(caller);
                if it.failed.is_some() {
                    it.end(self);
                } else {
                    wanted += it.missing();
                    served.push(it);
                }
            }
            if served.is_empty() {
                break None;
            }
            match self.pass(group, &mut served, fruitless).await {
                Pass::Again => fruitless = 0,
                Pass::Fruitless if fruitless < MAX_FRUITLESS => {
                    fruitless += 1;
                    // Servers that fight for the same tasks step apart.
                    let pause = rand::rng().random_range(0..u64::from(2 * fruitless));
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Pass::Fruitless | Pass::Empty => break None,
                Pass::Failed(error) => break Some(error),
            }
        };
        for mut it in served {
            it.failed = it.failed.or(failed);
            it.end(self);
        }
        let mut waiters = lock(&group.waiters);
        let (done, answer) = match failed {
            None => (waiters.found_nothing(until), Ok(())),
            Some(error) => (waiters.leave(until), Err(error)),
        };
        drop(waiters);
        for waiter in done {
            waiter.answer(answer.map(|()| Vec::new()), self);
        }
    }

    /// Takes ready work off the shelf, or looks for it, and leases it to the callers in order.
    async fn pass(self: &Arc<Self>, group: &Group, served: &mut [Served], fruitless: u32) -> Pass {
        let wanted = served.iter().map(Served::missing).sum::<usize>().min(MAX_LOOK);
        let (mut tasks, knows_everything) = {
            let mut ahead = lock(&group.shelf);
            (ahead.take(wanted), ahead.knows_everything())
        };
        let mut is_all = false;
        let mut has_looked = false;
        if tasks.len() < wanted && (group.take_look() || !knows_everything) {
            // Where others are faster, look further.
            let missing = ((wanted - tasks.len()) << fruitless.min(6)).min(MAX_LOOK);
            let (from, limit) = lock(&group.shelf).next_look(&group.selection, missing, tasks.len());
            let ready = match self.store.ready(&group.selection, from, limit).await {
                Ok(ready) => ready,
                Err(error) => {
                    lock(&group.shelf).forget();
                    return Pass::Failed(error);
                }
            };
            has_looked = from == ReadyFrom::Front;
            is_all = has_looked && ready.tasks.len() < limit && !ready.is_cut;
            if has_looked {
                // They are among what was found, if they are still there.
                tasks.clear();
            }
            let mut ahead = lock(&group.shelf);
            ahead.add(from, limit, ready);
            tasks.extend(ahead.take(wanted - tasks.len()));
            if tasks.is_empty() && from != ReadyFrom::Front {
                return Pass::Again;
            }
        }
        let Some(first) = tasks.first() else { return Pass::Empty };
        let priority = first.priority;
        // What is on the shelf must not keep new work of higher priority waiting for more than one round.
        let look_above = async {
            let is_ahead = lock(&group.shelf).is_ahead();
            if has_looked || !is_ahead || priority >= i32::from(Priority::CRITICAL.get()) {
                return;
            }
            if let Ok(above) = self.store.ready(&group.selection, ReadyFrom::Above(priority), wanted).await {
                lock(&group.shelf).add_before(above.tasks);
            }
        };
        let (assigned, left) = assign(tasks, served);
        let is_left = !left.is_empty();
        if is_left {
            lock(&group.shelf).add_before(left);
            // Who waits beyond those of this round may have both hands free.
            group.stir();
        }
        if assigned.is_empty() {
            return Pass::Empty;
        }
        // All tasks of a caller get the same, so that the database is told it once.
        let grants: Vec<_> = served.iter().map(|it| it.caller.waiter.grant()).collect();
        let owners: HashMap<_, _> = grants.iter().map(|grant| grant.token).zip(0..).collect();
        let owners_of: Vec<_> = assigned.iter().map(|(_, owner)| *owner).collect();
        let picks: Vec<_> = assigned.into_iter().map(|(task, owner)| (task, grants[owner].clone())).collect();
        let picked = picks.len();
        let until = served.iter().map(|it| it.caller.waiter.until).min().unwrap_or_else(Instant::now);
        let until = until.min(self.store.deadline());
        let (claimed, ()) = tokio::join!(self.store.claim(picks, until), look_above);
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                lock(&group.shelf).forget();
                // Who had no part in it has lost nothing.
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
            let orphans = orphans(claimed.in_doubt, &owners, served);
            let service = Arc::clone(self);
            self.background
                .spawn_on(async move { service.give_back(orphans, Instant::now()).await }, &self.runtime);
            lock(&group.shelf).forget();
            return Pass::Again;
        }
        lock(&group.shelf).claimed(picked, landed);
        match landed {
            0 => Pass::Fruitless,
            _ if is_all && landed == picked && !is_left => Pass::Empty,
            _ => Pass::Again,
        }
    }
}
