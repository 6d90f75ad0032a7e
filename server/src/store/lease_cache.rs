//! The tasks that this server has leased, as it last wrote them.
//!
//! Most settlements come back to the server that handed the task out. It still knows the task, so the guarded write
//! can go first, and only a miss is explained by a read. What is remembered decides nothing: a write made from an old
//! memory finds another task and does nothing, and no refusal is given before the database was asked.

use std::sync::Arc;
use std::time::Duration;

use bson::RawDocumentBuf;
use moka::sync::Cache;
use task_repo_protocol::Uuid;

use crate::task::{Status, TaskRecord};

/// Most bytes of tasks that are remembered: about 60 000 small ones.
const MAX_CACHED_BYTES: u64 = 64 << 20;
/// Bytes of an entry beside the stored form of its task.
const ENTRY_BYTES: usize = 300;
/// How long a task is remembered that nothing is heard of.
const CACHED_FOR: Duration = Duration::from_secs(300);

/// Tasks under a lease, without their payloads, in the stored form that this server last wrote: it takes a fraction of
/// a record's memory.
#[derive(Clone)]
pub(in crate::store) struct LeaseCache(Cache<Uuid, Arc<RawDocumentBuf>>);

impl Default for LeaseCache {
    fn default() -> Self {
        let weigh = |_: &Uuid, task: &Arc<RawDocumentBuf>| {
            (task.as_bytes().len() + ENTRY_BYTES).try_into().unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MAX_CACHED_BYTES).weigher(weigh).time_to_idle(CACHED_FOR).build())
    }
}

impl LeaseCache {
    /// The task as this server last wrote it; it is remembered again when it is written again.
    pub(in crate::store) fn take(&self, id: Uuid) -> Option<RawDocumentBuf> {
        self.0.remove(&id).map(Arc::unwrap_or_clone)
    }

    /// Whether a task is worth remembering, without its payloads: while it is leased.
    pub(in crate::store) fn want(task: &TaskRecord) -> bool {
        task.status == Status::Processing && task.lease.is_some()
    }

    /// Remembers a task that is [wanted](Self::want) in this stored form.
    pub(in crate::store) fn note(&self, id: Uuid, stored: RawDocumentBuf) {
        self.0.insert(id, Arc::new(stored));
    }

    /// Removes a task whose entry is not true any more.
    pub(in crate::store) fn forget(&self, id: Uuid) {
        self.0.invalidate(&id);
    }
}
