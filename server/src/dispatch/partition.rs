//! How several servers share one queue without missing each other's tasks.
//!
//! Servers notice each other only by claims that miss. After two misses within 24 claims, or one large claim that mostly
//! missed, this server takes only tasks of the first priority whose id ends in a bit that it draws at random. Another
//! server that has drawn the other bit does not meet it any more; while claims still miss, the bit is drawn again. The
//! partition ends when no other server takes what was left, or a while after the last miss.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use task_repo_protocol::Uuid;
use tokio::time::Instant;

use crate::task::TaskRecord;

/// Within how many claims a second miss says that another server takes from the queue.
const MISS_WINDOW: u32 = 24;
/// How long a task is left to other servers before they are taken to be gone.
const LEFT_AT_MOST: Duration = Duration::from_millis(250);
/// How long after the last miss the queue stays partitioned. Noticing another server again costs a claim or two.
const PARTITIONED_FOR: Duration = Duration::from_secs(60);
/// For this long after a claim missed within our half, another server is taken to have drawn the same half.
const CROWDED_FOR: Duration = Duration::from_secs(5);
/// A claim of so many tasks is large: most of them are not cancelled or edited by chance.
const LARGE_CLAIM: usize = 8;

/// Which part of a queue this server takes.
pub(super) struct Partition {
    /// For how many more claims a miss counts as the second one.
    miss_window: u32,
    half: Option<Half>,
    /// The last bit of the ids of our half, once it was drawn.
    drawn: Option<u128>,
    random: SmallRng,
}

/// Half of all tasks.
struct Half {
    /// The last bit of their ids.
    bit: u128,
    /// Other servers take from this half as well, so this server begins at a random task of it.
    is_crowded: bool,
    /// When a claim last missed.
    missed: Instant,
    /// The priority of the tasks that were left to other servers.
    priority: Option<i32>,
    /// The first task that was left to other servers, and since when.
    left: Option<(Uuid, Instant)>,
}

impl Half {
    fn has(&self, task: &TaskRecord) -> bool {
        task.id.as_u128() & 1 == self.bit
    }

    /// Whether no other server takes what is left to it, now that `first` is the first such task.
    fn is_left_alone(&mut self, first: Option<Uuid>) -> bool {
        match (self.left, first) {
            // Behind work of higher priority nothing is seen of it.
            (_, None) => false,
            (Some((id, since)), Some(first)) if id == first => since.elapsed() > LEFT_AT_MOST,
            (_, Some(first)) => {
                self.left = Some((first, Instant::now()));
                false
            }
        }
    }
}

impl Partition {
    /// No other server is known of.
    pub(super) fn new(random: SmallRng) -> Self {
        Self { miss_window: 0, half: None, drawn: None, random }
    }

    /// The last bit of the ids of the tasks to be read, if not all are.
    pub(super) fn last_bit(&self) -> Option<bool> {
        self.half.as_ref().map(|half| half.bit == 1)
    }

    /// Of `picked` tasks to be claimed, `landed` were still there. Says whether those that were read with them are
    /// still worth trying.
    pub(super) fn claimed(&mut self, picked: usize, landed: usize) -> bool {
        if landed == picked {
            self.miss_window = self.miss_window.saturating_sub(1);
            return true;
        }
        let is_sure = picked >= LARGE_CLAIM && 2 * landed < picked;
        if std::mem::replace(&mut self.miss_window, MISS_WINDOW) > 0 || is_sure {
            let is_crowded = self.half.is_some();
            let before = self.drawn.filter(|_| !is_crowded);
            let bit = before.unwrap_or_else(|| u128::from(self.random.random::<bool>()));
            self.drawn = Some(bit);
            self.half = Some(Half { bit, is_crowded, missed: Instant::now(), priority: None, left: None });
            return false;
        }
        // Without another server a claim misses only tasks that were cancelled or edited since they were read.
        self.half.is_some() && 2 * landed > picked
    }

