//! The graceful stop.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::event::{WorkerEvent, WorkerReport};
use super::lease::CancelReason;
use super::state::WorkerState;

/// How long the worker waits for the answers of claims under way, to release their tasks at once.
///
/// Race: the service may send an answer just when the worker closes the connection, and then does not notice that the
/// caller has gone. Without this wait the tasks of such an answer would stay leased until their leases run out.
const CLAIM_ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the last deliveries may take. It bounds the stop while the service is away; what is not delivered by then
/// is retried after its lease ran out.
const FINAL_DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the worker step by step, and delivers how all attempts ended. It ends claims first. Handlers may then finish within
/// the grace period, which ends when `hurry` is done, are told to stop, and are aborted last.
pub(super) async fn shut_down(mut state: WorkerState, hurry: impl Future<Output = ()>) -> WorkerReport {
    state.is_stopping = true;
    state.stop.begun.cancel();
    state.settings.events.emit(WorkerEvent::Stopping { running: state.attempts.len() });
    let (grace, patience) = (state.settings.grace, state.settings.stop_patience);
    state.run_while(CLAIM_ANSWER_TIMEOUT, WorkerState::is_claiming).await;
    state.claims.clear();
    let is_done = tokio::select! {
        is_done = state.run_while(grace, WorkerState::is_busy) => is_done,
        () = hurry => false,
    };
    if !is_done {
        state.heartbeats.cancel_all(CancelReason::Shutdown);
        if !state.run_while(patience, WorkerState::is_busy).await {
            state.stop.abort.cancel();
            state.run_while(FINAL_DELIVERY_TIMEOUT, WorkerState::is_busy).await;
        }
    }
    let unfinished = state.unfinished();
    if unfinished > 0 {
        tracing::error!(unfinished, "stopped before all attempts were settled; their leases run out");
    }
    let still_running = state.stuck.len() + state.attempts.len();
    if still_running > 0 {
        tracing::error!(
            still_running,
            "stopped while handlers go on that cannot be aborted: they block their threads"
        );
    }
    let report = WorkerReport {
        stuck: state.settings.stuck.load(Ordering::Relaxed),
        still_running: u64::try_from(still_running).unwrap_or(u64::MAX),
        ..state.report
    };
    let WorkerState { heartbeats, .. } = state;
    heartbeats.stop().await;
    report
}

impl WorkerState {
    fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.unfinished() > 0
    }

    /// How much is still to be done: attempts, calls that deliver many of them, and parts of such calls.
    fn unfinished(&self) -> usize {
        let attempts = self.attempts.len() + self.deferred.len() + self.finished.len();
        attempts + self.parts.len() + self.deliveries.len() + self.reports.len()
    }

    /// Runs the loop without claiming while `what` holds, up to `within`. True: it no longer holds.
    async fn run_while(&mut self, within: Duration, what: fn(&Self) -> bool) -> bool {
        let work = async {
            loop {
                self.deliver_finished();
                if !what(self) {
                    return;
                }
                let event = self.next_event().await;
                // A refused claim ends the loop of a running worker; this one is stopping already.
                let _ = self.apply(event);
            }
        };
        tokio::time::timeout(within, work).await.is_ok()
    }
}
