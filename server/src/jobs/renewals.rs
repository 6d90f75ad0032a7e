//! When leases could not be renewed, so that none is taken back whose worker could not be heard.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{Outage, Store, StoreError};

/// How often the job that takes leases back makes sure that leases can be renewed.
const RENEWAL_CHECK: Duration = Duration::from_millis(500);
/// A gap between two such checks that says that servers or the database stood still.
const STALL: Duration = Duration::from_secs(2);

/// Outages, as far as this server knows.
pub(super) struct Renewals {
    store: Store,
    /// When leases were known to be renewed for the last time, and when they could not be.
    known: Mutex<Option<(Instant, Option<Outage>)>>,
}

impl Renewals {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::new(None) }
    }

    /// The latest outage, from a check that is at most half a second old.
    pub(super) async fn last_outage(&self) -> Result<Option<Outage>, StoreError> {
        let known = self.known.lock().clone();
        let checked_at = known.as_ref().map(|(at, _)| *at);
        let clock = self.store.clock();
        let silence = || checked_at.map_or(Duration::ZERO, |at| clock.since(at));
        if let Some((at, outage)) = &known
            && clock.since(*at) < RENEWAL_CHECK
        {
            return Ok(outage.clone());
        }
        let silent = silence();
        let mut outage = self.store.record_renewal(silent, STALL).await?;
        if silence().saturating_sub(silent) > RENEWAL_CHECK {
            // The write itself had to wait for the database, and its time is from before the wait: so it is made again, with
            // the whole gap.
            outage = self.store.record_renewal(silence(), STALL).await?;
        }
        let before = known.and_then(|(_, outage)| outage);
        if let Some(new) = outage.as_ref().filter(|new| before.as_ref() != Some(new)) {
            self.warn(new).await;
        }
        *self.known.lock() = Some((clock.instant(), outage.clone()));
        Ok(outage)
    }

    async fn warn(&self, outage: &Outage) {
        let seconds = outage.lasted.as_seconds_f64();
        if self.store.any_lease().await.unwrap_or(true) {
            tracing::warn!(
                seconds,
                "for so long no worker's heartbeat could be heard; leases of then hold longer by that, each by its own \
                 length at most, so that no worker loses its task for it"
            );
        } else {
            tracing::info!(seconds, "for so long no worker's heartbeat could be heard; no task was leased");
        }
    }
}
