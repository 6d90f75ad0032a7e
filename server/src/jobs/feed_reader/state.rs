//! How far the feed is, for health and metrics.

use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use crate::store::FeedPosition;

/// How old the position may be while nothing waits: it is stored about once a second then.
const FRESH: Duration = Duration::from_secs(3);

/// What this server knows of the feed, whichever server reads it.
#[derive(Debug, Default)]
pub struct FeedState(Mutex<Option<Known>>);

/// A position.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The number of the latest document of the log.
    pub number: i64,
    /// The time up to which everything is in the log.
    pub as_of: Option<DateTime<Utc>>,
    /// When the latest time began of which the log knows nothing.
    pub last_gap_at: Option<DateTime<Utc>>,
    is_behind: bool,
}

impl FeedState {
    /// Notes a position.
    pub(super) fn set(&self, position: &FeedPosition) {
        let FeedPosition { number, as_of, is_behind, .. } = *position;
        let last_gap_at = position.gaps.last().map(|gap| gap.from);
        *self.0.lock() = Some(Known { number, as_of, last_gap_at, is_behind });
    }

    /// The latest position that is known.
    pub fn known(&self) -> Option<Known> {
        *self.0.lock()
    }

    /// The age of what was read last; zero when nothing waits.
    pub fn lag(&self, now: DateTime<Utc>) -> Duration {
        let Some(known) = *self.0.lock() else { return Duration::ZERO };
        let age = known.as_of.and_then(|as_of| (now - as_of).to_std().ok()).unwrap_or_default();
        if known.is_behind || age > FRESH { age } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn there_is_no_lag_while_nothing_waits_and_somebody_reads() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let lag = |age, is_behind| {
            let state = FeedState::default();
            let as_of = Some(now - TimeDelta::seconds(age));
            *state.0.lock() = Some(Known { number: 1, as_of, last_gap_at: None, is_behind });
            state.lag(now).as_secs()
        };
        assert_eq!([lag(1, false), lag(1, true), lag(20, false)], [0, 1, 20]);
    }
}
