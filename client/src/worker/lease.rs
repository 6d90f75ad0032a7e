//! A lease while its handler runs: the progress that the handler reported, and why the handler should stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use task_repo_protocol::{DateTime, HeartbeatItem, Payload, ProgressUpdate, Task, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::progress::ProgressQueue;
use crate::claimed::ClaimedTask;

/// The length of a lease of which the service does not say when it began: the service's default.
const ASSUMED_LEASE: Duration = Duration::from_secs(60);
/// Least time between two heartbeats of one lease.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// How long a finished handler waits for its last progress to arrive before its result is reported.
const MAX_FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Why a handler should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// The task's cancellation was asked for.
    Requested,
    /// The lease is lost: the task is somebody else's, final or deleted, and this work no longer counts.
    LeaseLost,
    /// The attempt took longer than its handler, or the task's `timeout_seconds`, allows.
    Timeout,
    /// The worker stops, and the grace period is over.
    Shutdown,
}

/// What has happened to a lease by the time its handler is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may be there beside any other")]
pub(crate) struct Signals {
    /// The first reason that the handler was told.
    pub(crate) reason: Option<CancelReason>,
    pub(crate) is_requested: bool,
    pub(crate) is_lost: bool,
    pub(crate) is_timeout: bool,
    pub(crate) is_shutdown: bool,
}

/// One lease, shared by its handler, the heartbeat thread and the worker's loop.
#[derive(Debug)]
pub(crate) struct HeldLease {
    pub(crate) task: Arc<Task>,
    token: Arc<str>,
    /// Time between two heartbeats: a third of the lease, so that one may fail.
    pub(crate) interval: Duration,
    state: Mutex<LeaseState>,
    cancellation: CancellationToken,
    /// The one reason for which the worker itself ends the handler.
    lost: CancellationToken,
    flushed: Notify,
    /// Wakes the heartbeat thread.
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct LeaseState {
    next_heartbeat_at: Instant,
    expires_at: Option<DateTime<Utc>>,
    progress: ProgressQueue,
    signals: Signals,
    /// The handler is done, so answers to heartbeats no longer cancel it.
    is_handler_done: bool,
}

impl HeldLease {
    pub(crate) fn new(claimed: &ClaimedTask, first_heartbeat_at: Option<Instant>, wake: Arc<Notify>) -> Self {
        let task = claimed.shared_task();
        let interval = (lease_length(&task) / 3).max(MIN_HEARTBEAT_INTERVAL);
        let state = LeaseState {
            next_heartbeat_at: first_heartbeat_at.unwrap_or_else(|| Instant::now() + interval),
            expires_at: task.lease.as_ref().map(|lease| lease.expires_at),
            progress: ProgressQueue::default(),
            signals: Signals::default(),
            is_handler_done: false,
        };
        Self {
            task,
            token: claimed.shared_token(),
            interval,
            state: Mutex::new(state),
            cancellation: CancellationToken::new(),
            lost: CancellationToken::new(),
            flushed: Notify::new(),
            wake,
        }
    }

    pub(crate) fn token(&self) -> &Arc<str> {
        &self.token
    }

    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Is done when the lease is lost.
    pub(crate) async fn is_lost(&self) {
        self.lost.cancelled().await;
    }

    pub(crate) fn signals(&self) -> Signals {
        self.state().signals
    }

    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.state().expires_at
    }

