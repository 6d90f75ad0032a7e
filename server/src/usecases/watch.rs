//! Waiting for the end of a task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use task_repo_protocol::Uuid;
use tokio::sync::Notify;

/// Who waits for the end of which task.
#[derive(Default)]
pub(super) struct Watch {
    watched: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
    idle: Arc<AtomicUsize>,
}

/// Counts a caller who has read its task and waits now, until it is dropped.
pub(super) struct Idle(Arc<AtomicUsize>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One who waits. Its place is given up when it is dropped.
pub(super) struct Watcher {
    id: Uuid,
    notify: Option<Arc<Notify>>,
    watched: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
}

impl Watch {
    /// From now on the end of this task is not missed.
    pub(super) fn watch(&self, id: Uuid) -> Watcher {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = Some(Arc::clone(watched.entry(id).or_default()));
        Watcher { id, notify, watched: Arc::clone(&self.watched) }
    }

    /// The task has become final, or was deleted.
    pub(super) fn finished(&self, id: Uuid) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = watched.get(&id) {
            notify.notify_waiters();
        }
    }

    /// Counts the caller among those who [are idle](Self::idle).
    pub(super) fn count_idle(&self) -> Idle {
        self.idle.fetch_add(1, Ordering::AcqRel);
        Idle(Arc::clone(&self.idle))
    }

    /// How many callers have read their task, found it unfinished and wait.
    pub(super) fn idle(&self) -> usize {
        self.idle.load(Ordering::Acquire)
    }

    /// Which tasks somebody waits for.
    pub(super) fn watched(&self) -> Vec<Uuid> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Watcher {
    /// Resolves at the next end of the task after it was first polled.
    pub(super) fn finished(&self) -> impl Future<Output = ()> {
        let notify = self.notify.clone();
        async move {
            if let Some(notify) = notify {
                notify.notified().await;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.notify = None;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.get(&self.id).is_some_and(|notify| Arc::strong_count(notify) == 1) {
            watched.remove(&self.id);
        }
    }
}
