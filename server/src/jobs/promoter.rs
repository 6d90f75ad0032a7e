//! Moves scheduled tasks that are due to `pending`.

use std::sync::Arc;
use std::time::Duration;

use super::alarm::Alarm;
use super::due_moves::{DueMoves, WINDOW};
use super::runner::{Job, JobRound, Steps};
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

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let (mut moves, clock) = (DueMoves::new(&self.store, steps), self.store.clock());
        // As far as the next round; what is due later is not read before.
        let mut until = clock.now() + PROMOTE_INTERVAL;
        loop {
            if let Some(page) = moves.next_page() {
                until = clock.now() + PROMOTE_INTERVAL;
                let found = self.store.scheduled(until, page, WINDOW).await?;
                moves.add(found);
            }
            if !moves.move_piece(|_| Intent::Promote).await || self.background.is_stopping() {
                let pause = clock.until(moves.next().unwrap_or(until));
                return moves.end(pause);
            }
        }
    }
}
