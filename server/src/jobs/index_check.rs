//! Notices that indexes are missing, as after a drop or a restore of the database under a running server, and makes them
//! again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt as _;

use super::alarm::Alarm;
use super::runner::{Job, JobRound, Steps};
use crate::store::{Store, StoreError};

/// How often the job asks which indexes there are, but for chance. It costs four small commands.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long it waits before it tries again to make what could not be made: each try may read the whole collection.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How often it says that it is still making them.
const STEP: Duration = Duration::from_secs(5);

/// The job.
pub(super) struct IndexCheck {
    store: Store,
    failed_at: Mutex<Option<Instant>>,
}

impl IndexCheck {
    /// The job, and its alarm, which a call sets that names an index that is not there.
    pub(super) fn new(store: &Store) -> (Self, Arc<Alarm>) {
        let alarm = Arc::new(Alarm::new(Arc::clone(store.clock())));
        let (now, clock) = (Arc::clone(&alarm), Arc::clone(store.clock()));
        store.indexes().when_suspected(move || now.set(clock.now()));
        (Self { store: store.clone(), failed_at: Mutex::new(None) }, alarm)
    }

    async fn make(&self, missing: &[String], steps: &Steps) -> Result<(), StoreError> {
        let clock = self.store.clock();
        if self.failed_at.lock().is_some_and(|at| clock.since(at) < TRY_AGAIN) {
            return Err(StoreError::Unindexed);
        }
        tracing::error!(
            missing = missing.join(", "),
            "indexes are missing, as after a drop or a restore of the database: they are made again"
        );
        let mut making = std::pin::pin!(self.store.make_indexes_again());
        let made = loop {
            tokio::select! {
                made = &mut making => break made,
                () = tokio::time::sleep(STEP) => steps.step(),
            }
        };
        *self.failed_at.lock() = made.is_err().then(|| clock.instant());
        made?;
        tracing::info!("the indexes that were missing are there again");
        self.store.check_indexes().await.map(|_| ())
    }
}

impl Job for IndexCheck {
    const NAME: &'static str = "indexes";

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let missing = self.store.check_indexes().await?;
        if !missing.is_empty() {
            steps.step();
            self.make(&missing, steps).await?;
        }
        // Servers that were started together do not ask together for ever.
        Ok(JobRound::done(CHECK_INTERVAL.mul_f64(rand::rng().random_range(0.75..1.25))))
    }
}
