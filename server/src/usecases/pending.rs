//! How many tasks of a type wait, for types that may have only so many.
//!
//! The feed counts the tasks of all servers, up to a time that it tells. What this server did since then it counts itself, and
//! a task that is being created here counts from when it was let in. So this server alone never goes beyond a limit; with
//! others it goes beyond by what they took in since they were last counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use task_repo_protocol::Uuid;

use crate::events::{Hub, TaskEvent};
use crate::store::{CountedTypes, StoreError};
use crate::task::Status;

/// After this time the count is read again, beside the creates.
const FRESH: Duration = Duration::from_millis(500);
/// After this time no create goes by it any more before it was read again.
const BELIEVED: Duration = Duration::from_millis(1500);
/// A type of which nothing is created here for this long is not counted here any more.
const USED: Duration = Duration::from_secs(60);
/// Most changes of a type that are told apart by their time.
const MAX_OWN: usize = 10_000;

/// A type of a tenant.
pub(super) type TypeKey = (Arc<str>, String);

/// How many tasks of a type wait.
struct Waiting {
    /// As it was read.
    counted: i64,
    /// Up to when that is right.
    as_of: Option<DateTime<Utc>>,
    read_at: Option<Instant>,
    is_being_read: bool,
    /// What this server did since then.
    own: Vec<(DateTime<Utc>, i64)>,
    /// Tasks that were let in and are not known to be there.
    coming: HashSet<Uuid>,
    used_at: Instant,
}

impl Waiting {
    fn new() -> Self {
        Self {
            counted: 0,
            as_of: None,
            read_at: None,
            is_being_read: false,
            own: Vec::new(),
            coming: HashSet::new(),
            used_at: Instant::now(),
        }
    }

    fn is_counted(&self, at: DateTime<Utc>) -> bool {
        self.as_of.is_some_and(|as_of| at <= as_of)
    }

    fn count(&self) -> u64 {
        let own: i64 = self.own.iter().map(|(_, change)| change).sum();
        let coming = i64::try_from(self.coming.len()).unwrap_or(i64::MAX);
        u64::try_from(self.counted.saturating_add(own).saturating_add(coming)).unwrap_or_default()
    }

    /// Notes what this server did. While the feed does not go on, what was done long ago is held together.
    fn add(&mut self, at: DateTime<Utc>, change: i64) {
        if self.own.len() >= MAX_OWN {
            let together = |pair: &[(DateTime<Utc>, i64)]| {
                let latest = pair.iter().map(|(at, _)| *at).max().unwrap_or(at);
                (latest, pair.iter().map(|(_, change)| change).sum())
            };
            self.own = self.own.chunks(2).map(together).collect();
        }
        self.own.push((at, change));
    }

    /// Takes note of what the feed has counted.
    fn note(&mut self, counted: &CountedTypes, now: Instant) {
        let waits = counted.types.first().map_or(0, |counts| counts.pending + counts.scheduled);
        (self.counted, self.as_of, self.read_at) = (waits, counted.as_of, Some(now));
        let own = std::mem::take(&mut self.own);
        self.own = own.into_iter().filter(|(at, _)| !self.is_counted(*at)).collect();
    }
}

fn waits(status: Status) -> bool {
    matches!(status, Status::Pending | Status::Scheduled | Status::Held)
}

/// How many tasks wait of the types of which some are created here and that have a limit.
#[derive(Default)]
pub(super) struct PendingCounts(Mutex<HashMap<TypeKey, Waiting>>);

impl PendingCounts {
    /// Counts what this server does.
    pub(super) fn hearing(hub: &Hub) -> Arc<Self> {
        let counts = Arc::<Self>::default();
        let heard = Arc::clone(&counts);
        hub.subscribe(move |event| heard.hear(event));
        counts
    }

    fn hear(&self, event: &TaskEvent<'_>) {
        let (before, task) = (event.before, event.task);
        let change = i64::from(waits(task.status)) - i64::from(before.is_some_and(waits));
        if change == 0 && before.is_some() {
            return;
        }
        let mut counts = self.0.lock();
        if counts.is_empty() {
            return;
        }
        let key = (Arc::from(task.tenant.as_str()), task.task_type.clone());
        if let Some(waiting) = counts.get_mut(&key) {
            waiting.coming.remove(&task.id);
            if change != 0 && !waiting.is_counted(task.updated_at) {
                waiting.add(task.updated_at, change);
            }
        }
    }

