//! Reading the end of the event log, once for all who watch on this server.

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

/// How many empty reads go by before it is asked whether the log is still the one that was read.
const EMPTY_READS: u32 = 50;

/// How far this server has read the event log. It reads while somebody watches.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<TailState>);

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct TailState {
    /// The number of the latest document that was read; `None`: nobody watches.
    pub position: Option<i64>,
    /// When the latest event was made that was read.
    pub latest_event: Option<DateTime<Utc>>,
    /// When it was read for the last time.
    pub read_at: Option<DateTime<Utc>>,
    /// How many reads in a row have brought nothing.
    empty: u32,
}

impl Tail {
    pub(super) fn state(&self) -> TailState {
        *self.0.lock()
    }

    /// Begins there, unless it has begun.
    pub(super) fn begin(&self, position: i64) {
        let mut state = self.0.lock();
        if state.position.is_none() {
            *state = TailState { position: Some(position), ..TailState::default() };
        }
    }

    /// Where to read on; `None`: nobody watches. Who begins to watch is registered before this is asked.
    pub(super) fn next(&self, is_watched: impl Fn() -> bool) -> Option<i64> {
        let mut state = self.0.lock();
        if !is_watched() {
            *state = TailState::default();
        }
        state.position
    }

    /// Goes on behind that document.
    pub(super) fn advance(&self, position: i64, latest_event: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        let mut state = self.0.lock();
        let latest_event = latest_event.or(state.latest_event);
        *state = TailState { position: Some(position), latest_event, read_at: Some(now), empty: 0 };
    }

    /// Nothing has come. Whether it is time to ask if the log is still the one that was read.
    pub(super) fn found_nothing(&self, now: DateTime<Utc>) -> bool {
        let mut state = self.0.lock();
        state.read_at = Some(now);
        state.empty = (state.empty + 1) % EMPTY_READS;
        state.empty == 0
    }
}
