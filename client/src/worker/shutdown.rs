//! The graceful stop.

use std::time::Duration;

use super::event::{WorkerEvent, WorkerReport};
use super::lease::CancelReason;
use super::state::Run;

/// How long the answer of a claim under way is waited for. What it brings is given back at once, where dropping it would
/// leave that to the service, which may not notice a caller who left while the answer was on its way.
const CLAIM_PATIENCE: Duration = Duration::from_millis(250);
/// How long the last deliveries may take.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(10);

/// Ends what is under way, step by step: claims, then handlers by themselves, then handlers that are told to, then
/// handlers that are aborted; and delivers how all of them ended.
pub(super) async fn wind_down(mut run: Run) -> WorkerReport {
    run.is_stopping = true;
    run.settings.events.emit(WorkerEvent::Stopping { running: run.attempts.len() });
    let (grace, stop_patience) = (run.settings.grace, run.settings.stop_patience);
    run.work_off(CLAIM_PATIENCE, Run::is_claiming).await;
    run.claims.clear();
    if !run.work_off(grace, Run::is_busy).await {
        run.heartbeats.cancel_all(CancelReason::Shutdown);
        if !run.work_off(stop_patience, Run::is_busy).await {
            run.abort.cancel();
            run.work_off(DELIVERY_PATIENCE, Run::is_busy).await;
        }
    }
    let is_busy = run.is_busy();
    let Run { heartbeats, attempts, deliveries, reports, finished, report, .. } = run;
    if is_busy {
        tracing::error!("stopped before all results were delivered; their leases run out");
    }
    drop((attempts, deliveries, reports, finished));
    heartbeats.stop().await;
    report
}

impl Run {
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
    async fn work_off(&mut self, within: Duration, what: fn(&Self) -> bool) -> bool {
        let work = async {
            loop {
                self.deliver();
                if !what(self) {
                    return;
                }
                let happening = self.next().await;
                // A claim that is refused now changes nothing any more.
                let _ = self.apply(happening);
            }
        };
        tokio::time::timeout(within, work).await.is_ok()
    }
}
