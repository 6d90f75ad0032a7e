//! The loop: claims for the free slots, runs attempts, delivers how they ended.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::error::WorkerError;
use super::event::{WorkerEvent, WorkerReport};
use super::settings::Settings;
use super::shutdown;
use super::signal::{StopSignals, end_process_soon};
use super::state::WorkerState;

/// Claims tasks and runs their handlers.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    settings: Arc<Settings>,
}

impl Worker {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings }
    }

    /// Works until `stop` is done, then stops gracefully: claims nothing more, tells handlers that a stop has begun
    /// ([`TaskContext::stopping`](super::TaskContext::stopping)), lets them finish within the grace period, then tells them
    /// to stop, and gives back what is unfinished. With the usual settings that takes 26 s at most, which fits into the 30 s
    /// that Kubernetes gives a pod.
    ///
    /// Dropped midway, as at the end of `main`, handlers are aborted and their leases run out.
    ///
    /// # Errors
    /// [`WorkerError::Refused`] when the service refuses to give this worker any work; what ran was finished before.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        self.work(stop, std::future::pending()).await
    }

    /// Works until the service refuses it.
    ///
    /// # Errors
    /// As [`Worker::run_until`].
    pub async fn run(self) -> Result<WorkerReport, WorkerError> {
        self.run_until(std::future::pending()).await
    }

    /// Works until the process is told to stop with SIGTERM or Ctrl-C, then stops as [`Worker::run_until`] does; the second
    /// such signal ends the grace period. For processes that do nothing else.
    ///
    /// A handler that blocks its thread for ever cannot be aborted, and the runtime would wait for it for ever. Where one is
    /// left, the process ends two seconds after this returns, with status 1, whatever `main` does.
    ///
    /// # Errors
    /// As [`Worker::run_until`].
    pub async fn run_until_signal(self) -> Result<WorkerReport, WorkerError> {
        let mut signals = StopSignals::listen();
        let (first, second) = (Notify::new(), Notify::new());
        let listen = async {
            signals.received().await;
            first.notify_one();
            signals.received().await;
            second.notify_one();
            std::future::pending::<Infallible>().await
        };
        let settings = Arc::clone(&self.settings);
        let ended = tokio::select! {
            ended = self.work(first.notified(), second.notified()) => ended,
            never = listen => match never {},
        };
        if settings.leaves_handlers.load(Ordering::Relaxed) {
            end_process_soon();
        }
        ended
    }

    async fn work(
        self,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<WorkerReport, WorkerError> {
        say_where_the_log_goes();
        let state = WorkerState::new(self.settings).inspect_err(|error| {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::error!(error, "the worker cannot start");
        })?;
        state.until(stop, hurry).await
    }
}

/// A process without a subscriber would not say why its worker stands still.
fn say_where_the_log_goes() {
    if !tracing::dispatcher::has_been_set() {
        eprintln!(
            "task-repo-client: the worker's log is not shown, because the process has no `tracing` subscriber; \
             `tracing_subscriber::fmt().init()` at the beginning of `main` sets one"
        );
    }
}

impl WorkerState {
    /// Works until `stop` is done or the service refuses this worker, then stops gracefully.
    async fn until(
        mut self,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<WorkerReport, WorkerError> {
        let mut stop = std::pin::pin!(stop);
        let refusal = loop {
            self.deliver_finished();
            self.claim_for_free_slots();
            let event = tokio::select! {
                biased;
                () = &mut stop => break None,
                event = self.next_event() => event,
            };
            if let Err(error) = self.apply(event) {
                self.settings.events.emit(WorkerEvent::Refused { error: &error });
                break Some(error);
            }
        };
        let report = shutdown::shut_down(self, hurry).await;
        refusal.map_or(Ok(report), |error| Err(WorkerError::Refused(error)))
    }
}
