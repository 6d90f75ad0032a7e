//! What the server does beside its requests, and when that ends.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Work that outlives the request it came with, and the jobs. All of it runs on the server's own runtime, because the
/// threads that answer requests come and go.
#[derive(Debug, Clone)]
pub struct Background {
    runtime: Handle,
    work: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
}

impl Background {
    /// On the runtime that this is called on.
    pub fn new() -> Self {
        Self {
            runtime: Handle::current(),
            work: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Does this work, which [`stop`](Self::stop) waits for.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.work.spawn_on(work, &self.runtime)
    }

    /// From now on the server takes no new waiting calls, because it is about to stop.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when the server is about to stop.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether the jobs end now.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves when the jobs end.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Has all work end, and waits for it.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.work.close();
        self.work.wait().await;
    }
}

impl Default for Background {
    fn default() -> Self {
        Self::new()
    }
}