    /// Queues progress for the heartbeat thread.
    pub(crate) fn put_progress(&self, update: ProgressUpdate) {
        let mut state = self.state();
        // A handler that goes on after its attempt has nobody to tell.
        let is_first = !state.is_handler_done && !state.signals.is_lost && state.progress.put(update);
        drop(state);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Waits until the last progress has arrived, or has been tried.
    pub(crate) async fn flush_progress(&self) {
        self.state().progress.flush();
        let arrived = async {
            while !self.state().progress.is_empty() {
                self.wake.notify_one();
                self.flushed.notified().await;
            }
        };
        let _ = tokio::time::timeout(MAX_FLUSH_WAIT, arrived).await;
    }

    /// Tells the handler to stop. The first reason is the one it is told.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        let mut state = self.state();
        let signals = &mut state.signals;
        signals.is_requested |= reason == CancelReason::Requested;
        signals.is_lost |= reason == CancelReason::LeaseLost;
        signals.is_timeout |= reason == CancelReason::Timeout;
        signals.is_shutdown |= reason == CancelReason::Shutdown;
        signals.reason = signals.reason.or(Some(reason));
        drop(state);
        self.cancellation.cancel();
        if reason == CancelReason::LeaseLost {
            self.lost.cancel();
        }
    }

    /// The handler is done. The lease is renewed until the service has taken the settlement.
    pub(crate) fn end(&self) {
        self.state().is_handler_done = true;
    }

    /// The heartbeat's answer came from something before the service, which may object to the progress: it is dropped.
    pub(crate) fn drop_progress(&self) {
        self.state().progress.sent();
        self.flushed.notify_one();
    }

    /// When the next heartbeat is due.
    pub(crate) fn due_at(&self, now: Instant) -> Instant {
        let state = self.state();
        state
            .progress
            .due_at(now)
            .map_or(state.next_heartbeat_at, |progress| progress.min(state.next_heartbeat_at))
    }

    /// The heartbeat to send now.
    pub(crate) fn heartbeat(&self, now: Instant) -> HeartbeatItem {
        let mut state = self.state();
        state.next_heartbeat_at = now + self.interval;
        HeartbeatItem {
            id: self.task.id.to_string(),
            lease_token: self.token.as_ref().to_owned(),
            lease_seconds: None,
            progress: state.progress.take(now),
            checkpoint: Payload::Omitted,
        }
    }

    /// The heartbeat arrived.
    pub(crate) fn renewed(&self, expires_at: Option<DateTime<Utc>>, cancel_requested: bool) {
        let mut state = self.state();
        state.progress.sent();
        state.expires_at = expires_at.or(state.expires_at);
        let is_new = cancel_requested && !state.signals.is_requested && !state.is_handler_done;
        drop(state);
        self.flushed.notify_one();
        if is_new {
            self.cancel(CancelReason::Requested);
        }
    }

    /// The heartbeat did not arrive: the next one comes sooner.
    pub(crate) fn missed(&self, next_heartbeat_at: Instant) {
        let mut state = self.state();
        state.progress.missed(next_heartbeat_at);
        state.next_heartbeat_at = next_heartbeat_at.min(state.next_heartbeat_at);
        drop(state);
        self.flushed.notify_one();
    }

    /// The heartbeat's progress was refused: it is dropped, and the lease renewed without it.
    pub(crate) fn progress_refused(&self, now: Instant) {
        let mut state = self.state();
        state.progress.sent();
        state.next_heartbeat_at = now;
        drop(state);
        self.flushed.notify_one();
    }

    /// The service no longer knows this lease.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        state.progress = ProgressQueue::default();
        let is_new = !state.is_handler_done;
        drop(state);
        self.flushed.notify_one();
        // Race: a heartbeat may be under way when the settlement ends the lease. The handler is done by then, so
        // `is_handler_done` is set first, and such an answer is not taken for a loss.
        if is_new {
            self.cancel(CancelReason::LeaseLost);
        }
    }

    fn state(&self) -> MutexGuard<'_, LeaseState> {
        // No code panics while it holds this lock, so the state is never half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the lease is, by the service's own clock.
fn lease_length(task: &Task) -> Duration {
    task.lease
        .as_ref()
        .zip(task.started_at)
        .and_then(|(lease, started_at)| (lease.expires_at - started_at).to_std().ok())
        .unwrap_or(ASSUMED_LEASE)
}
