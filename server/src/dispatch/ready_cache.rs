//! Ready tasks read ahead of their callers.
//!
//! A read at the front of a busy queue steps over what was claimed lately, so each read brings more tasks than are wanted
//! now. The ready cache is a guess: the guarded write claims only what it finds as it was read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::partition::Partition;
use crate::store::{Ready, ReadyFrom, Selection};
use crate::task::{Order, Position, TaskRecord};

/// How long a read of the front of the queue is believed. Then the front is read again, so that work which another server
/// put ahead of the cached tasks waits at most this long.
const FRONT_BELIEVED: Duration = Duration::from_millis(250);
/// Most tasks that one read brings.
pub(super) const MAX_TASKS_PER_READ: usize = 1000;
/// Most bytes in all ready caches of a server; beyond, reads bring what is wanted now and no more.
const MAX_CACHED_BYTES: usize = 32 << 20;
/// Most bytes that one read brings beyond what is wanted.
const MAX_AHEAD_BYTES: usize = 1 << 20;
/// Bytes of a task where nothing is known yet.
const USUAL_BYTES: usize = 1000;

/// How much of the queue is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing: the next read is of the front.
    Nothing,
    /// All up to a position, whose task is in the cache or was taken out.
    UpTo(Position),
    /// All.
    Everything,
}

/// What became ready on this server during a read, which may or may not have seen it.
#[derive(Default)]
struct DuringRead {
    offered: Vec<TaskRecord>,
    bytes: usize,
    /// A task became ready again whose payload is not at hand, so that a read which found all may lack it.
    ready_again: bool,
}

/// Ready tasks of one selection, in claim order.
pub(super) struct ReadyCache {
    /// The task types it is about: those of the selection that may be given out.
    task_types: Vec<String>,
    tasks: VecDeque<TaskRecord>,
    known: Known,
    /// When the front was read, and when anything was.
    front_read_at: Option<Instant>,
    read_at: Option<Instant>,
    window: usize,
    /// Of the tasks that were read last.
    average_bytes: usize,
    partition: Partition,
    /// The last read may have missed a task that became ready again: after the next `take` the rest of the cache is dropped.
    lacks_some: bool,
    /// While a read is under way.
    during_read: Option<DuringRead>,
    total: Arc<AtomicUsize>,
}

impl ReadyCache {
    /// An empty one; `total` counts the bytes in all ready caches.
    pub(super) fn new(total: Arc<AtomicUsize>, random: SmallRng) -> Self {
        Self {
            task_types: Vec::new(),
            tasks: VecDeque::new(),
            known: Known::Nothing,
            front_read_at: None,
            read_at: None,
            window: 0,
            average_bytes: USUAL_BYTES,
            partition: Partition::new(random),
            lacks_some: false,
            during_read: None,
            total,
        }
    }

    /// From now on it is about these types only; of others than before it knows nothing.
    pub(super) fn limit_to(&mut self, task_types: &[String]) {
        if self.task_types != task_types {
            self.forget();
            task_types.clone_into(&mut self.task_types);
        }
    }

    /// A task is ready and may not be given out yet: it is not among what is known.
    pub(super) fn hold_back(&mut self, task: &TaskRecord) {
        // Of a type that is held back already nothing is here, and the cache begins anew when that ends.
        if self.task_types.contains(&task.task_type) {
            self.ready_again(Order::Claim.position(task));
        }
    }

    /// The first tasks, up to that many, unless they have been here for too long.
    pub(super) fn take(&mut self, count: usize) -> Vec<TaskRecord> {
        if self.front_read_at.is_none_or(|at| at.elapsed() > FRONT_BELIEVED) {
            self.clear();
        }
        let tasks: Vec<_> = self.tasks.drain(..count.min(self.tasks.len())).collect();
        self.total.fetch_sub(tasks.iter().map(TaskRecord::bytes).sum(), Ordering::Relaxed);
        if std::mem::take(&mut self.lacks_some) {
            self.forget();
        }
        tasks
    }

    /// Whether the next tasks come without a read of the front: newer work of higher priority would not be noticed.
    pub(super) fn is_ahead(&self) -> bool {
        !self.tasks.is_empty() || matches!(self.known, Known::UpTo(_))
    }

    /// Whether all ready work is known, so that a read would bring nothing more.
    pub(super) fn knows_everything(&self) -> bool {
        self.known == Known::Everything
    }

    /// Whether nothing at all is ready, as far as this server knows.
    pub(super) fn is_known_to_be_empty(&self) -> bool {
        self.tasks.is_empty() && self.knows_everything() && self.during_read.is_none()
    }

    /// Where to read next, and how many tasks, when `wanted` are needed now beside `held`, which were taken out and are
    /// found again by a read of the front. The read ends with [`add`](Self::add) or [`forget`](Self::forget).
    pub(super) fn next_read(
        &mut self,
        selection: &Selection,
        wanted: usize,
        held: usize,
    ) -> (ReadyFrom, usize) {
        let pause = self.read_at.map_or(Duration::MAX, |at| at.elapsed());
        let has_room = self.total.load(Ordering::Relaxed) < MAX_CACHED_BYTES;
        // While callers keep asking, each read goes further ahead, as far as what it brings is used while it is believed.
        let ahead = match pause {
            _ if !has_room => 0,
            pause if pause < FRONT_BELIEVED / 4 => 2 * self.window,
            pause if pause < FRONT_BELIEVED => self.window,
            _ => 0,
        };
        let is_fresh = self.front_read_at.is_some_and(|at| at.elapsed() < FRONT_BELIEVED);
        let from = match self.known {
            Known::UpTo(order) if is_fresh && selection.is_one_queue() => {
                ReadyFrom::After(order, self.partition.last_bit())
            }
            Known::UpTo(_) | Known::Nothing | Known::Everything => ReadyFrom::Front,
        };
        let wanted = if from == ReadyFrom::Front { wanted + held } else { wanted };
        self.window = ahead.min(MAX_AHEAD_BYTES / self.average_bytes).max(wanted).min(MAX_TASKS_PER_READ);
        self.during_read = Some(DuringRead::default());
        (from, self.window)
    }

