//! The desk where callers wait for work, grouped by what they ask for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use super::TaskService;
use super::claim::Answer;
use super::shelf::Shelf;
use super::waiters::{Waiter, Waiters};
use crate::store::{Awaited, Selection, StoreError};
use crate::task::{Order, TaskRecord};

/// Who waits for which work.
#[derive(Default)]
pub(super) struct Desk {
    groups: Mutex<Groups>,
    turns: Turns,
    shelved_bytes: Arc<AtomicUsize>,
}

/// Claim ids that are being answered now.
type Turns = Arc<Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>>;

/// While it is held, no other call with the same claim id is answered by this server.
pub(super) struct Turn {
    id: Vec<u8>,
    turns: Turns,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut turns = lock(&self.turns);
        // Only the map holds it: nobody waits for this id.
        if turns.get(&self.id).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.id);
        }
    }
}

#[derive(Default)]
struct Groups {
    by_selection: HashMap<Selection, Arc<Group>>,
    /// By tenant and task type: whom new work of that type may serve.
    by_type: HashMap<Arc<str>, HashMap<String, Vec<Arc<Group>>>>,
}

impl Groups {
    fn remove(&mut self, group: &Arc<Group>) {
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

/// Callers with one selection.
pub(super) struct Group {
    pub(super) selection: Selection,
    pub(super) waiters: Mutex<Waiters>,
    pub(super) shelf: Mutex<Shelf>,
    /// There may be work, or somebody has come: a round is worth its cost.
    is_stirred: AtomicBool,
    /// There may be work that is not on the shelf.
    must_look: AtomicBool,
    changed: Notify,
}

impl Group {
    /// There may be work, who knows where.
    pub(super) fn stir(&self) {
        self.must_look.store(true, Ordering::Release);
        self.is_stirred.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// This task is ready. It goes on the shelf if it can, so that nobody has to look for it.
    fn offer(&self, task: &TaskRecord) {
        if !lock(&self.shelf).offer(task) {
            self.must_look.store(true, Ordering::Release);
        }
        self.is_stirred.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// The caller who is first, when nothing is ready for it and nobody is looking.
    fn first_idle(self: &Arc<Self>) -> Option<Lent> {
        if self.is_stirred.load(Ordering::Acquire) || !lock(&self.shelf).is_known_to_be_empty() {
            return None;
        }
        self.lend_first(u64::MAX)
    }

    /// The first of the callers who came before `until`.
    pub(super) fn lend_first(self: &Arc<Self>, until: u64) -> Option<Lent> {
        let (number, waiter) = lock(&self.waiters).lend_first(until)?;
        Some(Lent { group: Arc::clone(self), number, waiter })
    }

    /// Whether the database must be asked for work; asked once, it is answered by the look.
    pub(super) fn take_look(&self) -> bool {
        self.must_look.swap(false, Ordering::AcqRel)
    }

    /// Whether a round is worth its cost; asked once, it is answered by the round.
    pub(super) fn take_stir(&self) -> bool {
        self.is_stirred.swap(false, Ordering::AcqRel)
    }

    /// Resolves when somebody came or left, or there may be work.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A caller's place in a group. Left, answered or not, nobody looks for work for it any more.
pub(super) struct Seat {
    group: Arc<Group>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Seat {
    /// Where the caller's answer comes.
    pub(super) fn answer(&mut self) -> &mut oneshot::Receiver<Answer> {
        &mut self.answer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before the look into the queue: who is out of it just now does not come back then.
        self.answer.close();
        let mut waiters = lock(&self.group.waiters);
        waiters.remove(self.number);
        if waiters.is_empty() {
            self.group.changed.notify_one();
        }
    }
}

/// A caller taken out of its queue to be served: it is [answered](Self::answer) or [put back](Self::put_back).
#[must_use]
pub(super) struct Lent {
    group: Arc<Group>,
    number: u64,
    pub(super) waiter: Waiter,
}

impl Lent {
    /// The caller is where it was before.
    pub(super) fn put_back(self) -> Arc<Group> {
        lock(&self.group.waiters).put_back(self.number, self.waiter);
        self.group
    }

    /// The caller has its answer. One that has gone away drops what it is given, and with it the tasks go back.
    pub(super) fn answer(self, tasks: Result<Vec<TaskRecord>, StoreError>, service: &Arc<TaskService>) {
        lock(&self.group.waiters).answered();
        self.waiter.answer(tasks, service);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// This task, which is all there, is ready: whoever waits for such a one gets it.
    pub(super) fn offer(&self, task: &TaskRecord) {
        self.groups_for(task).iter().for_each(|group| group.offer(task));
    }

    /// The caller who is first in waiting for just such a task, when nothing else is ready for it.
    pub(super) fn first_for(&self, task: &TaskRecord) -> Option<Lent> {
        self.groups_for(task).iter().find_map(Group::first_idle)
    }

    /// This task is ready again; its payloads are not at hand. Whoever waits for such a one looks for it.
    pub(super) fn returned(&self, task: &TaskRecord) {
        for group in self.groups_for(task) {
            lock(&group.shelf).make_way(Order::Claim.position(task));
            group.stir();
        }
    }

    /// A task has become ready on another server: whoever waits for such a one looks again.
    pub(super) fn wake(&self, task: &TaskRecord) {
        self.groups_for(task).iter().for_each(|group| group.stir());
    }

    fn groups_for(&self, task: &TaskRecord) -> Vec<Arc<Group>> {
        let groups = lock(&self.groups);
        let of_type = groups.by_type.get(&*task.tenant).and_then(|types| types.get(&task.task_type));
        of_type.into_iter().flatten().filter(|group| group.selection.matches(task)).cloned().collect()
    }

    /// Work of that type is ready: whoever waits for any of it looks again.
    pub(super) fn wake_type(&self, tenant: &str, task_type: &str) {
        let groups = lock(&self.groups);
        let waiting = groups.by_type.get(tenant).and_then(|types| types.get(task_type));
        for group in waiting.into_iter().flatten().filter(|group| group.selection.takes_any()) {
            group.stir();
        }
    }

    /// Everybody looks again.
    pub(super) fn wake_all(&self) {
        lock(&self.groups).by_selection.values().for_each(|group| group.stir());
    }

    pub(super) async fn turn(&self, id: &[u8]) -> Turn {
        // Made first: a caller that goes away before it is its turn leaves nothing behind.
        let mut turn = Turn { id: id.to_vec(), turns: Arc::clone(&self.turns), guard: None };
        let place = Arc::clone(lock(&self.turns).entry(id.to_vec()).or_default());
        turn.guard = Some(place.lock_owned().await);
        turn
    }

    /// What callers wait for, by tenant, each thing once.
    pub(super) fn awaited(&self) -> HashMap<Arc<str>, Awaited> {
        let groups = lock(&self.groups);
        let mut by_tenant: HashMap<Arc<str>, Awaited> = HashMap::new();
        let awaiting = groups.by_selection.iter().filter(|(_, group)| !lock(&group.waiters).is_empty());
        for (selection, _) in awaiting {
            let awaited = by_tenant.entry(Arc::clone(&selection.scope.tenant)).or_default();
            if selection.takes_any() {
                awaited.task_types.extend(selection.task_types.iter().cloned());
            } else {
                awaited.narrow.push(selection.clone());
            }
        }
        by_tenant
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.groups).by_selection.values().map(|group| lock(&group.waiters).len()).sum()
    }

    /// How many callers wait for work of that type after a look that found none for them.
    pub(super) fn idle(&self, task_type: &str) -> usize {
        let groups = lock(&self.groups);
        let of_type = groups
            .by_selection
            .values()
            .filter(|group| group.selection.task_types.iter().any(|wanted| wanted == task_type));
        of_type.map(|group| lock(&group.waiters).idle()).sum()
    }

    /// Adds a caller whose answer comes there; the group is returned as well when nobody serves it yet.
    pub(super) fn join(
        &self,
        selection: &Selection,
        waiter: Waiter,
        answer: oneshot::Receiver<Answer>,
    ) -> (Seat, Option<Arc<Group>>) {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.by_selection.get(selection) {
            let number = lock(&group.waiters).push(waiter);
            group.stir();
            return (Seat { group: Arc::clone(group), number, answer }, None);
        }
        let mut waiters = Waiters::default();
        let number = waiters.push(waiter);
        let group = Arc::new(Group {
            selection: selection.clone(),
            waiters: Mutex::new(waiters),
            shelf: Mutex::new(Shelf::new(Arc::clone(&self.shelved_bytes), rand::make_rng())),
            is_stirred: AtomicBool::new(true),
            must_look: AtomicBool::new(true),
            changed: Notify::new(),
        });
        groups.by_selection.insert(selection.clone(), Arc::clone(&group));
        let types = groups.by_type.entry(Arc::clone(&selection.scope.tenant)).or_default();
        for task_type in &selection.task_types {
            types.entry(task_type.clone()).or_default().push(Arc::clone(&group));
        }
        (Seat { group: Arc::clone(&group), number, answer }, Some(group))
    }

    /// Removes a group that nobody waits in; `false` when somebody has just come.
    pub(super) fn leave(&self, group: &Arc<Group>) -> bool {
        let mut groups = lock(&self.groups);
        if !lock(&group.waiters).is_over() {
            return false;
        }
        groups.remove(group);
        true
    }

    /// Removes a group that is not served any more. Who waits in it is answered that the database does not answer.
    pub(super) fn abandon(&self, group: &Arc<Group>) {
        // Under the lock in which callers join.
        let mut groups = lock(&self.groups);
        groups.remove(group);
        lock(&group.waiters).abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::super::waiters::tests::waiter;
    use super::*;
    use crate::access::Scope;

    #[tokio::test]
    async fn who_comes_after_a_group_was_abandoned_is_served_anew() {
        let desk = Desk::default();
        let selection =
            Selection { scope: Scope::tenant("t"), task_types: vec!["a".to_owned()], tags: Vec::new() };
        let join = |name| {
            let (waiter, answer) = waiter(name, true);
            desk.join(&selection, waiter, answer)
        };
        let (mut early, unserved) = join("early");
        let group = unserved.expect("nobody serves it yet");
        assert!(join("beside").1.is_none(), "it is being served");
        desk.abandon(&group);
        assert!(early.answer().await.is_err(), "nobody will answer it");
        let (_seat, unserved) = join("late");
        assert!(!Arc::ptr_eq(&group, &unserved.expect("nobody serves it yet")));
        drop(early);
        assert_eq!(desk.waiting(), 1);
    }
}
