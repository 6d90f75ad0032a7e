//! Callers who wait for the same, in the order in which they came. However many they are, one comes, leaves or is served
//! at a cost that hardly grows with their number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::TaskService;
use super::claim::{Answer, Handout, grant};
use super::desk::Turn;
use crate::lifecycle::Grant;
use crate::store::StoreError;
use crate::task::TaskRecord;

/// A caller at the desk.
pub(super) struct Waiter {
    pub(super) limit: usize,
    pub(super) worker_id: String,
    pub(super) lease_seconds: Option<u32>,
    pub(super) claim_id: Option<Vec<u8>>,
    /// Held until the caller has its answer, or what was claimed for it has gone back.
    pub(super) turn: Option<Turn>,
    pub(super) waits: bool,
    /// Told, or dropped, once somebody has looked for work for it.
    pub(super) looked: Option<oneshot::Sender<()>>,
    /// When it stops waiting for an answer: nothing may be on its way for it then.
    pub(super) until: Instant,
    pub(super) reply: oneshot::Sender<Answer>,
}

impl Waiter {
    /// What a task is claimed with for it.
    pub(super) fn grant(&self) -> Grant {
        grant(&self.worker_id, self.lease_seconds, self.claim_id.clone())
    }

    /// Ends its wait. Who has gone away drops what it is given, and with it the tasks go back.
    pub(super) fn answer(self, tasks: Result<Vec<TaskRecord>, StoreError>, service: &Arc<TaskService>) {
        let _ = self.reply.send(tasks.map(|tasks| Handout::of(tasks, self.turn, service)));
    }
}

/// The callers of one group by the order in which they came.
#[derive(Default)]
pub(super) struct Waiters {
    by_number: BTreeMap<u64, Waiter>,
    /// The number of the next to come.
    next: u64,
    /// Nobody has looked for work for those from this number on.
    unseen: u64,
    /// Callers taken out of here who may yet come back.
    lent: usize,
    /// Nobody serves them any more.
    is_abandoned: bool,
}

