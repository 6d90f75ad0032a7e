//! Ready tasks read ahead of their callers.
//!
//! Whoever looks for work at the front of a busy queue steps over everything that was taken lately, so each look
//! brings more than is wanted now. What is on the shelf is a guess: a task counts as taken only once the guarded write
//! has found it as it was read, so one that was cancelled, edited or taken meanwhile is never handed out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::store::{ClaimOrder, From, Ready, Selection};
use crate::task::TaskRecord;

/// How long a look at the front of the queue is believed: work that other servers made ready at the place of older
/// work waits no longer.
const FRESH: Duration = Duration::from_millis(250);
/// Most tasks that one look brings.
pub(super) const MAX_LOOK: usize = 1000;
/// Most bytes on all shelves of a server; beyond, looks bring what is wanted now and no more.
const MAX_BYTES: usize = 32 << 20;
/// Most bytes that one look brings beyond what is wanted.
const MAX_AHEAD_BYTES: usize = 1 << 20;
/// Bytes of a task beside its payloads.
const TASK_BYTES: usize = 1000;

/// How much of the queue is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing: the next look is at the front.
    Nothing,
    /// All up to a task, which is on the shelf or taken.
    UpTo(ClaimOrder),
    /// All.
    Everything,
}

/// What became ready on this server during a look, which may or may not have seen it.
#[derive(Default)]
struct Meanwhile {
    offered: Vec<TaskRecord>,
    /// Something whose payload is not at hand as well, so that a look which found all may lack it.
    came_back: bool,
}

/// Ready tasks of one selection, in claim order.
pub(super) struct Shelf {
    tasks: VecDeque<TaskRecord>,
    known: Known,
    /// When the front was looked at.
    looked: Option<Instant>,
    /// When anything was read.
    read: Option<Instant>,
    window: usize,
    /// Of the tasks that were read last.
    average_bytes: usize,
    /// When another server was seen to take from this queue as well.
    contended: Option<Instant>,
    /// Something came back during the last look: only what is taken at once may go before it.
    lacks_some: bool,
    /// While a look is under way.
    meanwhile: Option<Meanwhile>,
    total: Arc<AtomicUsize>,
}

