//! The watchers of tasks, by task, and how many streams are open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use task_repo_protocol::Uuid;

use super::watcher::{Told, Watcher};
use crate::store::StoreError;
use crate::usecases::failure::Failure;

/// How many streams may be open.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// On this server.
    pub all: usize,
    /// Of one tenant, on this server.
    pub per_tenant: usize,
}

/// The streams that are open, counted.
#[derive(Debug)]
pub(super) struct OpenStreams {
    limits: StreamLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_tenant: HashMap<Arc<str>, usize>,
}

/// An open stream, counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream {
    streams: Arc<OpenStreams>,
    tenant: Arc<str>,
}

impl OpenStreams {
    pub(super) fn new(limits: StreamLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.counts.lock().all
    }

    /// Refuses one more where the server is full, whoever asks.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.count() >= self.limits.all { Err(StoreError::Overloaded.into()) } else { Ok(()) }
    }

    /// One more.
    pub(super) fn open(self: &Arc<Self>, tenant: &Arc<str>) -> Result<OpenStream, Failure> {
        let mut counts = self.counts.lock();
        if counts.all >= self.limits.all {
            return Err(StoreError::Overloaded.into());
        }
        let current = counts.by_tenant.get(tenant).copied().unwrap_or_default();
        if current >= self.limits.per_tenant {
            let (limit, current) = (self.limits.per_tenant as u64, current as u64);
            return Err(Failure::LimitExceeded { limit_type: "streams", limit, current });
        }
        counts.all += 1;
        counts.by_tenant.insert(Arc::clone(tenant), current + 1);
        Ok(OpenStream { streams: Arc::clone(self), tenant: Arc::clone(tenant) })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut counts = self.streams.counts.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_tenant.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.by_tenant.remove(&self.tenant);
            }
        }
    }
}

/// The watchers of tasks.
#[derive(Debug, Default)]
pub(super) struct TaskWatchers(RwLock<HashMap<Uuid, Vec<Arc<Watcher>>>>);

/// A watcher that hears of its task until this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    id: Uuid,
    pub(super) watcher: Arc<Watcher>,
    watchers: Arc<TaskWatchers>,
}

impl TaskWatchers {
    /// One more, who hears of the task from now on.
    pub(super) fn add(self: &Arc<Self>, id: Uuid) -> Registered {
        let watcher = Arc::new(Watcher::new());
        self.0.write().entry(id).or_default().push(Arc::clone(&watcher));
        Registered { id, watcher, watchers: Arc::clone(self) }
    }

    /// Whether anybody watches any.
    pub(super) fn is_any(&self) -> bool {
        !self.0.read().is_empty()
    }

    /// Whether anybody watches that task.
    pub(super) fn has(&self, id: Uuid) -> bool {
        self.0.read().contains_key(&id)
    }

    /// Whether that version of the task would be news to anybody.
    pub(super) fn wants(&self, id: Uuid, version: i64) -> bool {
        self.0.read().get(&id).is_some_and(|watchers| watchers.iter().any(|watcher| watcher.wants(version)))
    }

    /// Tells all watchers of the task.
    pub(super) fn tell(&self, id: Uuid, told: &Arc<Told>) {
        self.0.read().get(&id).into_iter().flatten().for_each(|watcher| watcher.tell(told));
    }

    /// Has all watchers of the task come again.
    pub(super) fn cut_off(&self, id: Uuid) {
        self.0.read().get(&id).into_iter().flatten().for_each(|watcher| watcher.cut_off());
    }

    /// Has all watchers of all tasks come again.
    pub(super) fn cut_off_all(&self) {
        self.0.read().values().flatten().for_each(|watcher| watcher.cut_off());
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut watchers = self.watchers.0.write();
        if let Some(of_task) = watchers.get_mut(&self.id) {
            of_task.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
            if of_task.is_empty() {
                watchers.remove(&self.id);
            }
        }
    }
}