    /// Whether the count must be read before a create goes by it, and whether this caller is to have it read beside.
    pub(super) fn age(&self, key: &TypeKey) -> (bool, bool) {
        let mut counts = self.0.lock();
        let waiting = counts.entry(key.clone()).or_insert_with(Waiting::new);
        waiting.used_at = Instant::now();
        let age = waiting.read_at.map_or(Duration::MAX, |at| at.elapsed());
        let is_old = age > BELIEVED;
        let is_to_be_read = !is_old && age > FRESH && !waiting.is_being_read;
        waiting.is_being_read |= is_to_be_read;
        (is_old, is_to_be_read)
    }

    pub(super) fn note(&self, key: &TypeKey, counted: &Result<CountedTypes, StoreError>, asked: Instant) {
        let mut counts = self.0.lock();
        counts.retain(|_, waiting| waiting.used_at.elapsed() < USED || !waiting.coming.is_empty());
        let Some(waiting) = counts.get_mut(key) else { return };
        waiting.is_being_read = false;
        // A read that began before another that has come already is older.
        if let Ok(counted) = counted
            && waiting.read_at.is_none_or(|at| at <= asked)
        {
            waiting.note(counted, asked);
        }
    }

    /// Lets a task in, unless so many wait already; then it says how many.
    pub(super) fn let_in(self: &Arc<Self>, key: &TypeKey, id: Uuid, limit: u64) -> Result<LetIn, u64> {
        let mut counts = self.0.lock();
        let waiting = counts.entry(key.clone()).or_insert_with(Waiting::new);
        let current = waiting.count();
        if current >= limit {
            return Err(current);
        }
        waiting.coming.insert(id);
        Ok(LetIn { counts: Arc::clone(self), key: key.clone(), id })
    }
}

/// A task that was let in. When this is dropped it is there, or does not come.
pub(super) struct LetIn {
    counts: Arc<PendingCounts>,
    key: TypeKey,
    id: Uuid,
}

impl Drop for LetIn {
    fn drop(&mut self) {
        if let Some(waiting) = self.counts.0.lock().get_mut(&self.key) {
            waiting.coming.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::store::TypeCounts;
    use crate::task::TaskRecord;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn counted(pending: i64, as_of: i64) -> CountedTypes {
        let counts = TypeCounts { pending, scheduled: 1, ..TypeCounts::default() };
        CountedTypes { types: vec![counts], as_of: Some(at(as_of)) }
    }

    #[test]
    fn what_this_server_did_counts_until_the_feed_has_counted_it() {
        let hub = Hub::default();
        let counts = PendingCounts::hearing(&hub);
        let key: TypeKey = (Arc::from("default"), "t".to_owned());
        assert_eq!(counts.age(&key), (true, false), "it was never read");
        let tell = |before, status, seconds, id| {
            let task =
                TaskRecord { status, updated_at: at(seconds), ..TaskRecord::pending(Uuid::from_u128(id)) };
            hub.emit(&TaskEvent { before, moves: &[], task: &Arc::new(task) });
        };
        counts.note(&key, &Ok(counted(2, 10)), Instant::now());
        tell(None, Status::Pending, 9, 1);
        let let_in = |id| counts.let_in(&key, Uuid::from_u128(id), 5);
        let first = let_in(2).expect("there were 3");
        let second = let_in(3).expect("there were 4");
        assert_eq!(let_in(4).err(), Some(5));
        tell(None, Status::Scheduled, 11, 2);
        drop(first);
        drop(second);
        assert_eq!(let_in(5).map(drop).err(), None, "the second never came");
        tell(Some(Status::Pending), Status::Processing, 12, 1);
        counts.note(&key, &Ok(counted(3, 11)), Instant::now());
        let all: Vec<_> = (6..20).map_while(|id| let_in(id).ok()).collect();
        assert_eq!(all.len(), 2, "4 are counted, and one of them was taken since");
    }
}
