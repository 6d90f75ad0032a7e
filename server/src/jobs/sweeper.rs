//! Takes back leases and attempts that ran out.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::due_moves::{DueMoves, WINDOW};
use super::renewals::Renewals;
use super::runner::{Job, JobRound, Steps};
use crate::background::Background;
use crate::lifecycle::Intent;
use crate::store::{DueTask, Store, StoreError};
use crate::task_types::KnownTypes;

/// The job.
pub(super) struct Sweeper {
    store: Store,
    background: Background,
    renewals: Renewals,
    types: Arc<KnownTypes>,
    pause: Duration,
}

impl Sweeper {
    pub(super) fn new(
        store: &Store,
        background: &Background,
        types: &Arc<KnownTypes>,
        pause: Duration,
    ) -> Self {
        let (renewals, types) = (Renewals::new(store.clone()), Arc::clone(types));
        Self { store: store.clone(), background: background.clone(), renewals, types, pause }
    }
}

impl Job for Sweeper {
    const NAME: &'static str = "sweeper";

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let mut moves = DueMoves::new(&self.store, steps);
        loop {
            if let Some(page) = moves.next_page() {
                let found = self.store.expired(page, WINDOW).await?;
                moves.add(found);
            }
            // Asked only now: a lease that ran out while the read waited for the database must not be taken back either.
            if let Some(outage) = self.renewals.last_outage().await? {
                let now = self.store.clock().now();
                moves.retain(|task| outage.holds_until(task.lease_seconds) <= now);
            }
            let expire = |task: &DueTask| Intent::Expire {
                jitter: rand::rng().random_range(-1.0..=1.0),
                max_losses: self.types.max_losses(&task.tenant, &task.task_type),
            };
            if !moves.move_piece(expire).await || self.background.is_stopping() {
                return moves.end(self.pause);
            }
        }
    }
}
