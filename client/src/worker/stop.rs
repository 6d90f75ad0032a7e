//! A worker in the background, and how it is told to stop.

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::WorkerError;
use super::event::WorkerReport;
use super::run::Worker;

impl Worker {
    /// Works in the background of the current tokio runtime until it is stopped through the handle.
    pub fn start(self) -> WorkerHandle {
        WorkerHandle::start(self)
    }
}

/// A worker at work in the background.
///
/// Dropped, the worker stops gracefully by itself, as long as its runtime lives. At the end of `main` it does not: the
/// runtime ends with it, handlers are aborted and their leases run out. There, wait for [`WorkerHandle::stop`].
///
/// A worker that ends by itself, because the service refuses it, logs why and tells
/// [`WorkerEvent::Refused`](super::WorkerEvent::Refused).
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
