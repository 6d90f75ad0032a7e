//! When leases could not be renewed, so that none is taken back whose worker could not be heard.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

use crate::store::{Outage, Store, StoreError};

/// How often the job that takes leases back makes sure that leases can be renewed.
const RENEWAL_CHECK: Duration = Duration::from_millis(500);
/// A gap between two such checks that says that servers or the database stood still.
const STALL: Duration = Duration::from_secs(2);

/// Outages, as far as this server knows.
pub(super) struct Renewals {
    store: Store,
    /// When this server began to look. An outage that ended before then has been told by another.
    began: DateTime<Utc>,
    /// When leases were known to be renewed for the last time, and when they could not be.
    known: Mutex<Option<(Instant, Option<Outage>)>>,
}

impl Renewals {
    pub(super) fn new(store: Store) -> Self {
        let began = store.clock().now();
        Self { store, began, known: Mutex::new(None) }
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
        let is_new = |new: &&Outage| before.as_ref() != Some(*new) && new.ended_at >= self.began;
        if let Some(new) = outage.as_ref().filter(is_new) {
            self.tell(new).await;
        }
        *self.known.lock() = Some((clock.instant(), outage.clone()));
        Ok(outage)
    }

    async fn tell(&self, outage: &Outage) {
        let (seconds, lasted) = (outage.lasted.as_seconds_f64(), in_words(outage.lasted));
        let why = "because no server ran or the database took no writes";
        // Where the database does not say, the worse is told.
        if self.store.any_lease().await.unwrap_or(true) {
            tracing::warn!(
                seconds,
                "no heartbeat of a worker could be taken for {lasted}, {why}. Tasks that were leased when it began are not taken \
                 back yet: each lease holds that much longer, by its own length at most, so that a worker that still runs keeps \
                 its task. Nothing has to be done"
            );
        } else {
            tracing::info!(
                seconds,
                "no heartbeat of a worker could be taken for {lasted}, {why}. No task was leased, so nothing follows from it"
            );
        }
    }
}

/// How long that is, in the two largest units it has.
fn in_words(lasted: TimeDelta) -> String {
    let seconds = lasted.num_seconds();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        let told = |seconds| in_words(TimeDelta::seconds(seconds));
        assert_eq!([3, 61, 31_980, 200_000].map(told), ["3 s", "1 min 1 s", "8 h 53 min", "2 d 7 h"]);
    }
}
