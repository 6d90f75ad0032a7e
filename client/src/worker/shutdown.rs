//! The graceful stop.

use std::time::Duration;

use super::event::{WorkerEvent, WorkerReport};
use super::lease::CancelReason;
use super::state::WorkerState;

/// How long the answer of a claim under way is waited for. What it brings is given back at once, where dropping it would
/// leave that to the service, which may not notice a caller who left while the answer was on its way.
const CLAIM_ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the last deliveries may take.
const FINAL_DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends what is under way, step by step: claims, then handlers by themselves, then handlers that are told to, then
/// handlers that are aborted; and delivers how all of them ended.
pub(super) async fn shut_down(mut state: WorkerState) -> WorkerReport {
    state.is_stopping = true;
    state.settings.events.emit(WorkerEvent::Stopping { running: state.attempts.len() });
    let (grace, stop_timeout) = (state.settings.grace, state.settings.stop_timeout);
    state.run_while(CLAIM_ANSWER_TIMEOUT, WorkerState::is_claiming).await;
    state.claims.clear();
    if !state.run_while(grace, WorkerState::is_busy).await {
        state.heartbeats.cancel_all(CancelReason::Shutdown);
        if !state.run_while(stop_timeout, WorkerState::is_busy).await {
            state.abort.cancel();
            state.run_while(FINAL_DELIVERY_TIMEOUT, WorkerState::is_busy).await;
        }
    }
    let is_busy = state.is_busy();
    let WorkerState { heartbeats, attempts, deliveries, reports, finished, report, .. } = state;
    if is_busy {
        tracing::error!("stopped before all results were delivered; their leases run out");
    }
    drop((attempts, deliveries, reports, finished));
    heartbeats.stop().await;
    report
}

impl WorkerState {
    fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    fn is_busy(&self) -> bool {
        !(self.attempts.is_empty()
            && self.deliveries.is_empty()
            && self.reports.is_empty()
            && self.finished.is_empty())
    }

    /// Goes on without claiming while `what` holds, up to `within`. True: it no longer holds.
    async fn run_while(&mut self, within: Duration, what: fn(&Self) -> bool) -> bool {
        let work = async {
            loop {
                self.deliver_finished();
                if !what(self) {
                    return;
                }
                let event = self.next_event().await;
                // A claim that is refused now changes nothing any more.
                let _ = self.apply(event);
            }
        };
        tokio::time::timeout(within, work).await.is_ok()
    }
}
