//! The loop: claims for the free slots, runs attempts, delivers how they ended.

use std::future::Future;
use std::sync::Arc;

use super::error::WorkerError;
use super::event::WorkerReport;
use super::settings::Settings;
use super::shutdown;
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

    /// Works until `stop` is done, then stops gracefully: claims nothing more, lets handlers finish within the grace
    /// period, then tells them to stop, and gives back what is unfinished.
    ///
    /// Dropped midway, handlers are aborted and their leases run out.
    ///
    /// # Errors
    /// [`WorkerError::Refused`] when the service refuses to give this worker any work; what ran was finished before.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        WorkerState::new(self.settings)?.until(stop).await
    }

    /// Works until the service refuses it.
    ///
    /// # Errors
    /// As [`Worker::run_until`].
    pub async fn run(self) -> Result<WorkerReport, WorkerError> {
        self.run_until(std::future::pending()).await
    }
}

impl WorkerState {
    /// Works until `stop` is done or the service refuses this worker, then stops gracefully.
    async fn until(mut self, stop: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
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
                break Some(error);
            }
        };
        let report = shutdown::shut_down(self).await;
        refusal.map_or(Ok(report), |error| Err(WorkerError::Refused(error)))
    }
}
