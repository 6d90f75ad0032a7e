//! The loops beside the requests: the sweeper takes back what ran out, the promoter moves what is due, the waker
//! looks for what other servers did.
//!
//! Every server may run all of them: each step is a guarded update, so doing it twice changes nothing. A database
//! that does not answer makes a round fail, not the loop.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use task_repo_protocol::Uuid;
use task_repo_protocol::system::BackgroundJob;
use tokio::sync::Notify;

use super::TaskService;
use super::upkeep::ASK;
use crate::access::Scope;
use crate::lifecycle::{Intent, Refusal};
use crate::store::{Awaited, Change, DuePage, DueTask, Outage, Refused, Selection, StoreError};

/// How many tasks are looked for and moved together.
const ROUND: usize = 500;
/// How many tenants are looked at together.
const PARALLEL_LOOKS: usize = 8;
/// How many kinds of callers who take only some work one look is for.
const LOOKED_FOR_TOGETHER: usize = 500;
/// How many more looks a tenant gets for those whose work may be hidden by what nobody takes.
const LONE_LOOKS: usize = 16;
/// How often the sweeper makes sure that leases can be renewed.
const PULSE: Duration = Duration::from_millis(500);
/// A gap between two such times that says that servers or the database stood still.
const STALL: Duration = Duration::from_secs(2);
/// How often the promoter looks for what other servers scheduled.
const PROMOTE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a loop waits after a round that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// A job that has not finished a round for so long, and two pauses, is failing.
const OVERDUE: Duration = Duration::from_secs(15);

/// When the promoter looks next.
pub(super) struct DueAlarm {
    at: Mutex<DateTime<Utc>>,
    changed: Notify,
}

impl Default for DueAlarm {
    fn default() -> Self {
        Self { at: Mutex::new(DateTime::<Utc>::MAX_UTC), changed: Notify::new() }
    }
}

impl DueAlarm {
    /// A task is due then. Who sleeps is woken only if it would look later than that.
    pub(super) fn set(&self, time: DateTime<Utc>) {
        let mut at = self.lock();
        if time < *at {
            *at = time;
            self.changed.notify_one();
        }
    }

    /// A look begins. It may not find what is scheduled from here on.
    fn begin(&self) {
        *self.lock() = DateTime::<Utc>::MAX_UTC;
    }

    /// The next look is at that time, or earlier for what was scheduled since this one began.
    fn plan(&self, next: DateTime<Utc>) {
        let mut at = self.lock();
        *at = next.min(*at);
    }

    fn at(&self) -> DateTime<Utc> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, DateTime<Utc>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When leases were known to be renewed for the last time, and when they could not be.
pub(super) type Pulse = Mutex<Option<(Instant, Option<Outage>)>>;

/// What became of due tasks.
#[derive(Default)]
struct Moved {
    /// Those that are not due any more.
    gone: HashSet<Uuid>,
    /// How late it was for the oldest that was moved.
    lag: Duration,
    /// Why some could not be moved, if that was the database's doing.
    failure: Option<StoreError>,
}

/// How the loops are doing.
#[derive(Default)]
pub(super) struct Jobs {
    last: Mutex<BTreeMap<&'static str, Round>>,
}

#[derive(Clone, Copy, Default)]
struct Round {
    took: Option<Duration>,
    lag: Duration,
    succeeded: Option<Instant>,
    failed: bool,
    /// The pause before the next round.
    pause: Duration,
}

impl Jobs {
    fn report(
        &self,
        name: &'static str,
        began: Instant,
        pause: Duration,
        result: Result<Duration, StoreError>,
    ) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let round = last.entry(name).or_default();
        round.took = Some(began.elapsed());
        round.failed = result.is_err();
        round.pause = pause;
        if let Ok(lag) = result {
            round.lag = lag;
            round.succeeded = Some(Instant::now());
            metrics::gauge!("task_repo_background_lag_seconds", "job" => name).set(lag.as_secs_f64());
        } else {
            metrics::counter!("task_repo_background_failures_total", "job" => name).increment(1);
        }
    }

    fn state(&self) -> BTreeMap<String, BackgroundJob> {
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter()
            .map(|(name, round)| {
                let ago = round.succeeded.map(|at| at.elapsed());
                let status = match ago {
                    _ if round.failed => "failing",
                    None => "starting",
                    Some(ago) if ago > OVERDUE + 2 * round.pause => "failing",
                    Some(_) => "healthy",
                };
                let job = BackgroundJob {
                    status: status.to_owned(),
                    latency_ms: round.took.map(millis),
                    lag_ms: Some(millis(round.lag)),
                    last_success_ms_ago: ago.map(millis),
                };
                ((*name).to_owned(), job)
            })
            .collect()
    }
}

impl TaskService {
    /// How the background loops are doing, by name.
    pub fn background_jobs(&self) -> BTreeMap<String, BackgroundJob> {
        self.jobs.state()
    }