    /// Keeps what a read has brought.
    pub(super) fn add(&mut self, from: ReadyFrom, limit: usize, ready: Ready) {
        let is_all = ready.tasks.len() < limit && !ready.is_cut;
        let added: usize = ready.tasks.iter().map(TaskRecord::bytes).sum();
        self.average_bytes = added.checked_div(ready.tasks.len()).unwrap_or(USUAL_BYTES);
        self.read_at = Some(Instant::now());
        if from == ReadyFrom::Front {
            self.clear();
            self.front_read_at = Some(Instant::now());
        }
        self.known = match (from, ready.tasks.last()) {
            (ReadyFrom::Front, _) if is_all => Known::Everything,
            // A task may have been overtaken: at the end of the queue the front is read again.
            (ReadyFrom::After(..), _) if is_all => Known::Nothing,
            (_, Some(last)) => Known::UpTo(Order::Claim.position(last)),
            (_, None) => Known::Nothing,
        };
        let mut brought = VecDeque::from(ready.tasks);
        if !self.partition.keep_ours(&mut brought, from == ReadyFrom::Front, is_all) {
            self.known = Known::Nothing;
        }
        self.total.fetch_add(brought.iter().map(TaskRecord::bytes).sum(), Ordering::Relaxed);
        self.tasks.append(&mut brought);
        let meanwhile = self.during_read.take().unwrap_or_default();
        if meanwhile.ready_again {
            self.known = Known::Nothing;
            self.lacks_some = true;
        }
        for task in meanwhile.offered {
            if !self.has(&task) {
                self.put(task);
            }
        }
    }

    /// Puts work before all that is here.
    pub(super) fn add_before(&mut self, tasks: Vec<TaskRecord>) {
        for task in tasks.into_iter().rev() {
            if !self.has(&task) {
                self.total.fetch_add(task.bytes(), Ordering::Relaxed);
                self.tasks.push_front(task);
            }
        }
    }

    /// A task has just become ready on this server. `false`: a read is needed to find it.
    pub(super) fn offer(&mut self, task: &TaskRecord) -> bool {
        match &mut self.during_read {
            Some(meanwhile) if meanwhile.bytes + task.bytes() <= MAX_AHEAD_BYTES => {
                meanwhile.bytes += task.bytes();
                meanwhile.offered.push(task.clone());
                true
            }
            Some(_) => false,
            None => self.put(task.clone()),
        }
    }

    /// A task whose payload is not at hand is ready again on this server: it must not wait behind what was read ahead.
    pub(super) fn ready_again(&mut self, position: Position) {
        if let Some(meanwhile) = &mut self.during_read {
            meanwhile.ready_again = true;
            return;
        }
        let is_behind = match self.known {
            Known::UpTo(last) => Order::Claim.is_before(&last, &position),
            Known::Nothing => self.tasks.is_empty(),
            // Not all any more: what is offered next must not go before it.
            Known::Everything => false,
        };
        if !is_behind {
            self.forget();
        }
    }

    /// Keeps a task where all that comes before it is known.
    fn put(&mut self, task: TaskRecord) -> bool {
        let position = Order::Claim.position(&task);
        let is_known = match self.known {
            Known::Nothing => false,
            Known::UpTo(last) => Order::Claim.is_before(&position, &last),
            Known::Everything => true,
        };
        if !is_known
            || self.tasks.len() >= MAX_TASKS_PER_READ
            || self.total.load(Ordering::Relaxed) > MAX_CACHED_BYTES
        {
            // Work behind the last task here is not known any more.
            if self.known == Known::Everything {
                self.known =
                    self.tasks.back().map_or(Known::Nothing, |last| Known::UpTo(Order::Claim.position(last)));
            }
            return false;
        }
        // Complete and empty, so this task is the front: that counts as a fresh read of it.
        if self.tasks.is_empty() && self.known == Known::Everything {
            self.front_read_at = Some(Instant::now());
        }
        let place = self
            .tasks
            .partition_point(|other| Order::Claim.is_before(&Order::Claim.position(other), &position));
        self.total.fetch_add(task.bytes(), Ordering::Relaxed);
        self.tasks.insert(place, task);
        true
    }

    fn has(&self, task: &TaskRecord) -> bool {
        self.tasks.iter().any(|other| other.id == task.id)
    }

    /// What was here is not true any more; the next read is of the front.
    pub(super) fn forget(&mut self) {
        self.during_read = None;
        self.clear();
        self.known = Known::Nothing;
    }

    /// Of `picked` tasks that were taken out, `landed` could be claimed; other servers were faster with the rest.
    pub(super) fn claimed(&mut self, picked: usize, landed: usize) {
        if !self.partition.claimed(picked, landed) {
            self.forget();
        } else if landed < picked {
            // Some may be ready still, but have changed.
            self.known = Known::Nothing;
        }
    }

    fn clear(&mut self) {
        if self.known != Known::Everything || !self.tasks.is_empty() {
            self.known = Known::Nothing;
        }
        self.total.fetch_sub(self.tasks.iter().map(TaskRecord::bytes).sum(), Ordering::Relaxed);
        self.tasks.clear();
    }
}

impl Drop for ReadyCache {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests;
