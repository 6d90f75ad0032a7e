//! How a process is told to stop, and how it ends even if a handler does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::WorkerError;

/// Is done when the process is told to stop: with SIGTERM, as Kubernetes, Docker and systemd do, or with Ctrl-C.
///
/// For [`Worker::run_until`](super::Worker::run_until), where a process does more than work on tasks.
pub async fn stop_signal() {
    TerminationSignals::listen().received().await;
}

/// SIGTERM and Ctrl-C. From the first use on they no longer end the process by themselves.
struct TerminationSignals {
    #[cfg(unix)]
    streams: std::io::Result<[tokio::signal::unix::Signal; 2]>,
}

impl TerminationSignals {
    #[cfg(unix)]
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = signal(SignalKind::terminate())
            .and_then(|terminate| Ok([terminate, signal(SignalKind::interrupt())?]))
            .inspect_err(|error| tracing::error!(%error, "SIGTERM and Ctrl-C cannot be listened for"));
        Self { streams }
    }

    #[cfg(not(unix))]
    fn listen() -> Self {
        Self {}
    }

    /// Waits for the next one; for ever if they cannot be listened for, and then they end the process.
    #[cfg(unix)]
    async fn received(&mut self) {
        let Ok([terminate, interrupt]) = &mut self.streams else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn received(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Listens for signals from a thread that no handler can block, and ends the process if it does not end by itself.
pub(super) struct SignalThread {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    first: Notify,
    second: Notify,
    has_worker_ended: AtomicBool,
}

impl SignalThread {
    /// Starts the thread. `time_to_stop` after the first signal it ends the process.
    pub(super) fn start(time_to_stop: Duration) -> Result<Self, WorkerError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(WorkerError::Thread)?;
        let shared: Arc<Shared> = Arc::default();
        let told = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("task-signals".to_owned())
            .spawn(move || {
                runtime.block_on(told.listen(time_to_stop));
                end_process();
            })
            .map_err(WorkerError::Thread)?;
        Ok(Self { shared })
    }

    /// Is done at the first signal.
    pub(super) async fn first(&self) {
        self.shared.first.notified().await;
    }

    /// Is done at the second signal.
    pub(super) async fn second(&self) {
        self.shared.second.notified().await;
    }
}

/// The worker has ended: a signal that comes from now on ends the process.
impl Drop for SignalThread {
    fn drop(&mut self) {
        self.shared.has_worker_ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Is done when the process is to be ended.
    async fn listen(&self, time_to_stop: Duration) {
        let mut signals = TerminationSignals::listen();
        signals.received().await;
        if self.has_worker_ended.load(Ordering::Relaxed) {
            return;
        }
        self.first.notify_one();
        let stops = async {
            signals.received().await;
            self.second.notify_one();
            signals.received().await;
        };
        // A third signal is somebody who cannot wait.
        let _ = tokio::time::timeout(time_to_stop, stops).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the runtime may wait for a handler for ever")]
fn end_process() {
    tracing::error!("the process is ended before its worker has stopped in order");
    std::process::exit(1);
}
