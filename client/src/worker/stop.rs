//! The graceful stop.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::event::{WorkerEvent, WorkerReport};
use super::lease::CancelReason;
use super::run::Run;
use super::{Worker, WorkerError};

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

/// A worker at work in the background. Dropped, it stops gracefully by itself.
#[derive(Debug)]
#[must_use = "the worker stops when its handle is dropped"]
pub struct WorkerHandle {
    stop: CancellationToken,
    task: JoinHandle<Result<WorkerReport, WorkerError>>,
    _stop_on_drop: DropGuard,
}

impl WorkerHandle {
    pub(super) fn start(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
        Self { task, _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Stops the worker gracefully, as [`Worker::run_until`] does, and waits for it.
    ///
    /// # Errors
    /// As [`Worker::run_until`], and [`WorkerError::Ended`].
    pub async fn stop(self) -> Result<WorkerReport, WorkerError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Waits for a worker that ends by itself, or was told to by [`WorkerHandle::request_stop`].
    ///
    /// # Errors
    /// As [`WorkerHandle::stop`].
    pub async fn wait(self) -> Result<WorkerReport, WorkerError> {
        // Taken apart so that the guard lives until the worker has ended.
        let Self { task, _stop_on_drop, .. } = self;
        task.await.map_err(WorkerError::Ended)?
    }

    /// Begins a graceful stop without waiting for it.
    pub fn request_stop(&self) {
        self.stop.cancel();
    }

    /// Whether the worker has stopped.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}
