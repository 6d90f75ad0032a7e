//! One runner for all jobs: rounds, the pauses between them, and how each job is doing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use task_repo_protocol::system::BackgroundJob;
use tokio::time::Instant;

use super::alarm::Alarm;
use crate::background::Background;
use crate::clock::Clock;
use crate::store::StoreError;

/// How long a job waits after a round that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A job that has not finished a round for so long, and two pauses, is failing.
const OVERDUE: Duration = Duration::from_secs(15);
/// A round that has made no step for so long is failing.
const STANDS_STILL: Duration = Duration::from_secs(10);
/// A round that has made no step for so long, and as long as four calls to the database may take, is given up: no call of
/// it can still be under way.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// The result of a round.
pub(super) struct JobRound {
    /// How late it was for the oldest thing that was due, moved or not.
    pub(super) lag: Duration,
    /// How long until the next round.
    pub(super) pause: Duration,
    /// How many things are due and cannot be moved, because they cannot be read.
    pub(super) unmoved: u64,
}

impl JobRound {
    /// A round that was late for nothing.
    pub(super) fn done(pause: Duration) -> Self {
        Self { lag: Duration::ZERO, pause, unmoved: 0 }
    }
}

/// A background job.
pub(super) trait Job: Send + Sync + 'static {
    /// What it is called in health answers and metrics.
    const NAME: &'static str;

    /// Does one round. Every call to the store has a deadline of its own, so that no round waits for ever. A round of many
    /// calls tells of its steps between them. It may be dropped half-way.
    ///
    /// # Errors
    /// When the database did not do its part; the next round tries again.
    fn round(&self, steps: &Steps) -> impl Future<Output = Result<JobRound, StoreError>> + Send;
}

/// Why a round failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a defect has ended the round; the log has its place")]
    Defect,
    #[error("the round stood still and was given up")]
    StoodStill,
}

/// When the round of a job that is under way made its last step.
pub(super) struct Steps(Mutex<Option<Instant>>);

impl Steps {
    /// The round goes on.
    pub(super) fn step(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn end(&self) {
        *self.0.lock() = None;
    }

    /// For how long the round has made no step. `None`: none is under way.
    fn still_for(&self) -> Option<Duration> {
        self.0.lock().map(|at| at.elapsed())
    }

    /// Resolves once the round has made no step for so long.
    async fn stands_still(&self, limit: Duration) {
        while let Some(left) = limit.checked_sub(self.still_for().unwrap_or_default()) {
            // A little more, so that the last sleep is not cut into many short ones.
            tokio::time::sleep(left + Duration::from_millis(1)).await;
        }
    }
}

/// Runs jobs, each in a task of its own, until the background work ends.
pub(super) struct Runner {
    clock: Arc<Clock>,
    background: Background,
    given_up: Duration,
    jobs: Mutex<BTreeMap<&'static str, Arc<JobState>>>,
}

/// How a job is doing.
struct JobState {
    name: &'static str,
    steps: Steps,
    last: Mutex<LastRound>,
}

/// How the last round of a job was.
#[derive(Clone, Copy, Default)]
struct LastRound {
    took: Option<Duration>,
    lag: Duration,
    unmoved: u64,
    succeeded: Option<Instant>,
    failure: Option<RoundError>,
    /// The pause before the next round.
    pause: Duration,
}

impl Runner {
    /// `timeout` is how long one call to the database may take.
    pub(super) fn new(clock: Arc<Clock>, background: Background, timeout: Duration) -> Self {
        Self { clock, background, given_up: GIVEN_UP + 4 * timeout, jobs: Mutex::default() }
    }

    /// Does rounds of a job, with the pause that each round says before the next.
    pub(super) fn run<J: Job>(&self, job: J) {
        self.run_by(job, Arc::new(Alarm::new(Arc::clone(&self.clock))));
    }