    /// Drops the tasks of the other half from what a read has brought in claim order. If ours is empty, or `is_all` says that
    /// the queue ends here, it keeps them behind ours. `false`: no read may go on behind the last task, because the tasks
    /// are not in order or more than the other half is missing. A read of the front may also end the partition.
    pub(super) fn keep_ours(
        &mut self,
        tasks: &mut VecDeque<TaskRecord>,
        is_front: bool,
        is_all: bool,
    ) -> bool {
        if is_front && self.half.take_if(|half| half.missed.elapsed() > PARTITIONED_FOR).is_some() {
            self.miss_window = MISS_WINDOW;
        }
        let Some(half) = self.half.as_mut().filter(|_| !(is_front && tasks.is_empty())) else { return true };
        let first = tasks.front().map(|task| task.priority);
        if !is_front && first != half.priority {
            // Tasks of a higher priority were left.
            tasks.clear();
            return false;
        }
        half.priority = first;
        half.is_crowded &= half.missed.elapsed() < CROWDED_FOR;
        let alike = tasks.partition_point(|task| Some(task.priority) == first);
        let theirs = tasks.range(..alike).find(|task| !half.has(task)).map(|task| task.id);
        if is_front && half.is_left_alone(theirs) {
            self.half = None;
            return true;
        }
        let mut lower = tasks.split_off(alike);
        let (mut ours, mut theirs): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(tasks).into_iter().partition(|task| half.has(task));
        if half.is_crowded {
            rotate_at_random(&mut ours, &mut self.random);
        }
        let is_whole = lower.is_empty() && !half.is_crowded;
        if is_all || ours.is_empty() {
            rotate_at_random(&mut theirs, &mut self.random);
            if !is_front {
                lower.clear();
            }
            tasks.extend(ours.into_iter().chain(theirs).chain(lower));
            return false;
        }
        *tasks = ours;
        is_whole
    }
}

