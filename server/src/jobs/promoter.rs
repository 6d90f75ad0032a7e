//! Moves scheduled tasks that are due to `pending`.

use std::sync::Arc;
use std::time::Duration;

use super::alarm::Alarm;
use super::due_moves::{DueMoves, PAGE};
use super::runner::{Job, JobRound};
use crate::background::Background;
use crate::events::TaskEvent;
use crate::lifecycle::Intent;
use crate::store::{Store, StoreError};
use crate::task::Status;

/// How often the job reads what other servers have scheduled.
const PROMOTE_INTERVAL: Duration = Duration::from_millis(250);

/// The job.
pub(super) struct Promoter {
    store: Store,
    background: Background,
}

impl Promoter {
    /// The job, and its alarm, which each task sets that is scheduled on this server.
    pub(super) fn new(store: &Store, background: &Background) -> (Self, Arc<Alarm>) {
        let alarm = Arc::new(Alarm::new(Arc::clone(store.clock())));
        let due = Arc::clone(&alarm);
        store.hub().subscribe(move |TaskEvent { task, .. }| {
            if task.status == Status::Scheduled
                && task.deleted_at.is_none()
                && let Some(run_at) = task.run_at
            {
                due.set(run_at);
            }
        });
        (Self { store: store.clone(), background: background.clone() }, alarm)
    }
}

impl Job for Promoter {
    const NAME: &'static str = "promoter";

    async fn round(&self) -> Result<JobRound, StoreError> {
        let (mut moves, clock) = (DueMoves::new(&self.store), self.store.clock());
        loop {
            // As far as the next round; what is due later is not read before.
            let until = clock.now() + PROMOTE_INTERVAL;
            let found = self.store.scheduled(until, moves.page(), PAGE).await?;
            let now = clock.now();
            let (due, later): (Vec<_>, Vec<_>) = found.tasks.iter().cloned().partition(|task| task.at <= now);
            moves.make(&found, &due, || Intent::Promote).await;
            if !found.is_full || !later.is_empty() || self.background.is_stopping() {
                let next = later.first().map_or(until, |task| task.at);
                return Ok(JobRound { lag: moves.end()?, pause: clock.until(next) });
            }
        }
    }
}