    /// The same for a job whose next round others may bring forward by its alarm.
    pub(super) fn run_by<J: Job>(&self, job: J, alarm: Arc<Alarm>) {
        let (clock, background, given_up) = (Arc::clone(&self.clock), self.background.clone(), self.given_up);
        let state =
            Arc::new(JobState { name: J::NAME, steps: Steps(Mutex::new(None)), last: Mutex::default() });
        self.jobs.lock().insert(J::NAME, Arc::clone(&state));
        self.background.spawn(async move {
            loop {
                alarm.begin();
                let result = state.watch(job.round(&state.steps), given_up).await;
                let pause = result.as_ref().map_or(RETRY_PAUSE, |round| round.pause);
                if result.is_err() {
                    // No alarm counts now: it would have a database asked again at once that has just failed.
                    alarm.begin();
                }
                alarm.plan(clock.instant() + pause);
                state.report(&result, pause);
                tokio::select! {
                    () = alarm.rings() => {}
                    () = background.stopping() => return,
                }
            }
        });
    }

    /// How the jobs are doing, by name. The metrics are set to the same.
    pub(super) fn states(&self) -> BTreeMap<String, BackgroundJob> {
        self.jobs.lock().values().map(|state| (state.name.to_owned(), state.now())).collect()
    }
}

impl JobState {
    /// Sees a round to its end, whichever that is.
    async fn watch(
        &self,
        round: impl Future<Output = Result<JobRound, StoreError>>,
        given_up: Duration,
    ) -> Result<JobRound, RoundError> {
        let began = Instant::now();
        self.steps.step();
        let still = async {
            self.steps.stands_still(STANDS_STILL).await;
            tracing::warn!(job = self.name, "a round of a job makes no progress");
            self.steps.stands_still(given_up).await;
        };
        // A defect ends the round, not the job.
        let result = tokio::select! {
            result = AssertUnwindSafe(round).catch_unwind() => match result {
                Ok(result) => result.map_err(RoundError::Store),
                Err(_) => Err(RoundError::Defect),
            },
            () = still => Err(RoundError::StoodStill),
        };
        self.steps.end();
        self.last.lock().took = Some(began.elapsed());
        result
    }

    fn report(&self, result: &Result<JobRound, RoundError>, pause: Duration) {
        let (job, mut last) = (self.name, self.last.lock());
        let before = *last;
        last.pause = pause;
        last.failure = result.as_ref().err().copied();
        match result {
            Ok(JobRound { lag, unmoved, .. }) => {
                (last.lag, last.unmoved, last.succeeded) = (*lag, *unmoved, Some(Instant::now()));
                if before.failure.is_some() {
                    tracing::info!(job, "a job works again");
                }
                if before.unmoved == 0 && *unmoved > 0 {
                    tracing::error!(job, unmoved, "what is due cannot be read and is not moved");
                }
            }
            Err(error) => {
                if before.failure != Some(*error) {
                    tracing::error!(job, %error, "a job fails, and tries again twice a second");
                }
                metrics::counter!("task_repo_background_failures_total", "job" => job).increment(1);
            }
        }
    }

