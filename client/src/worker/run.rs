//! The loop: claims for the free slots, runs attempts, delivers how they ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::error::WorkerError;
use super::event::{WorkerEvent, WorkerReport};
use super::settings::Settings;
use super::shutdown;
use super::signal::SignalThread;
use super::state::WorkerState;

/// How long a process has, beside grace and patience, from the signal to its end: 6 s for the worker's stop at most, and two
/// for what comes after it.
const REST_OF_STOP: Duration = Duration::from_secs(8);

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
    /// The end of the runtime then waits for async handlers that block their thread and for what they began with
    /// `spawn_blocking`; see [`WorkerBuilder::register_blocking`](super::WorkerBuilder::register_blocking) and
    /// [`Worker::run_until_signal`].
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

    /// Works until the process is told to stop with SIGTERM or Ctrl-C, then stops as [`Worker::run_until`] does. The second
    /// such signal ends the grace period, the third the process. For processes that do nothing else.
    ///
    /// A handler that blocks its thread for ever cannot be aborted, and the runtime would wait for it for ever. Therefore the
    /// process ends with status 1, whatever it does by then, 8 s after grace and patience: with the usual settings 28 s after
    /// the first signal.
    ///
    /// # Errors
    /// As [`Worker::run_until`], and [`WorkerError::Thread`].
    pub async fn run_until_signal(self) -> Result<WorkerReport, WorkerError> {
        let time_to_stop =
            self.settings.grace.saturating_add(self.settings.stop_patience).saturating_add(REST_OF_STOP);
        let signals = SignalThread::start(time_to_stop)?;
        self.work(signals.first(), signals.second()).await
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
