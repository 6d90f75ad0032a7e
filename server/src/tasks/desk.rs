//! The desk where callers wait for work, grouped by what they ask for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use super::claim::Handout;
use super::shelf::Shelf;
use crate::store::{Awaited, Selection, StoreError};
use crate::task::TaskRecord;

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

/// Callers with one selection.
pub(super) struct Group {
    pub(super) selection: Selection,
    pub(super) waiters: Mutex<VecDeque<Waiter>>,
    pub(super) shelf: Mutex<Shelf>,
    /// There may be work, or somebody has come: a round is worth its cost.
    is_stirred: AtomicBool,
    /// There may be work that is not on the shelf.
    must_look: AtomicBool,
    changed: Notify,
}

impl Group {
    /// There may be work, who knows where.
    fn stir(&self) {
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
    pub(super) reply: oneshot::Sender<Result<Handout, StoreError>>,
}

/// A caller's place in a group: when it leaves, answered or not, the group looks who is still there.
pub(super) struct Seat(Arc<Group>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.changed.notify_one();
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

    /// This task is ready again; its payloads are not at hand. Whoever waits for such a one looks for it.
    pub(super) fn returned(&self, task: &TaskRecord) {
        for group in self.groups_for(task) {
            lock(&group.shelf).make_way(task.claim_order());
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
        let turn = Arc::clone(lock(&self.turns).entry(id.to_vec()).or_default());
        let guard = Some(turn.lock_owned().await);
        Turn { id: id.to_vec(), turns: Arc::clone(&self.turns), guard }
    }

    /// What callers wait for, by tenant, each thing once.
    pub(super) fn awaited(&self) -> HashMap<Arc<str>, Awaited> {
        let groups = lock(&self.groups);
        let mut by_tenant: HashMap<Arc<str>, Awaited> = HashMap::new();
        let awaiting = groups.by_selection.iter().filter(|(_, group)| !lock(&group.waiters).is_empty());
        for (selection, _) in awaiting {
            let awaited = by_tenant.entry(Arc::clone(&selection.scope.tenant)).or_default();
            match (&selection.scope.user, selection.tags.first()) {
                (Some(user), _) => drop(awaited.users.insert(user.to_string())),
                (None, Some(tag)) => drop(awaited.tags.insert(tag.clone())),
                (None, None) => awaited.task_types.extend(selection.task_types.iter().cloned()),
            }
        }
        by_tenant
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.groups).by_selection.values().map(|group| lock(&group.waiters).len()).sum()
    }

    /// Adds a caller; the group is returned as well when nobody serves it yet.
    pub(super) fn join(&self, selection: &Selection, waiter: Waiter) -> (Seat, Option<Arc<Group>>) {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.by_selection.get(selection) {
            lock(&group.waiters).push_back(waiter);
            group.stir();
            return (Seat(Arc::clone(group)), None);
        }
        let group = Arc::new(Group {
            selection: selection.clone(),
            waiters: Mutex::new(VecDeque::from([waiter])),
            shelf: Mutex::new(Shelf::new(Arc::clone(&self.shelved_bytes))),
            is_stirred: AtomicBool::new(true),
            must_look: AtomicBool::new(true),
            changed: Notify::new(),
        });
        groups.by_selection.insert(selection.clone(), Arc::clone(&group));
        let types = groups.by_type.entry(Arc::clone(&selection.scope.tenant)).or_default();
        for task_type in &selection.task_types {
            types.entry(task_type.clone()).or_default().push(Arc::clone(&group));
        }
        (Seat(Arc::clone(&group)), Some(group))
    }

    /// Removes a group that nobody waits in; `false` when somebody has just come.
    pub(super) fn leave(&self, group: &Arc<Group>) -> bool {
        let mut groups = lock(&self.groups);
        if !lock(&group.waiters).is_empty() {
            return false;
        }
        groups.by_selection.remove(&group.selection);
        let tenant = &group.selection.scope.tenant;
        if let Some(types) = groups.by_type.get_mut(tenant) {
            for task_type in &group.selection.task_types {
                if let Some(members) = types.get_mut(task_type) {
                    members.retain(|member| !Arc::ptr_eq(member, group));
                }
            }
            types.retain(|_, members| !members.is_empty());
            if types.is_empty() {
                groups.by_type.remove(tenant);
            }
        }
        true
    }
}