fn rotate_at_random(tasks: &mut VecDeque<TaskRecord>, random: &mut SmallRng) {
    if !tasks.is_empty() {
        tasks.rotate_left(random.random_range(0..tasks.len()));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use tokio::time::advance;

    use super::*;

    fn tasks(ids: impl IntoIterator<Item = u128>) -> VecDeque<TaskRecord> {
        ids.into_iter().map(|id| TaskRecord::pending(Uuid::from_u128(id))).collect()
    }

    fn ids(tasks: &VecDeque<TaskRecord>) -> Vec<u128> {
        tasks.iter().map(|task| task.id.as_u128()).collect()
    }

    fn alone() -> Partition {
        Partition::new(SmallRng::seed_from_u64(1))
    }

    fn half(bit: u128) -> Partition {
        let half = Half { bit, is_crowded: false, missed: Instant::now(), priority: None, left: None };
        Partition { half: Some(half), drawn: Some(bit), ..alone() }
    }

    #[test]
    fn one_miss_means_reading_again_unless_others_are_there() {
        let mut alone = alone();
        assert!(alone.claimed(5, 5));
        assert!(!alone.claimed(5, 4), "what was read with it may have changed too");
        assert!(alone.half.is_none(), "once is no sign of others");
        for _ in 0..MISS_WINDOW {
            assert!(alone.claimed(5, 5));
        }
        assert!(!alone.claimed(5, 4));
        assert!(alone.half.is_none(), "once in a long time is none either");
        assert!(alone.claimed(5, 5) && !alone.claimed(5, 4));
        assert!(alone.half.is_some());
        assert!(half(0).claimed(5, 4));
        assert!(!half(0).claimed(5, 1));
    }

    #[test]
    fn most_of_a_large_claim_missed_is_a_sign_by_itself() {
        let mut partition = alone();
        assert!(!partition.claimed(LARGE_CLAIM, LARGE_CLAIM / 2));
        assert!(partition.last_bit().is_none());
        let mut partition = alone();
        assert!(!partition.claimed(LARGE_CLAIM, LARGE_CLAIM / 2 - 1));
        assert!(partition.last_bit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_that_nobody_else_takes_from_is_taken_in_order() {
        let mut partition = half(0);
        partition.claimed(LARGE_CLAIM, 0);
        let bit = u128::from(partition.last_bit() == Some(true));
        let look = || tasks((0..40).map(|n| 2 * n + bit));
        let mut shuffled = look();
        assert!(!partition.keep_ours(&mut shuffled, true, false) && ids(&shuffled) != ids(&look()));
        advance(CROWDED_FOR).await;
        let mut in_order = look();
        assert!(partition.keep_ours(&mut in_order, true, false));
        assert_eq!(ids(&in_order), ids(&look()));
    }

    #[test]
    fn ours_comes_first_and_nothing_is_lost() {
        let mut all = tasks([1, 2, 3, 4]);
        assert!(!half(0).keep_ours(&mut all, true, true));
        let mut found = ids(&all);
        assert_eq!(found[..2], [2, 4]);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4]);

        let mut some = tasks([1, 2, 3, 4]);
        assert!(half(0).keep_ours(&mut some, true, false));
        assert_eq!(ids(&some), [2, 4]);

        let mut theirs = tasks([1, 3]);
        assert!(!half(0).keep_ours(&mut theirs, true, false));
        assert_eq!(theirs.len(), 2, "there is nothing else to take");
    }

    #[test]
    fn work_of_lower_priority_is_not_taken_before_what_is_left_to_others() {
        let mut look = tasks([1, 2, 3, 4]);
        look[2].priority -= 1;
        look[3].priority -= 1;
        let mut partition = half(0);
        assert!(!partition.keep_ours(&mut look, true, false));
        assert_eq!(ids(&look), [2]);

        // The look behind it finds nothing more of that priority.
        let mut lower = tasks([5, 6]);
        for task in &mut lower {
            task.priority -= 1;
        }
        assert!(!partition.keep_ours(&mut lower, false, true));
        assert!(lower.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_nobody_comes_for_what_was_left() {
        let mut partition = half(0);
        partition.keep_ours(&mut tasks([1, 2, 3]), true, false);
        advance(LEFT_AT_MOST).await;
        partition.keep_ours(&mut tasks([1, 3, 4]), true, false);
        assert!(partition.half.is_some());
        advance(Duration::from_millis(1)).await;
        let mut look = tasks([1, 3, 4]);
        assert!(partition.keep_ours(&mut look, true, false));
        assert_eq!(ids(&look), [1, 3, 4]);
        assert!(partition.half.is_none());

        let mut partition = half(0);
        advance(PARTITIONED_FOR + Duration::from_millis(1)).await;
        partition.keep_ours(&mut tasks([2]), false, false);
        assert!(partition.half.is_some(), "what this look has left out is not known");
        let mut look = tasks([1, 2]);
        assert!(partition.keep_ours(&mut look, true, true));
        assert_eq!(ids(&look), [1, 2], "others were not faster for long");
        assert!(!partition.claimed(5, 4));
        assert_eq!(partition.last_bit(), Some(false), "once is enough to know again");

        let mut partition = half(0);
        partition.keep_ours(&mut tasks([1, 2, 3]), true, false);
        advance(2 * LEFT_AT_MOST).await;
        partition.keep_ours(&mut tasks([3, 4]), true, false);
        assert!(partition.half.is_some(), "the other has taken the first one");
        let mut above = tasks([6]);
        above[0].priority += 1;
        partition.keep_ours(&mut above, true, false);
        advance(2 * LEFT_AT_MOST).await;
        partition.keep_ours(&mut tasks([3, 4]), true, false);
        assert!(
            partition.half.is_none(),
            "work of higher priority in between does not make it wait for longer"
        );
    }
}
