//! One runner for all jobs: rounds, the pauses between them, and how each job is doing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use task_repo_protocol::system::BackgroundJob;

use super::alarm::Alarm;
use crate::background::Background;
use crate::clock::Clock;
use crate::store::StoreError;

/// How long a job waits after a round that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A job that has not finished a round for so long, and two pauses, is failing.
const OVERDUE: Duration = Duration::from_secs(15);

/// The result of a round.
pub(super) struct JobRound {
    /// How late it was for the oldest thing it did.
    pub(super) lag: Duration,
    /// How long until the next round.
    pub(super) pause: Duration,
}

/// A background job.
pub(super) trait Job: Send + Sync + 'static {
    /// What it is called in health answers and metrics.
    const NAME: &'static str;

    /// Does one round. Every call to the store has a deadline of its own, so that no round waits for ever.
    ///
    /// # Errors
    /// When the database did not do its part; the next round tries again.
    fn round(&self) -> impl Future<Output = Result<JobRound, StoreError>> + Send;
}

/// Runs jobs, each in a task of its own, until the background work ends.
pub(super) struct Runner {
    clock: Arc<Clock>,
    background: Background,
    last: Arc<Mutex<BTreeMap<&'static str, LastRound>>>,
}

/// How the last round of a job was.
#[derive(Clone, Copy, Default)]
struct LastRound {
    took: Option<Duration>,
    lag: Duration,
    succeeded: Option<Instant>,
    failed: bool,
    /// The pause before the next round.
    pause: Duration,
}

impl Runner {
    pub(super) fn new(clock: Arc<Clock>, background: Background) -> Self {
        Self { clock, background, last: Arc::default() }
    }

    /// Does rounds of a job, with the pause that each round says before the next.
    pub(super) fn run<J: Job>(&self, job: J) {
        self.run_by(job, Arc::new(Alarm::new(Arc::clone(&self.clock))));
    }

    /// The same for a job whose next round others may bring forward by its alarm.
    pub(super) fn run_by<J: Job>(&self, job: J, alarm: Arc<Alarm>) {
        let (clock, background, last) =
            (Arc::clone(&self.clock), self.background.clone(), Arc::clone(&self.last));
        self.background.spawn(async move {
            loop {
                alarm.begin();
                let began = Instant::now();
                // A defect ends the round, not the job.
                let round = AssertUnwindSafe(job.round()).catch_unwind().await;
                let result = round.unwrap_or_else(|_| {
                    tracing::error!(job = J::NAME, "a round has ended because of a defect");
                    Err(StoreError::Unavailable)
                });
                let pause = result.as_ref().map_or(RETRY_PAUSE, |round| round.pause);
                if result.is_err() {
                    // No alarm counts now: it would have a database asked again at once that has just failed.
                    alarm.begin();
                }
                alarm.plan(clock.instant() + pause);
                report(last.lock().entry(J::NAME).or_default(), J::NAME, began, pause, &result);
                tokio::select! {
                    () = alarm.rings() => {}
                    () = background.stopping() => return,
                }
            }
        });
    }

    /// How the jobs are doing, by name.
    pub(super) fn states(&self) -> BTreeMap<String, BackgroundJob> {
        self.last.lock().iter().map(|(name, last)| ((*name).to_owned(), last.state())).collect()
    }
}

fn report(
    last: &mut LastRound,
    name: &'static str,
    began: Instant,
    pause: Duration,
    result: &Result<JobRound, StoreError>,
) {
    last.took = Some(began.elapsed());
    last.failed = result.is_err();
    last.pause = pause;
    if let Ok(JobRound { lag, .. }) = result {
        last.lag = *lag;
        last.succeeded = Some(Instant::now());
        metrics::gauge!("task_repo_background_lag_seconds", "job" => name).set(lag.as_secs_f64());
    } else {
        metrics::counter!("task_repo_background_failures_total", "job" => name).increment(1);
    }
}

impl LastRound {
    fn state(&self) -> BackgroundJob {
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let ago = self.succeeded.map(|at| at.elapsed());
        let status = match ago {
            _ if self.failed => "failing",
            None => "starting",
            Some(ago) if ago > OVERDUE + 2 * self.pause => "failing",
            Some(_) => "healthy",
        };
        BackgroundJob {
            status: status.to_owned(),
            latency_ms: self.took.map(millis),
            lag_ms: Some(millis(self.lag)),
            last_success_ms_ago: ago.map(millis),
        }
    }
}
