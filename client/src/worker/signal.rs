//! How a process is told to stop, and how it ends even if a handler does not.

use std::time::Duration;

/// How long the rest of `main` may take before a process with a handler that does not end is ended.
const REST_OF_MAIN: Duration = Duration::from_secs(2);

/// Is done when the process is told to stop: with SIGTERM, as Kubernetes, Docker and systemd do, or with Ctrl-C.
///
/// For [`Worker::run_until`](super::Worker::run_until), where a process does more than work on tasks.
pub async fn stop_signal() {
    StopSignals::listen().received().await;
}

/// The signals that tell a process to stop. From the first use on they no longer end the process by themselves.
pub(super) struct StopSignals {
    #[cfg(unix)]
    streams: std::io::Result<[tokio::signal::unix::Signal; 2]>,
}

impl StopSignals {
    #[cfg(unix)]
    pub(super) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = signal(SignalKind::terminate())
            .and_then(|terminate| Ok([terminate, signal(SignalKind::interrupt())?]))
            .inspect_err(|error| tracing::error!(%error, "SIGTERM and Ctrl-C cannot be listened for"));
        Self { streams }
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> Self {
        Self {}
    }

    /// Waits for the next one; for ever if they cannot be listened for, and then they end the process.
    #[cfg(unix)]
    pub(super) async fn received(&mut self) {
        let Ok([terminate, interrupt]) = &mut self.streams else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn received(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Ends the process soon, from a thread that no runtime waits for.
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime would wait for the handler for ever, and no task of it may run"
)]
pub(super) fn end_process_soon() {
    std::thread::spawn(|| {
        std::thread::sleep(REST_OF_MAIN);
        tracing::error!("the process is ended although a handler goes on that cannot be aborted");
        std::process::exit(1);
    });
}
