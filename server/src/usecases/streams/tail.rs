//! Reading the end of the event log, once for all who watch on this server.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::log_messages::LogMessages;
use crate::store::LogDocument;

/// How many empty reads go by before it is asked whether the log is still the one that was read.
const EMPTY_READS: u32 = 50;
/// How many of the latest documents are kept for those who watch a tenant.
const RECENT: usize = 64;
/// How many moves these have together at most.
const RECENT_MOVES: usize = 16_000;

/// How far this server has read the event log. It reads while somebody watches.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
    advanced: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    state: TailState,
    /// The latest documents, without a hole up to the position.
    recent: VecDeque<Arc<LogMessages>>,
    /// Grows when the numbers of documents begin anew.
    epoch: u64,
    /// How many reads in a row have brought nothing.
    empty: u32,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct TailState {
    /// The number of the latest document that was read; `None`: nobody watches.
    pub position: Option<i64>,
    /// When the latest event was made that was read.
    pub latest_event: Option<DateTime<Utc>>,
    /// When it was read for the last time.
    pub read_at: Option<DateTime<Utc>>,
}

/// What there is from a document on.
pub(super) enum FromThere {
    /// These documents, of which the first is the one that was asked for.
    Documents(Vec<Arc<LogMessages>>),
    /// Nothing yet.
    Nothing,
    /// More than is kept here.
    TooFarBack,
    /// The numbers have begun anew: it goes on with that one.
    Anew(i64),
}

impl Tail {
    pub(super) fn state(&self) -> TailState {
        self.inner.lock().state
    }

    /// The number of the next document, and the epoch that it belongs to.
    pub(super) fn next_number(&self) -> (i64, u64) {
        let inner = self.inner.lock();
        (inner.state.position.unwrap_or_default() + 1, inner.epoch)
    }

    /// Begins there, unless it has begun.
    pub(super) fn begin(&self, position: i64) {
        let mut inner = self.inner.lock();
        if inner.state.position.is_none() {
            inner.state.position = Some(position);
        }
    }

    /// Where to read on; `None`: nobody watches. Who begins to watch is registered before this is asked.
    pub(super) fn next(&self, is_watched: impl Fn() -> bool) -> Option<i64> {
        let mut inner = self.inner.lock();
        if !is_watched() {
            *inner = Inner { epoch: inner.epoch, ..Inner::default() };
        }
        inner.state.position
    }

    /// Goes on behind these documents, which follow what was read.
    pub(super) fn advance(&self, documents: Vec<LogDocument>, now: DateTime<Utc>) {
        let mut inner = self.inner.lock();
        let latest = documents.iter().flat_map(|document| &document.moves).map(|it| it.at).max();
        inner.state.latest_event = latest.or(inner.state.latest_event);
        (inner.state.read_at, inner.empty) = (Some(now), 0);
        for document in documents {
            if inner.state.position.is_none_or(|position| document.number != position + 1) {
                inner.recent.clear();
            }
            inner.state.position = Some(document.number);
            inner.recent.push_back(Arc::new(LogMessages::new(document)));
        }
        let mut moves: usize = inner.recent.iter().map(|document| document.moves()).sum();
        while inner.recent.len() > RECENT || moves > RECENT_MOVES {
            moves -= inner.recent.pop_front().map_or(0, |document| document.moves());
        }
        drop(inner);
        self.advanced.send_replace(());
    }

    /// The log has another end than was known: its numbers have begun anew.
    pub(super) fn begin_anew(&self, position: i64, now: DateTime<Utc>) {
        let mut inner = self.inner.lock();
        let state = TailState { position: Some(position), read_at: Some(now), latest_event: None };
        *inner = Inner { state, epoch: inner.epoch + 1, ..Inner::default() };
        drop(inner);
        self.advanced.send_replace(());
    }

    /// Nothing has come. Whether it is time to ask if the log is still the one that was read.
    pub(super) fn found_nothing(&self, now: DateTime<Utc>) -> bool {
        let mut inner = self.inner.lock();
        inner.state.read_at = Some(now);
        inner.empty = (inner.empty + 1) % EMPTY_READS;
        inner.empty == 0
    }

    /// Hears from now on when there is more.
    pub(super) fn advances(&self) -> watch::Receiver<()> {
        self.advanced.subscribe()
    }

    /// What there is from that document on.
    pub(super) fn from(&self, number: i64, epoch: u64) -> FromThere {
        let inner = self.inner.lock();
        let next = inner.state.position.unwrap_or_default() + 1;
        if epoch != inner.epoch {
            return FromThere::Anew(next);
        }
        if number >= next {
            return FromThere::Nothing;
        }
        let kept = inner.recent.iter().skip_while(|document| document.number() < number);
        let kept: Vec<_> = kept.cloned().collect();
        match kept.first() {
            Some(first) if first.number() == number => FromThere::Documents(kept),
            _ => FromThere::TooFarBack,
        }
    }
}