    /// How it is doing now.
    fn now(&self) -> BackgroundJob {
        let last = *self.last.lock();
        let still_for = self.steps.still_for().filter(|still| *still > STANDS_STILL);
        let ago = last.succeeded.map(|at| at.elapsed());
        let is_overdue = ago.is_some_and(|ago| ago > OVERDUE + 2 * last.pause);
        let detail = match (last.failure, still_for) {
            (_, Some(still)) => Some(format!("its round has made no progress for {} s", still.as_secs())),
            (Some(error), None) => Some(error.to_string()),
            (None, None) if is_overdue => Some("no round has succeeded for too long".to_owned()),
            (None, None) if last.unmoved > 0 => Some("tasks are due that this server cannot read".to_owned()),
            (None, None) => None,
        };
        let is_failing = last.failure.is_some() || still_for.is_some() || is_overdue;
        let status = match ago {
            _ if is_failing => "failing",
            None => "starting",
            Some(_) if last.unmoved > 0 => "degraded",
            Some(_) => "healthy",
        };
        // Whatever has become due since the last good round may be as late as that.
        let lag = if is_failing { last.lag.max(ago.unwrap_or_default()) } else { last.lag };
        let job = self.name;
        let seconds = ago.unwrap_or_default().as_secs_f64();
        metrics::gauge!("task_repo_background_lag_seconds", "job" => job).set(lag.as_secs_f64());
        metrics::gauge!("task_repo_background_last_success_seconds", "job" => job).set(seconds);
        metrics::gauge!("task_repo_background_failing", "job" => job).set(u8::from(is_failing));
        #[allow(clippy::cast_precision_loss, reason = "a count of documents")]
        metrics::gauge!("task_repo_background_unmoved", "job" => job).set(last.unmoved as f64);
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        BackgroundJob {
            status: status.to_owned(),
            latency_ms: last.took.map(millis),
            lag_ms: Some(millis(lag)),
            last_success_ms_ago: ago.map(millis),
            unmoved: last.unmoved,
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const LONG: Duration = Duration::from_secs(40);
    const PAUSE: Duration = Duration::from_secs(1);

    fn job() -> JobState {
        JobState { name: "job", steps: Steps(Mutex::new(None)), last: Mutex::default() }
    }

    async fn end(
        job: &JobState,
        round: impl Future<Output = Result<JobRound, StoreError>>,
    ) -> (String, String) {
        let result = job.watch(round, LONG).await;
        job.report(&result, PAUSE);
        let BackgroundJob { status, detail, .. } = job.now();
        (status, detail.unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_stands_still_is_seen_while_it_does_and_is_given_up() {
        let job = job();
        assert_eq!(job.now().status, "starting");
        let look = async {
            sleep(STANDS_STILL * 9 / 10).await;
            assert_eq!(job.now().status, "starting");
            sleep(Duration::from_secs(2)).await;
            let now = job.now();
            assert_eq!(now.status, "failing");
            assert!(now.detail.is_some_and(|detail| detail.contains("no progress for 11 s")));
        };
        let (ended, ()) = tokio::join!(end(&job, pending()), look);
        assert_eq!((&*ended.0, ended.1.contains("given up")), ("failing", true), "{ended:?}");
        assert_eq!(end(&job, async { Ok(JobRound::done(PAUSE)) }).await.0, "healthy");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_round_that_makes_steps_is_well() {
        let job = job();
        end(&job, async { Ok(JobRound::done(PAUSE)) }).await;
        let round = async {
            for _ in 0..20 {
                sleep(STANDS_STILL * 9 / 10).await;
                assert!(job.steps.still_for().is_some_and(|still| still < STANDS_STILL));
                job.steps.step();
            }
            Ok(JobRound::done(PAUSE))
        };
        assert_eq!(end(&job, round).await.0, "healthy");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_defects_are_failing_until_a_round_succeeds_and_lag_grows_meanwhile() {
        let job = job();
        end(&job, async { Ok(JobRound::done(PAUSE)) }).await;
        let defect = async { panic!("on purpose") };
        let (status, detail) = end(&job, defect).await;
        assert_eq!((&*status, detail.contains("defect")), ("failing", true), "{detail}");
        sleep(LONG).await;
        assert!(job.now().lag_ms.is_some_and(|lag| lag >= 40_000.0));
        assert_eq!(end(&job, async { Err(StoreError::Unavailable) }).await.0, "failing");
        assert_eq!(end(&job, async { Ok(JobRound::done(PAUSE)) }).await.0, "healthy");
        assert_eq!(job.now().lag_ms, Some(0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_and_cannot_be_read_makes_a_job_degraded() {
        let job = job();
        let round = async { Ok(JobRound { lag: LONG, pause: PAUSE, unmoved: 3 }) };
        assert_eq!(end(&job, round).await.0, "degraded");
        assert_eq!((job.now().unmoved, job.now().lag_ms), (3, Some(40_000.0)));
    }
}
