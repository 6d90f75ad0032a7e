//! The desk where callers wait for work, grouped by what they ask for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::claim::Handout;
use crate::store::{Selection, StoreError};

/// Who waits for which work.
#[derive(Default)]
pub(super) struct Desk {
    groups: Mutex<Groups>,
    turns: Turns,
}

/// Claim ids that are being answered now.
type Turns = Arc<Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>>;

/// While it is held, no other call with the same claim id is answered by this server.
pub(super) struct Turn {
    id: Vec<u8>,
    turns: Turns,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
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
    pub(super) wake: Notify,
}

pub(super) struct Waiter {
    pub(super) limit: usize,
    pub(super) worker_id: String,
    pub(super) lease_seconds: Option<u32>,
    pub(super) claim_id: Option<Vec<u8>>,
    pub(super) waits: bool,
    pub(super) reply: oneshot::Sender<Result<Handout, StoreError>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// New work of that type: whoever waits for it looks again.
    pub(super) fn wake(&self, tenant: &str, task_type: &str) {
        let groups = lock(&self.groups);
        for group in groups.by_type.get(tenant).and_then(|types| types.get(task_type)).into_iter().flatten() {
            group.wake.notify_one();
        }
    }

    pub(super) async fn turn(&self, id: &[u8]) -> Turn {
        let turn = Arc::clone(lock(&self.turns).entry(id.to_vec()).or_default());
        let guard = Some(turn.lock_owned().await);
        Turn { id: id.to_vec(), turns: Arc::clone(&self.turns), guard }
    }

    /// Everybody looks again.
    pub(super) fn wake_all(&self) {
        lock(&self.groups).by_selection.values().for_each(|group| group.wake.notify_one());
    }

    /// For which task types of which tenants somebody waits.
    pub(super) fn awaited(&self) -> Vec<(Arc<str>, Vec<String>)> {
        let groups = lock(&self.groups);
        groups
            .by_type
            .iter()
            .map(|(tenant, types)| (Arc::clone(tenant), types.keys().cloned().collect()))
            .collect()
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.groups).by_selection.values().map(|group| lock(&group.waiters).len()).sum()
    }

    /// Adds a caller; the group is returned when nobody serves it yet.
    pub(super) fn join(&self, selection: &Selection, waiter: Waiter) -> Option<Arc<Group>> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.by_selection.get(selection) {
            lock(&group.waiters).push_back(waiter);
            group.wake.notify_one();
            return None;
        }
        let group = Arc::new(Group {
            selection: selection.clone(),
            waiters: Mutex::new(VecDeque::from([waiter])),
            wake: Notify::new(),
        });
        groups.by_selection.insert(selection.clone(), Arc::clone(&group));
        let types = groups.by_type.entry(Arc::clone(&selection.scope.tenant)).or_default();
        for task_type in &selection.task_types {
            types.entry(task_type.clone()).or_default().push(Arc::clone(&group));
        }
        Some(group)
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
