//! Ready tasks read ahead of their callers.
//!
//! A read at the front of a busy queue steps over everything that was claimed lately, so each read brings more tasks than
//! are wanted now. The ready cache is a guess: a task is claimed only once the guarded write has found it as it was read.
//! One that was cancelled, edited or claimed meanwhile is never delivered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::partition::Partition;
use crate::store::{Ready, ReadyFrom, Selection};
use crate::task::{Order, Position, TaskRecord};

/// How long a read of the front of the queue is believed. After that the cached tasks are dropped and the front is read
/// again, so that work which another server put ahead of them waits at most this long.
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
    tasks: VecDeque<TaskRecord>,
    known: Known,
    /// When the front was read.
    front_read_at: Option<Instant>,
    /// When anything was read.
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

    /// Whether the next tasks come without a read of the front, so that newer work of higher priority would not be noticed.
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
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use rand::SeedableRng as _;
    use task_repo_protocol::Uuid;

    use super::*;
    use crate::access::Scope;

    fn cache(seed: u64) -> ReadyCache {
        ReadyCache::new(Arc::default(), SmallRng::seed_from_u64(seed))
    }

    fn task(id: u128, priority: i32) -> TaskRecord {
        TaskRecord { priority, ..TaskRecord::pending(Uuid::from_u128(id)) }
    }

    fn selection() -> Selection {
        Selection { scope: Scope::tenant("default"), task_types: vec!["t".to_owned()], tags: Vec::new() }
    }

    #[test]
    fn what_is_ready_again_during_a_read_is_not_overtaken_by_what_is_offered_after_it() {
        let mut cache = cache(1);
        let (from, limit) = cache.next_read(&selection(), 1, 0);
        cache.ready_again(Order::Claim.position(&task(1, 90)));
        cache.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
        assert!(!cache.is_known_to_be_empty());
        assert!(!cache.offer(&task(2, 10)), "the read did not see what is ready again");

        let (from, limit) = cache.next_read(&selection(), 2, 0);
        cache.ready_again(Order::Claim.position(&task(1, 50)));
        cache.add(from, limit, Ready { tasks: vec![task(2, 50), task(3, 50)], is_cut: false });
        assert_eq!(cache.take(1).len(), 1, "what is wanted at once");
        assert!(cache.tasks.is_empty() && !cache.knows_everything());
    }

    #[test]
    fn what_is_offered_to_a_queue_known_to_be_empty_needs_no_read() {
        let mut cache = cache(1);
        let (from, limit) = cache.next_read(&selection(), 1, 0);
        cache.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
        assert!(cache.is_known_to_be_empty());
        assert!(cache.offer(&task(2, 10)));
        assert_eq!(cache.take(2).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn two_servers_soon_keep_out_of_each_other_s_way() {
        let (mut late, mut missed) = (0, 0);
        for seed in 0..5 {
            let rounds = meet(seed).await;
            let later = &rounds[rounds.len() / 4..rounds.len() * 9 / 10];
            late += 2 * EACH * later.len();
            missed += later.iter().sum::<usize>();
        }
        assert!(missed * 100 < late, "{missed} of {late} were missed");
    }

    /// Tasks that each server wants in a round.
    const EACH: usize = 20;

    /// Two servers empty a queue. How many tasks they have missed in each round.
    async fn meet(seed: u64) -> Vec<usize> {
        let mut queue: BTreeMap<_, _> =
            (0..5_000).map(|id| task(id, 50)).map(|task| ((task.ready_at, task.id), task)).collect();
        let mut servers = [cache(2 * seed), cache(2 * seed + 1)];
        let mut missed = Vec::new();
        while !queue.is_empty() {
            let picks = servers.each_mut().map(|cache| {
                if cache.tasks.is_empty() {
                    let (from, limit) = cache.next_read(&selection(), EACH, 0);
                    let (first, bit) = match from {
                        ReadyFrom::After(last, bit) => (Bound::Excluded((last.time, last.id)), bit),
                        ReadyFrom::Front | ReadyFrom::Above(_) => (Bound::Unbounded, None),
                    };
                    let is_wanted =
                        |task: &&TaskRecord| bit.is_none_or(|bit| (task.id.as_u128() & 1 == 1) == bit);
                    let range = queue.range((first, Bound::Unbounded)).map(|(_, task)| task);
                    let tasks = range.filter(is_wanted).take(limit).cloned().collect();
                    cache.add(from, limit, Ready { tasks, is_cut: false });
                }
                cache.take(EACH)
            });
            let mut missed_now = 0;
            for (cache, picked) in servers.iter_mut().zip(picks) {
                let landed =
                    picked.iter().filter(|task| queue.remove(&(task.ready_at, task.id)).is_some()).count();
                cache.claimed(picked.len(), landed);
                missed_now += picked.len() - landed;
            }
            missed.push(missed_now);
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        missed
    }
}
