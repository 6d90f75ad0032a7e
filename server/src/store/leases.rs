//! What this server knows of the tasks it has leased.
//!
//! Most settlements come back to the server that handed the task out. It still knows the task, so the guarded write
//! can go first, and only a miss is explained by a read. What is remembered decides nothing: a write made from an old
//! memory finds another task and does nothing, and no refusal is given before the database was asked.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use task_repo_protocol::{Status, Uuid};

use crate::task::TaskRecord;

/// How many tasks are remembered, at about a kilobyte each.
const CAPACITY: u64 = 20_000;
/// How long a task is remembered that nothing is heard of.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Tasks under a lease, without their payloads, as this server last wrote them.
#[derive(Clone)]
pub(super) struct Leases(Cache<Uuid, Arc<TaskRecord>>);

impl Default for Leases {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_idle(REMEMBERED).build())
    }
}

impl Leases {
    /// The task as this server last wrote it; it is remembered again when it is written again.
    pub(super) fn take(&self, id: Uuid) -> Option<TaskRecord> {
        self.0.remove(&id).map(Arc::unwrap_or_clone)
    }

    /// Remembers a task while it is leased.
    pub(super) fn note(&self, mut task: Arc<TaskRecord>) {
        if task.status == Status::Processing && task.lease.is_some() {
            if task.has_payload() {
                Arc::make_mut(&mut task).take_payload();
            }
            self.0.insert(task.id, task);
        } else {
            self.forget(task.id);
        }
    }

    /// What was remembered is not true any more.
    pub(super) fn forget(&self, id: Uuid) {
        self.0.invalidate(&id);
    }
}
