//! Waiting for the end of a task.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use task_repo_protocol::Uuid;
use tokio::sync::Notify;

use crate::events::{Hub, TaskEvent};

/// The calls that wait for the end of a task.
#[derive(Default)]
pub(crate) struct EndWaits {
    waiting: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
    idle: Arc<AtomicUsize>,
}

/// Counts a caller who has read its task and waits now, until it is dropped.
pub(crate) struct Idle(Arc<AtomicUsize>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A call that waits, until it is dropped.
pub(crate) struct EndWait {
    id: Uuid,
    notify: Option<Arc<Notify>>,
    waiting: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
}

impl EndWaits {
    /// None yet. They hear from the hub which tasks end on this server.
    pub(super) fn new(hub: &Hub) -> Arc<Self> {
        let waits = Arc::<Self>::default();
        let heard = Arc::clone(&waits);
        hub.subscribe(move |TaskEvent { task, .. }| {
            if task.deleted_at.is_some() || task.status.is_final() {
                heard.finished(task.id);
            }
        });
        waits
    }

    /// From now on the end of this task is not missed.
    pub(crate) fn wait_for(&self, id: Uuid) -> EndWait {
        let mut waiting = self.waiting.lock();
        let notify = Some(Arc::clone(waiting.entry(id).or_default()));
        EndWait { id, notify, waiting: Arc::clone(&self.waiting) }
    }

    /// The task has become final, or was deleted.
    pub(crate) fn finished(&self, id: Uuid) {
        let waiting = self.waiting.lock();
        if let Some(notify) = waiting.get(&id) {
            notify.notify_waiters();
        }
    }

    /// Counts the caller among those who [are idle](Self::idle).
    pub(crate) fn count_idle(&self) -> Idle {
        self.idle.fetch_add(1, Ordering::AcqRel);
        Idle(Arc::clone(&self.idle))
    }

    /// How many callers have read their task, found it unfinished and wait.
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Acquire)
    }

    /// Which tasks a call waits for.
    pub(crate) fn awaited(&self) -> Vec<Uuid> {
        self.waiting.lock().keys().copied().collect()
    }
}

impl EndWait {
    /// Resolves at the next end of the task after it was first polled.
    pub(crate) fn finished(&self) -> impl Future<Output = ()> {
        let notify = self.notify.clone();
        async move {
            if let Some(notify) = notify {
                notify.notified().await;
            }
        }
    }
}

impl Drop for EndWait {
    fn drop(&mut self) {
        self.notify = None;
        let mut waiting = self.waiting.lock();
        if waiting.get(&self.id).is_some_and(|notify| Arc::strong_count(notify) == 1) {
            waiting.remove(&self.id);
        }
    }
}
