//! Claim groups: the callers that ask for the same selection, and which of them a task concerns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::callers::{Callers, WaitingCaller};
use super::delivery::{Delivered, GiveBack};
use super::gate::Gate;
use super::ready_cache::ReadyCache;
use crate::store::{Awaited, Selection, StoreError};
use crate::task::{Order, TaskRecord};

/// All claim groups of this server.
#[derive(Default)]
pub(super) struct ClaimGroups {
    groups: Mutex<BySelection>,
    /// Bytes of tasks in the ready caches of all groups.
    cached_bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct BySelection {
    by_selection: HashMap<Selection, Arc<ClaimGroup>>,
    /// By tenant and task type: the groups that new work of that type may serve.
    by_type: HashMap<Arc<str>, HashMap<String, Vec<Arc<ClaimGroup>>>>,
}

impl BySelection {
    fn remove(&mut self, group: &Arc<ClaimGroup>) {
        self.by_selection.remove(&group.selection);
        let tenant = &group.selection.scope.tenant;
        if let Some(types) = self.by_type.get_mut(tenant) {
            for task_type in &group.selection.task_types {
                if let Some(members) = types.get_mut(task_type) {
                    members.retain(|member| !Arc::ptr_eq(member, group));
                }
            }
            types.retain(|_, members| !members.is_empty());
            if types.is_empty() {
                self.by_type.remove(tenant);
            }
        }
    }
}

/// Callers with one selection. They share one claim round at a time.
pub(super) struct ClaimGroup {
    pub(super) selection: Selection,
    pub(super) callers: Mutex<Callers>,
    pub(super) ready: Mutex<ReadyCache>,
    /// There may be work, or a caller has come: a round is worth its cost.
    wants_round: AtomicBool,
    /// There may be work that is not in the ready cache.
    wants_read: AtomicBool,
    changed: Notify,
}

impl ClaimGroup {
    /// There may be work, and it is not known which.
    pub(super) fn request_round(&self) {
        self.wants_read.store(true, Ordering::Release);
        self.wants_round.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// This task is ready. It goes into the ready cache if it can, so that no round has to read it.
    fn offer(&self, task: &TaskRecord) {
        if !self.ready.lock().offer(task) {
            self.wants_read.store(true, Ordering::Release);
        }
        self.wants_round.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Takes out the caller that is first, when nothing is ready for it and no round is due.
    fn dequeue_idle(self: &Arc<Self>) -> Option<DequeuedCaller> {
        if self.wants_round.load(Ordering::Acquire) || !self.ready.lock().is_known_to_be_empty() {
            return None;
        }
        self.dequeue_first(u64::MAX)
    }

    /// Takes out the first of the callers that came before number `before`.
    pub(super) fn dequeue_first(self: &Arc<Self>, before: u64) -> Option<DequeuedCaller> {
        let (number, waiting) = self.callers.lock().dequeue_first(before)?;
        Some(DequeuedCaller { group: Arc::clone(self), number, waiting })
    }

    /// Whether ready work must be read; asked once, the read has answered it.
    pub(super) fn take_read_request(&self) -> bool {
        self.wants_read.swap(false, Ordering::AcqRel)
    }

    /// Whether a round is worth its cost; asked once, the round has answered it.
    pub(super) fn take_round_request(&self) -> bool {
        self.wants_round.swap(false, Ordering::AcqRel)
    }

    /// Resolves when a caller came or left, or there may be work.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A caller's registration in a group. When it is dropped, answered or not, no round serves the caller any more.
pub(super) struct CallerRegistration {
    group: Arc<ClaimGroup>,
    number: u64,
    answer: oneshot::Receiver<Delivered>,
}

impl CallerRegistration {
    /// Where the caller's answer comes.
    pub(super) fn answer(&mut self) -> &mut oneshot::Receiver<Delivered> {
        &mut self.answer
    }
}

impl Drop for CallerRegistration {
    fn drop(&mut self) {
        // Closed first: a round that has dequeued this caller checks that before it puts it back. The other way round, the
        // caller could come back after it was removed, and its group would never be over.
        self.answer.close();
        let mut callers = self.group.callers.lock();
        callers.remove(self.number);
        if callers.is_empty() {
            self.group.changed.notify_one();
        }
    }
}

/// A caller that was taken out to be served. It is [answered](Self::answer) or [put back](Self::requeue).
#[must_use]
pub(super) struct DequeuedCaller {
    group: Arc<ClaimGroup>,
    number: u64,
    pub(super) waiting: WaitingCaller,
}

impl DequeuedCaller {
    /// Puts the caller back where it was before.
    pub(super) fn requeue(self) -> Arc<ClaimGroup> {
        self.group.callers.lock().requeue(self.number, self.waiting);
        self.group
    }

    /// Answers the caller. One that has gone away drops what it is given, and with it the tasks go back.
    pub(super) fn answer(self, tasks: Result<Vec<TaskRecord>, StoreError>, give_back: &GiveBack) {
        self.group.callers.lock().served();
        self.waiting.answer(tasks, give_back);
    }
}

impl ClaimGroups {
    /// This task, which has all its payloads, is ready: groups that want such a one are offered it.
    pub(super) fn offer(&self, task: &TaskRecord) {
        self.groups_for(task).iter().for_each(|group| group.offer(task));
    }

    /// Takes out the caller that is first in waiting for just such a task, when nothing else is ready for it.
    pub(super) fn dequeue_for(&self, task: &TaskRecord) -> Option<DequeuedCaller> {
        self.groups_for(task).iter().find_map(ClaimGroup::dequeue_idle)
    }

    /// This task is ready again, and its payloads are not at hand: groups that want such a one read it.
    pub(super) fn ready_again(&self, task: &TaskRecord) {
        for group in self.groups_for(task) {
            group.ready.lock().ready_again(Order::Claim.position(task));
            group.request_round();
        }
    }

    /// A task has become ready on another server: groups that want such a one have a round.
    pub(super) fn wake_for(&self, task: &TaskRecord) {
        self.groups_for(task).iter().for_each(|group| group.request_round());
    }

    /// This task is ready and may not be given out yet. What was read ahead does not hold it.
    pub(super) fn hold_back(&self, task: &TaskRecord) {
        self.groups_for(task).iter().for_each(|group| group.ready.lock().hold_back(task));
    }

    fn groups_for(&self, task: &TaskRecord) -> Vec<Arc<ClaimGroup>> {
        let groups = self.groups.lock();
        let of_type = groups.by_type.get(&*task.tenant).and_then(|types| types.get(&task.task_type));
        of_type.into_iter().flatten().filter(|group| group.selection.matches(task)).cloned().collect()
    }

    /// Work of that type is ready: groups that want any of it have a round.
    pub(super) fn wake_type(&self, tenant: &str, task_type: &str) {
        let groups = self.groups.lock();
        let waiting = groups.by_type.get(tenant).and_then(|types| types.get(task_type));
        for group in waiting.into_iter().flatten().filter(|group| group.selection.takes_any()) {
            group.request_round();
        }
    }

    /// Work of that type may be given out again: groups that want any or some of it have a round.
    pub(super) fn resumed(&self, tenant: &str, task_type: &str) {
        let groups = self.groups.lock();
        let waiting = groups.by_type.get(tenant).and_then(|types| types.get(task_type));
        waiting.into_iter().flatten().for_each(|group| group.request_round());
    }

    /// Every group has a round.
    pub(super) fn wake_all(&self) {
        self.groups.lock().by_selection.values().for_each(|group| group.request_round());
    }

    /// What callers wait for that may be given out, by tenant, each thing once.
    pub(super) fn awaited(&self, gate: &Gate) -> HashMap<Arc<str>, Awaited> {
        let groups = self.groups.lock();
        let mut by_tenant: HashMap<Arc<str>, Awaited> = HashMap::new();
        let awaiting = groups.by_selection.iter().filter(|(_, group)| !group.callers.lock().is_empty());
        for (selection, _) in awaiting {
            let selection = gate.open(selection);
            if selection.task_types.is_empty() {
                continue;
            }
            let awaited = by_tenant.entry(Arc::clone(&selection.scope.tenant)).or_default();
            if selection.takes_any() {
                awaited.task_types.extend(selection.task_types.iter().cloned());
            } else {
                awaited.narrow.push(selection.into_owned());
            }
        }
        by_tenant
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        self.groups.lock().by_selection.values().map(|group| group.callers.lock().len()).sum()
    }

    /// How many callers wait for work of that type after a read that found none for them.
    pub(super) fn idle(&self, task_type: &str) -> usize {
        let groups = self.groups.lock();
        let of_type = groups
            .by_selection
            .values()
            .filter(|group| group.selection.task_types.iter().any(|wanted| wanted == task_type));
        of_type.map(|group| group.callers.lock().idle()).sum()
    }

    /// Adds a caller whose answer comes there. The group is returned as well when it is new and has to be served.
    pub(super) fn join(
        &self,
        selection: &Selection,
        caller: WaitingCaller,
        answer: oneshot::Receiver<Delivered>,
    ) -> (CallerRegistration, Option<Arc<ClaimGroup>>) {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.by_selection.get(selection) {
            let number = group.callers.lock().push(caller);
            group.request_round();
            return (CallerRegistration { group: Arc::clone(group), number, answer }, None);
        }
        let mut callers = Callers::default();
        let number = callers.push(caller);
        let group = Arc::new(ClaimGroup {
            selection: selection.clone(),
            callers: Mutex::new(callers),
            ready: Mutex::new(ReadyCache::new(Arc::clone(&self.cached_bytes), rand::make_rng())),
            wants_round: AtomicBool::new(true),
            wants_read: AtomicBool::new(true),
            changed: Notify::new(),
        });
        groups.by_selection.insert(selection.clone(), Arc::clone(&group));
        let types = groups.by_type.entry(Arc::clone(&selection.scope.tenant)).or_default();
        for task_type in &selection.task_types {
            types.entry(task_type.clone()).or_default().push(Arc::clone(&group));
        }
        (CallerRegistration { group: Arc::clone(&group), number, answer }, Some(group))
    }

    /// Removes a group without callers; `false` when one has just come.
    pub(super) fn leave(&self, group: &Arc<ClaimGroup>) -> bool {
        let mut groups = self.groups.lock();
        if !group.callers.lock().is_over() {
            return false;
        }
        groups.remove(group);
        true
    }

    /// Removes a group that no round serves any more. Its callers are answered that the database does not answer.
    pub(super) fn abandon(&self, group: &Arc<ClaimGroup>) {
        // Under the lock in which callers join.
        let mut groups = self.groups.lock();
        groups.remove(group);
        group.callers.lock().abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::super::callers::tests::caller;
    use super::*;
    use crate::access::Scope;

    #[tokio::test]
    async fn a_caller_that_comes_after_a_group_was_abandoned_is_served_anew() {
        let groups = ClaimGroups::default();
        let selection =
            Selection { scope: Scope::tenant("t"), task_types: vec!["a".to_owned()], tags: Vec::new() };
        let join = |name| {
            let (caller, answer) = caller(name, true);
            groups.join(&selection, caller, answer)
        };
        let (mut early, unserved) = join("early");
        let group = unserved.expect("nobody serves it yet");
        assert!(join("beside").1.is_none(), "it is being served");
        groups.abandon(&group);
        assert!(early.answer().await.is_err(), "nobody will answer it");
        let (_registration, unserved) = join("late");
        assert!(!Arc::ptr_eq(&group, &unserved.expect("nobody serves it yet")));
        drop(early);
        assert_eq!(groups.waiting(), 1);
    }
}