impl Shelf {
    /// An empty one; `total` counts the bytes on all shelves.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self {
            tasks: VecDeque::new(),
            known: Known::Nothing,
            looked: None,
            read: None,
            window: 0,
            average_bytes: TASK_BYTES,
            contended: None,
            lacks_some: false,
            meanwhile: None,
            total,
        }
    }

    /// The first tasks, up to that many, unless they have been here for too long.
    pub(super) fn take(&mut self, count: usize) -> Vec<TaskRecord> {
        if self.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            self.clear();
        }
        let tasks: Vec<_> = self.tasks.drain(..count.min(self.tasks.len())).collect();
        self.total.fetch_sub(tasks.iter().map(bytes).sum(), Ordering::Relaxed);
        if std::mem::take(&mut self.lacks_some) {
            self.forget();
        }
        tasks
    }

    /// Whether anything is left.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether all ready work is known, so that a look would bring nothing more.
    pub(super) fn knows_everything(&self) -> bool {
        self.known == Known::Everything
    }

    /// Whether nothing at all is ready, as far as this server knows.
    pub(super) fn is_known_to_be_empty(&self) -> bool {
        self.tasks.is_empty() && self.knows_everything() && self.meanwhile.is_none()
    }

    /// Where to look next, and how many tasks to read, when `wanted` are needed now. The look ends with
    /// [`add`](Self::add) or [`forget`](Self::forget).
    pub(super) fn next_look(&mut self, selection: &Selection, wanted: usize) -> (From, usize) {
        let pause = self.read.map_or(Duration::MAX, |read| read.elapsed());
        let has_room = self.total.load(Ordering::Relaxed) < MAX_BYTES;
        // For who keeps asking, each look reads further ahead, as far as what it brings is used while it is fresh.
        let ahead = match pause {
            _ if !has_room => 0,
            pause if pause < FRESH / 4 => 2 * self.window,
            pause if pause < FRESH => self.window,
            _ => 0,
        };
        self.window = ahead.min(MAX_AHEAD_BYTES / self.average_bytes).max(wanted).min(MAX_LOOK);
        let is_fresh = self.looked.is_some_and(|looked| looked.elapsed() < FRESH);
        let from = match self.known {
            Known::UpTo(order) if is_fresh && !self.is_contended() && selection.is_one_queue() => {
                From::After(order)
            }
            Known::UpTo(_) | Known::Nothing | Known::Everything => From::Front,
        };
        self.meanwhile = Some(Meanwhile::default());
        (from, self.window)
    }

    /// Keeps what a look has brought.
    pub(super) fn add(&mut self, from: From, limit: usize, ready: Ready) {
        let is_all = ready.tasks.len() < limit && !ready.is_cut;
        let added: usize = ready.tasks.iter().map(bytes).sum();
        self.average_bytes = added.checked_div(ready.tasks.len()).unwrap_or(TASK_BYTES);
        self.read = Some(Instant::now());
        if from == From::Front {
            self.clear();
            self.looked = Some(Instant::now());
        }
        self.known = match (from, ready.tasks.last()) {
            (From::Front, _) if is_all => Known::Everything,
            // Somebody may have been overtaken: at the end of the queue the front is looked at again.
            (From::After(_), _) if is_all => Known::Nothing,
            (_, Some(last)) => Known::UpTo(last.claim_order()),
            (_, None) => Known::Nothing,
        };
        self.total.fetch_add(added, Ordering::Relaxed);
        self.tasks.extend(ready.tasks);
        if from == From::Front && self.is_contended() {
            self.start_apart();
        }
        let meanwhile = self.meanwhile.take().unwrap_or_default();
        if meanwhile.came_back {
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
                self.total.fetch_add(bytes(&task), Ordering::Relaxed);
                self.tasks.push_front(task);
            }
        }
    }

    /// A task has just become ready on this server. `false`: a look is needed to find it.
    pub(super) fn offer(&mut self, task: &TaskRecord) -> bool {
        match &mut self.meanwhile {
            Some(meanwhile) if meanwhile.offered.len() < MAX_LOOK => {
                meanwhile.offered.push(task.clone());
                true
            }
            Some(_) => false,
            None => self.put(task.clone()),
        }
    }

    /// A task whose payload is not at hand is ready again on this server: it must not wait behind what was read ahead.
    pub(super) fn make_way(&mut self, order: ClaimOrder) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.came_back = true;
            return;
        }
        let is_behind = match self.known {
            Known::UpTo(last) => order > last,
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
        let order = task.claim_order();
        let is_known = match self.known {
            Known::Nothing => false,
            Known::UpTo(last) => order < last,
            Known::Everything => true,
        };
        if !is_known || self.tasks.len() >= MAX_LOOK || self.total.load(Ordering::Relaxed) > MAX_BYTES {
            // Whatever comes after the last one here is not known any more.
            if self.known == Known::Everything {
                self.known = self.tasks.back().map_or(Known::Nothing, |last| Known::UpTo(last.claim_order()));
            }
            return false;
        }
        if self.tasks.is_empty() {
            self.looked = Some(Instant::now());
        }
        let place = self.tasks.partition_point(|other| other.claim_order() < order);
        self.total.fetch_add(bytes(&task), Ordering::Relaxed);
        self.tasks.insert(place, task);
        true
    }

    fn has(&self, task: &TaskRecord) -> bool {
        self.tasks.iter().any(|other| other.id == task.id)
    }

    /// What was here is not true any more; the next look is at the front.
    pub(super) fn forget(&mut self) {
        self.meanwhile = None;
        self.clear();
        self.known = Known::Nothing;
    }

    /// Others were faster with tasks that were taken off. If that goes on, another server takes from
    /// this queue too, and looks start apart from its for a while.
    pub(super) fn missed(&mut self, goes_on: bool) {
        if goes_on || self.is_contended() {
            self.contended = Some(Instant::now());
        }
        self.forget();
    }

    fn is_contended(&self) -> bool {
        self.contended.is_some_and(|since| since.elapsed() < Duration::from_secs(1))
    }

    /// Begins at a random place among the tasks of the first priority, so that servers do not meet at each task.
    fn start_apart(&mut self) {
        let first = self.tasks.front().map(|task| task.priority);
        let alike = self.tasks.iter().take_while(|task| Some(task.priority) == first).count();
        if alike > 1 {
            let mut run: VecDeque<_> = self.tasks.drain(..alike).collect();
            run.rotate_left(rand::rng().random_range(0..alike));
            run.append(&mut self.tasks);
            self.tasks = run;
        }
        // Not in order, so nothing can be said of places in it.
        self.known = Known::Nothing;
    }

    fn clear(&mut self) {
        if self.known != Known::Everything || !self.tasks.is_empty() {
            self.known = Known::Nothing;
        }
        self.total.fetch_sub(self.tasks.iter().map(bytes).sum(), Ordering::Relaxed);
        self.tasks.clear();
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bytes(task: &TaskRecord) -> usize {
    task.input_bytes as usize + TASK_BYTES
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Uuid;

    use super::*;
    use crate::scope::Scope;

    fn shelf() -> Shelf {
        Shelf::new(Arc::default())
    }

    fn task(id: u128, priority: i32) -> TaskRecord {
        TaskRecord { priority, ..TaskRecord::pending(Uuid::from_u128(id)) }
    }

    fn selection() -> Selection {
        Selection { scope: Scope::tenant("default"), task_types: vec!["t".to_owned()], tags: Vec::new() }
    }

    #[test]
    fn what_came_back_during_a_look_is_not_overtaken_by_what_is_offered_after_it() {
        let mut shelf = shelf();
        let (from, limit) = shelf.next_look(&selection(), 1);
        shelf.make_way(task(1, 90).claim_order());
        shelf.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
        assert!(!shelf.is_known_to_be_empty());
        assert!(!shelf.offer(&task(2, 10)), "the look did not see what came back");

        let (from, limit) = shelf.next_look(&selection(), 2);
        shelf.make_way(task(1, 50).claim_order());
        shelf.add(from, limit, Ready { tasks: vec![task(2, 50), task(3, 50)], is_cut: false });
        assert_eq!(shelf.take(1).len(), 1, "what is wanted at once");
        assert!(shelf.is_empty() && !shelf.knows_everything());
    }

    #[test]
    fn what_is_offered_to_a_queue_known_to_be_empty_needs_no_look() {
        let mut shelf = shelf();
        let (from, limit) = shelf.next_look(&selection(), 1);
        shelf.add(from, limit, Ready { tasks: Vec::new(), is_cut: false });
        assert!(shelf.is_known_to_be_empty());
        assert!(shelf.offer(&task(2, 10)));
        assert_eq!(shelf.take(2).len(), 1);
    }
}
