//! A look at those who wait for tasks with a client: the worker runtime watches what its handlers wait for.

use std::fmt;
use std::time::Duration;

use task_repo_protocol::Task;

/// How long the first look at an awaited task takes at most where waits are watched, so that a standstill is told soon.
pub(crate) const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Watches the waits of one client.
pub(crate) trait WaitWatcher: fmt::Debug + Send + Sync {
    /// A wait begins.
    fn begins(&self);
    /// The task that is waited for is not final yet.
    fn goes_on(&self, awaited: &Task);
    /// The wait has ended, however it did.
    fn ends(&self);
}

/// A wait under way, until it is dropped.
pub(crate) struct WatchedWait<'a>(&'a dyn WaitWatcher);

impl<'a> WatchedWait<'a> {
    pub(crate) fn begin(watcher: &'a dyn WaitWatcher) -> Self {
        watcher.begins();
        Self(watcher)
    }

    pub(crate) fn goes_on(&self, awaited: &Task) {
        self.0.goes_on(awaited);
    }
}

impl Drop for WatchedWait<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}