    /// How many claims wait for work.
    pub fn waiting_claims(&self) -> usize {
        self.desk.waiting()
    }

    /// Starts the loops; they end with [`TaskService::stop`].
    pub fn run_background(self: &Arc<Self>) {
        let wake = Duration::from_millis(self.settings.wake_interval_ms);
        let sweep = Duration::from_millis(self.settings.sweep_interval_ms);
        self.spawn_loop("sweeper", move |service| async move { (service.sweep().await, sweep) });
        let retain = Duration::from_millis(self.settings.retention_interval_ms);
        self.spawn_loop("registry", move |service| async move { (service.keep_up().await, ASK) });
        self.spawn_loop("retention", move |service| async move { (service.retain().await, retain) });
        self.spawn_loop("waker", move |service| async move { (service.wake_waiting().await, wake) });
        let service = Arc::clone(self);
        self.background.spawn(async move { service.promote_until_stopped().await });
    }

    fn spawn_loop<F, R>(self: &Arc<Self>, name: &'static str, round: F)
    where
        F: Fn(Arc<Self>) -> R + Send + 'static,
        R: Future<Output = (Result<Duration, StoreError>, Duration)> + Send,
    {
        let service = Arc::clone(self);
        self.background.spawn(async move {
            loop {
                let began = Instant::now();
                let (result, pause) = round(Arc::clone(&service)).await;
                let pause = if result.is_ok() { pause } else { PAUSE };
                service.jobs.report(name, began, pause, result);
                tokio::select! {
                    () = service.store.clock().sleep(pause) => {}
                    () = service.stopping.cancelled() => return,
                }
            }
        });
    }

    /// Takes back leases and attempts that ran out; says how late it was for the oldest.
    async fn sweep(&self) -> Result<Duration, StoreError> {
        let (mut lag, mut page, mut failure) = (Duration::ZERO, DuePage::default(), None);
        loop {
            let found = self.store.expired(&page, ROUND).await?;
            let mut expired = found.tasks.clone();
            // Only now: what ran out while the look waited for the database must not be taken either.
            if let Some(outage) = self.last_outage().await? {
                let now = self.store.clock().now();
                expired.retain(|task| outage.holds_until(task.lease_seconds) <= now);
            }
            let jitter = || Intent::Expire { jitter: rand::rng().random_range(-1.0..=1.0) };
            let moved = self.move_due(&expired, jitter).await;
            lag = lag.max(moved.lag);
            failure = moved.failure.or(failure);
            page = page.behind(&found, |id| !moved.gone.contains(&id));
            if !found.is_full || self.stopping.is_cancelled() {
                return failure.map_or(Ok(lag), Err);
            }
        }
    }

    /// When heartbeats could not be heard for the last time, as of a moment ago.
    async fn last_outage(&self) -> Result<Option<Outage>, StoreError> {
        let known = self.pulse.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let heard_at = known.as_ref().map(|(at, _)| *at);
        let clock = self.store.clock();
        let silence = || heard_at.map_or(Duration::ZERO, |at| clock.since(at));
        if let Some((at, outage)) = &known
            && clock.since(*at) < PULSE
        {
            return Ok(outage.clone());
        }
        let silent = silence();
        let mut outage = self.store.pulse(silent, STALL).await?;
        if silence().saturating_sub(silent) > PULSE {
            // The write itself had to wait for the database: it speaks of the time when it was sent.
            outage = self.store.pulse(silence(), STALL).await?;
        }
        let before = known.and_then(|(_, outage)| outage);
        if let Some(new) = outage.as_ref().filter(|new| before.as_ref() != Some(new)) {
            let seconds = new.lasted.as_seconds_f64();
            if self.store.any_lease().await.unwrap_or(true) {
                tracing::warn!(
                    seconds,
                    "for so long no worker's heartbeat could be heard; leases of then hold longer by that, each by its \
                     own length at most, so that no worker loses its task for it"
                );
            } else {
                tracing::info!(
                    seconds,
                    "for so long no worker's heartbeat could be heard; no task was leased"
                );
            }
        }
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock.instant(), outage.clone()));
        Ok(outage)
    }

    async fn promote_until_stopped(&self) {
        let clock = self.store.clock();
        loop {
            self.due.begin();
            let began = Instant::now();
            let result = self.promote().await;
            let next = result.as_ref().ok().map(|(_, next)| *next);
            self.jobs.report("promoter", began, PROMOTE_INTERVAL, result.map(|(lag, _)| lag));
            if let Some(next) = next {
                self.due.plan(next);
            } else {
                // No alarm counts now: it would have a database asked again at once that has just failed.
                self.due.begin();
                self.due.plan(clock.now() + PAUSE);
            }
            loop {
                let rest = clock.until(self.due.at());
                if rest.is_zero() {
                    break;
                }
                tokio::select! {
                    () = clock.sleep(rest) => {}
                    () = self.due.changed.notified() => {}
                    () = self.stopping.cancelled() => return,
                }
            }
        }
    }

    /// Moves what is due; says how late it was for the oldest, and when to look again.
    async fn promote(&self) -> Result<(Duration, DateTime<Utc>), StoreError> {
        let (mut lag, mut page, mut failure) = (Duration::ZERO, DuePage::default(), None);
        loop {
            // As far as the next look; what is due later is not read before.
            let until = self.store.clock().now() + PROMOTE_INTERVAL;
            let found = self.store.scheduled(until, &page, ROUND).await?;
            let now = self.store.clock().now();
            let (due, later): (Vec<_>, Vec<_>) = found.tasks.iter().cloned().partition(|task| task.at <= now);
            let moved = self.move_due(&due, || Intent::Promote).await;
            lag = lag.max(moved.lag);
            failure = moved.failure.or(failure);
            page = page.behind(&found, |id| !moved.gone.contains(&id));
            if !found.is_full || !later.is_empty() || self.stopping.is_cancelled() {
                let next = later.first().map_or(until, |task| task.at);
                return failure.map_or(Ok((lag, next)), Err);
            }
        }
    }

    /// Moves each of them that can be moved. One that cannot does not keep the others from it.
    async fn move_due(&self, due: &[DueTask], intent: impl Fn() -> Intent) -> Moved {
        let mut moved = Moved::default();
        if due.is_empty() {
            return moved;
        }
        let began = self.store.clock().now();
        let changes = due
            .iter()
            .map(|task| Change { scope: Scope::tenant(&task.tenant), id: task.id, intent: intent() })
            .collect();
        for (task, applied) in due.iter().zip(self.store.apply(changes).await) {
            match applied {
                Ok(_) => {
                    moved.lag = moved.lag.max((began - task.at).to_std().unwrap_or_default());
                    moved.gone.insert(task.id);
                }
                // One that cannot be read would fail for ever, unlike a database that does not answer.
                Err(Refused::Store(StoreError::Unreadable) | Refused::Task(Refusal::NotDue)) => {}
                Err(Refused::Store(error)) => moved.failure = Some(error),
                // Another server, its worker or its owner was faster.
                Err(Refused::Missing | Refused::Task(_)) => drop(moved.gone.insert(task.id)),
            }
        }
        moved
    }

    /// Looks for ready work of a tenant that somebody here waits for.
    async fn look(&self, tenant: Arc<str>, awaited: Awaited) -> Result<(), StoreError> {
        let task_types: Vec<_> = awaited.task_types.iter().cloned().collect();
        for types in task_types.chunks(100) {
            for ready in self.store.ready_types(&tenant, types).await? {
                self.desk.wake_type(&tenant, &ready);
            }
        }
        let (own, tagged): (Vec<_>, Vec<_>) =
            awaited.narrow.iter().partition(|wanted| wanted.scope.user.is_some());
        let mut hidden = Vec::new();
        for wanted in own.chunks(LOOKED_FOR_TOGETHER).chain(tagged.chunks(LOOKED_FOR_TOGETHER)) {
            let ready = self.store.ready_for_any(&tenant, wanted).await?;
            if ready.is_cut {
                let found = |wanted: &Selection| ready.tasks.iter().any(|task| wanted.takes(task));
                hidden.extend(wanted.iter().filter(|wanted| !found(wanted)));
            }
            ready.tasks.iter().for_each(|task| self.desk.wake(task));
        }
        // What nobody here takes filled the answer, and may hide work of others: some of them are looked for one by one.
        let some: Vec<_> = hidden.sample(&mut rand::rng(), LONE_LOOKS).copied().collect();
        for wanted in some {
            let ready = self.store.ready_for_any(&tenant, &[wanted]).await?;
            ready.tasks.iter().for_each(|task| self.desk.wake(task));
        }
        Ok(())
    }

    /// One look for all who wait here, whatever their number: at work that other servers made ready, and at tasks
    /// that ended on other servers.
    async fn wake_waiting(&self) -> Result<Duration, StoreError> {
        let looks = self.desk.awaited().into_iter().map(|(tenant, awaited)| self.look(tenant, awaited));
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(PARALLEL_LOOKS).collect().await;
        let watched = self.watch.watched();
        for ids in watched.chunks(1000) {
            let unfinished = self.store.unfinished(ids).await?;
            ids.iter().filter(|id| !unfinished.contains(id)).for_each(|id| self.watch.finished(*id));
        }
        metrics::gauge!("task_repo_waiting_claims")
            .set(u32::try_from(self.desk.waiting()).unwrap_or(u32::MAX));
        // Only now: a look that failed is one tenant's.
        looks.into_iter().collect::<Result<(), _>>().map(|()| Duration::ZERO)
    }
}