impl Waiters {
    /// Adds a caller who has just come; its number.
    pub(super) fn push(&mut self, waiter: Waiter) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, waiter);
        number
    }

    /// A caller who has gone away.
    pub(super) fn remove(&mut self, number: u64) {
        self.by_number.remove(&number);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// How many of them have been looked for work for, and got none.
    pub(super) fn idle(&self) -> usize {
        self.by_number.values().filter(|waiter| waiter.looked.is_none()).count()
    }

    /// Nobody is here.
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Nobody is here or may come back.
    pub(super) fn is_over(&self) -> bool {
        self.by_number.is_empty() && self.lent == 0
    }

    /// The number that the next caller will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes the first of those who came before `until`. It is [put back](Self::put_back) or
    /// [answered](Self::answered).
    pub(super) fn lend_first(&mut self, until: u64) -> Option<(u64, Waiter)> {
        while let Some(first) = self.by_number.first_entry().filter(|first| *first.key() < until) {
            let (number, waiter) = first.remove_entry();
            if !waiter.reply.is_closed() {
                self.lent += 1;
                return Some((number, waiter));
            }
        }
        None
    }

    /// A caller is where it was before, unless it has gone away meanwhile.
    pub(super) fn put_back(&mut self, number: u64, waiter: Waiter) {
        self.lent -= 1;
        if !waiter.reply.is_closed() && !self.is_abandoned {
            if !waiter.waits {
                // A look that was made meanwhile has not answered it; the next one does.
                self.unseen = self.unseen.min(number);
            }
            self.by_number.insert(number, waiter);
        }
    }

    /// A caller that was taken does not come back.
    pub(super) fn answered(&mut self) {
        self.lent -= 1;
    }

    /// Somebody has looked for all who came before `until`, and nothing more is ready. Returns those who do not wait.
    pub(super) fn found_nothing(&mut self, until: u64) -> Vec<Waiter> {
        let since = std::mem::replace(&mut self.unseen, until);
        let mut done = Vec::new();
        for (number, waiter) in self.by_number.range_mut(since.min(until)..until) {
            waiter.looked.take();
            if !waiter.waits {
                done.push(*number);
            }
        }
        done.into_iter().filter_map(|number| self.by_number.remove(&number)).collect()
    }

    /// All leave at once without an answer, and nobody comes back.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
        self.by_number.clear();
    }

    /// All who came before `until` leave at once.
    pub(super) fn leave(&mut self, until: u64) -> Vec<Waiter> {
        let later = self.by_number.split_off(&until);
        std::mem::replace(&mut self.by_number, later).into_values().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::usecases) fn waiter(name: &str, waits: bool) -> (Waiter, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            limit: 1,
            worker_id: name.to_owned(),
            lease_seconds: None,
            claim_id: None,
            turn: None,
            waits,
            looked: Some(oneshot::channel().0),
            until: Instant::now(),
            reply,
        };
        (waiter, answer)
    }

    fn first(waiters: &mut Waiters) -> Option<(u64, Waiter)> {
        let until = waiters.next();
        waiters.lend_first(until)
    }

    #[test]
    fn who_comes_back_is_where_it_was_before() {
        let mut waiters = Waiters::default();
        let answers: Vec<_> = ["a", "b"]
            .map(|name| {
                let (waiter, answer) = waiter(name, true);
                waiters.push(waiter);
                answer
            })
            .into_iter()
            .collect();
        let (number, a) = first(&mut waiters).unwrap();
        waiters.put_back(number, a);
        let names: Vec<_> =
            std::iter::from_fn(|| first(&mut waiters)).map(|(_, waiter)| waiter.worker_id).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(waiters.is_empty() && !waiters.is_over(), "two may come back");
        waiters.answered();
        waiters.answered();
        assert!(waiters.is_over());
        drop(answers);
    }

    #[test]
    fn who_has_gone_away_is_passed_over_and_does_not_come_back() {
        let mut waiters = Waiters::default();
        let [(a, gone), (b, stays)] = ["a", "b"].map(|name| waiter(name, true));
        waiters.push(a);
        waiters.push(b);
        drop(gone);
        let (number, b) = first(&mut waiters).unwrap();
        assert_eq!(b.worker_id, "b");
        drop(stays);
        waiters.put_back(number, b);
        assert!(waiters.is_over());
    }

    #[test]
    fn who_does_not_wait_and_was_away_during_a_look_is_answered_by_the_next() {
        let mut waiters = Waiters::default();
        let (caller, _answer) = waiter("away", false);
        waiters.push(caller);
        let (number, caller) = first(&mut waiters).unwrap();
        let until = waiters.next();
        assert!(waiters.found_nothing(until).is_empty());
        waiters.put_back(number, caller);
        assert_eq!(waiters.found_nothing(until).len(), 1);
    }

    #[test]
    fn nobody_comes_back_to_a_group_that_was_abandoned() {
        let mut waiters = Waiters::default();
        let (caller, answer) = waiter("lent", true);
        waiters.push(caller);
        let (number, caller) = first(&mut waiters).unwrap();
        waiters.abandon();
        waiters.put_back(number, caller);
        assert!(waiters.is_over());
        assert!(answer.blocking_recv().is_err(), "nobody will answer it");
    }

    #[test]
    fn a_round_is_for_those_who_came_before_it() {
        let mut waiters = Waiters::default();
        let (early, _answer) = waiter("early", false);
        waiters.push(early);
        let until = waiters.next();
        let (late, _later_answer) = waiter("late", false);
        waiters.push(late);
        assert_eq!(waiters.found_nothing(until).len(), 1, "the late one has not been looked for");
        assert!(waiters.lend_first(until).is_none());
        assert_eq!(first(&mut waiters).map(|(_, waiter)| waiter.worker_id).as_deref(), Some("late"));
    }
}
