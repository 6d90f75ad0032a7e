//! The callers of a claim group, in the order in which they came. However many they are, one comes, leaves or is served
//! at a cost that hardly grows with their number.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::claim_id::ClaimIdLock;
use super::delivery::{Delivered, Delivery, GiveBack, grant};
use crate::lifecycle::Grant;
use crate::store::StoreError;
use crate::task::TaskRecord;

/// A caller that wants to be given tasks.
pub(super) struct WaitingCaller {
    pub(super) limit: usize,
    pub(super) worker_id: String,
    pub(super) lease_seconds: Option<u32>,
    pub(super) claim_id: Option<Vec<u8>>,
    /// Held until the caller has its answer, or what was claimed for it has gone back.
    pub(super) claim_id_lock: Option<ClaimIdLock>,
    /// Whether it waits for work when none is ready.
    pub(super) waits: bool,
    /// Told, or dropped, once ready work was read for it.
    pub(super) considered: Option<oneshot::Sender<()>>,
    /// When it stops waiting for an answer: nothing may be on its way for it then.
    pub(super) until: Instant,
    pub(super) reply: oneshot::Sender<Delivered>,
}

impl WaitingCaller {
    /// A new lease for a task of this caller.
    pub(super) fn grant(&self) -> Grant {
        grant(&self.worker_id, self.lease_seconds, self.claim_id.clone())
    }

    /// Ends its wait. A caller that has gone away drops what it is given, and with it the tasks go back.
    pub(super) fn answer(self, tasks: Result<Vec<TaskRecord>, StoreError>, give_back: &GiveBack) {
        let _ = self.reply.send(tasks.map(|tasks| Delivery::of(tasks, self.claim_id_lock, give_back)));
    }
}

/// The callers of one group by the order in which they came.
#[derive(Default)]
pub(super) struct Callers {
    by_number: BTreeMap<u64, WaitingCaller>,
    /// The number of the next to come.
    next: u64,
    /// Callers below this number have been through a read that found nothing; from it on, none has.
    unconsidered: u64,
    /// Callers that were dequeued and may yet come back.
    dequeued: usize,
    /// No round serves them any more.
    is_abandoned: bool,
}

