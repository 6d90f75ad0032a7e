//! Removes tasks whose retention has ended, on the server that has the job's lease.

use std::sync::Arc;
use std::time::Duration;

use super::runner::{Job, JobRound, Steps};
use super::server_registry::ThisServer;
use crate::background::Background;
use crate::store::{Store, StoreError};

/// The name of the job, and of its lease.
pub(super) const JOB: &str = "retention";
/// How long a server that has stopped renewing keeps the job. Two that do it at once do no harm.
const JOB_LEASE: Duration = Duration::from_secs(30);
/// How many tasks are removed together: few enough that other calls get their turn in between.
const REMOVED_TOGETHER: usize = 500;

/// The job.
pub(super) struct Retention {
    store: Store,
    background: Background,
    server: Arc<ThisServer>,
    pause: Duration,
}

impl Retention {
    pub(super) fn new(
        store: &Store,
        background: &Background,
        server: &Arc<ThisServer>,
        pause: Duration,
    ) -> Self {
        Self { store: store.clone(), background: background.clone(), server: Arc::clone(server), pause }
    }
}

impl Job for Retention {
    const NAME: &'static str = JOB;

    /// Removes batch after batch while this server has the job. The lag is that of the first task.
    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let (clock, mut lag) = (self.store.clock(), Duration::ZERO);
        if !self.store.lease_job(JOB, self.server.id(), JOB_LEASE).await? {
            return Ok(JobRound::done(self.pause));
        }
        let leased = clock.instant();
        while clock.since(leased) < JOB_LEASE / 2 && !self.background.is_stopping() {
            let removed = self.store.remove_due(REMOVED_TOGETHER).await?;
            steps.step();
            let late = removed.oldest.map(|at| clock.now() - at);
            lag = lag.max(late.and_then(|late| late.to_std().ok()).unwrap_or_default());
            metrics::counter!("task_repo_tasks_removed_total").increment(removed.tasks);
            if !removed.is_full {
                break;
            }
        }
        Ok(JobRound { lag, ..JobRound::done(self.pause) })
    }
}
