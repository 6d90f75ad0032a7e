//! The time: the database's clock, carried forward by this process's monotonic one.
//!
//! Invariant: no worker's clock and no jump of this machine's wall clock decides when a lease runs out.

use std::sync::RwLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// The database's time, measured now and then and carried forward in between.
#[derive(Debug)]
pub struct Clock {
    anchor: RwLock<(Instant, i64)>,
}

impl Clock {
    /// A clock that reads `time` at `at`.
    pub fn set_to(time: DateTime<Utc>, at: Instant) -> Self {
        Self { anchor: RwLock::new((at, time.timestamp_millis())) }
    }

    /// Corrects the clock: it read `time` at `at`.
    pub fn correct(&self, time: DateTime<Utc>, at: Instant) {
        let mut anchor = self.anchor.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *anchor = (at, time.timestamp_millis());
    }

    /// Now, to the millisecond.
    pub fn now(&self) -> DateTime<Utc> {
        let (at, millis) = *self.anchor.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(millis.saturating_add(elapsed)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// How long until `time`; zero when it has passed.
    pub fn until(&self, time: DateTime<Utc>) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }
}