impl Callers {
    /// Adds a caller that has just come. Its number.
    pub(super) fn push(&mut self, caller: WaitingCaller) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, caller);
        number
    }

    /// Removes a caller that has gone away.
    pub(super) fn remove(&mut self, number: u64) {
        self.by_number.remove(&number);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// For how many of them ready work was read and there was none.
    pub(super) fn idle(&self) -> usize {
        self.by_number.values().filter(|caller| caller.considered.is_none()).count()
    }

    /// Whether no caller is here.
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Whether no caller is here or may come back.
    pub(super) fn is_over(&self) -> bool {
        self.by_number.is_empty() && self.dequeued == 0
    }

    /// The number that the next caller will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes out the first of those that came before `before`. It is [put back](Self::requeue) or [served](Self::served).
    pub(super) fn dequeue_first(&mut self, before: u64) -> Option<(u64, WaitingCaller)> {
        while let Some(first) = self.by_number.first_entry().filter(|first| *first.key() < before) {
            let (number, caller) = first.remove_entry();
            if !caller.reply.is_closed() {
                self.dequeued += 1;
                return Some((number, caller));
            }
        }
        None
    }

    /// Puts a caller back where it was before, unless it has gone away meanwhile.
    pub(super) fn requeue(&mut self, number: u64, caller: WaitingCaller) {
        self.dequeued -= 1;
        if !caller.reply.is_closed() && !self.is_abandoned {
            if !caller.waits || caller.considered.is_some() {
                // A read that was made meanwhile was not for it; the next one is.
                self.unconsidered = self.unconsidered.min(number);
            }
            self.by_number.insert(number, caller);
        }
    }

    /// A caller that was dequeued does not come back.
    pub(super) fn served(&mut self) {
        self.dequeued -= 1;
    }

    /// Ready work was read for all that came before `before`, and there is no more. Returns those that do not wait.
    pub(super) fn found_nothing(&mut self, before: u64) -> Vec<WaitingCaller> {
        let since = std::mem::replace(&mut self.unconsidered, before);
        let mut done = Vec::new();
        for (number, caller) in self.by_number.range_mut(since.min(before)..before) {
            caller.considered.take();
            if !caller.waits {
                done.push(*number);
            }
        }
        done.into_iter().filter_map(|number| self.by_number.remove(&number)).collect()
    }

    /// All leave at once without an answer, and none comes back.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
        self.by_number.clear();
    }

    /// All that came before `before` leave at once.
    pub(super) fn leave(&mut self, before: u64) -> Vec<WaitingCaller> {
        let later = self.by_number.split_off(&before);
        std::mem::replace(&mut self.by_number, later).into_values().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dispatch) fn caller(
        name: &str,
        waits: bool,
    ) -> (WaitingCaller, oneshot::Receiver<Delivered>) {
        let (reply, answer) = oneshot::channel();
        let caller = WaitingCaller {
            limit: 1,
            worker_id: name.to_owned(),
            lease_seconds: None,
            claim_id: None,
            claim_id_lock: None,
            waits,
            considered: Some(oneshot::channel().0),
            until: Instant::now(),
            reply,
        };
        (caller, answer)
    }

    fn first(callers: &mut Callers) -> Option<(u64, WaitingCaller)> {
        let before = callers.next();
        callers.dequeue_first(before)
    }

    #[test]
    fn a_requeued_caller_is_where_it_was_before() {
        let mut callers = Callers::default();
        let answers: Vec<_> = ["a", "b"]
            .map(|name| {
                let (caller, answer) = caller(name, true);
                callers.push(caller);
                answer
            })
            .into_iter()
            .collect();
        let (number, a) = first(&mut callers).unwrap();
        callers.requeue(number, a);
        let names: Vec<_> =
            std::iter::from_fn(|| first(&mut callers)).map(|(_, caller)| caller.worker_id).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(callers.is_empty() && !callers.is_over(), "two may come back");
        callers.served();
        callers.served();
        assert!(callers.is_over());
        drop(answers);
    }

    #[test]
    fn a_caller_that_has_gone_is_passed_over_and_does_not_come_back() {
        let mut callers = Callers::default();
        let [(a, gone), (b, stays)] = ["a", "b"].map(|name| caller(name, true));
        callers.push(a);
        callers.push(b);
        drop(gone);
        let (number, b) = first(&mut callers).unwrap();
        assert_eq!(b.worker_id, "b");
        drop(stays);
        callers.requeue(number, b);
        assert!(callers.is_over());
    }

    #[test]
    fn a_caller_that_does_not_wait_and_was_dequeued_during_a_read_is_answered_by_the_next() {
        let mut callers = Callers::default();
        let (caller, _answer) = caller("away", false);
        callers.push(caller);
        let (number, caller) = first(&mut callers).unwrap();
        let before = callers.next();
        assert!(callers.found_nothing(before).is_empty());
        callers.requeue(number, caller);
        assert_eq!(callers.found_nothing(before).len(), 1);
    }

    #[test]
    fn a_caller_that_waits_and_was_dequeued_during_a_read_is_considered_by_the_next() {
        let mut callers = Callers::default();
        let (caller, _answer) = caller("away", true);
        callers.push(caller);
        let (number, caller) = first(&mut callers).unwrap();
        let before = callers.next();
        callers.found_nothing(before);
        callers.requeue(number, caller);
        assert_eq!(callers.idle(), 0, "nothing was read for it");
        callers.found_nothing(before);
        assert_eq!(callers.idle(), 1);
    }

    #[test]
    fn no_caller_comes_back_to_a_group_that_was_abandoned() {
        let mut callers = Callers::default();
        let (caller, answer) = caller("dequeued", true);
        callers.push(caller);
        let (number, caller) = first(&mut callers).unwrap();
        callers.abandon();
        callers.requeue(number, caller);
        assert!(callers.is_over());
        assert!(answer.blocking_recv().is_err(), "nobody will answer it");
    }

    #[test]
    fn a_round_is_for_callers_that_came_before_it() {
        let mut callers = Callers::default();
        let (early, _answer) = caller("early", false);
        callers.push(early);
        let before = callers.next();
        let (late, _later_answer) = caller("late", false);
        callers.push(late);
        assert_eq!(callers.found_nothing(before).len(), 1, "nothing was read for the late one");
        assert!(callers.dequeue_first(before).is_none());
        assert_eq!(first(&mut callers).map(|(_, caller)| caller.worker_id).as_deref(), Some("late"));
    }
}
