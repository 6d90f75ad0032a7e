//! THE guarded write: every move of a task is one of these.
//!
//! Each write leaves a stamp of its own in the task, a random number, and each names the stamp it expects to find. So
//! a write succeeds only on exactly the task that was read, two can never both succeed, and a write whose answer was
//! lost is found again by its stamp instead of guessed at.

mod statement;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bson::{Binary, Document, RawBsonRef, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::command::Written;
use super::form::Form;
use super::leases::Leases;
use super::{Store, StoreError, read_id};
use crate::events::{Hub, TaskEvent};
use crate::mistake::{self, Mistake};
use crate::task::{MoveRecord, Status, TaskRecord};

/// Most writes of one caller that go together: the database works on one command with one thread.
const MAX_PIECE: usize = 125;

/// A task as it was read, to be compared with what becomes of it.
pub(super) struct Staging {
    tenant: String,
    status: Status,
    stamp: i64,
    mark: Mark,
    form: Form,
    fields: RawDocumentBuf,
}

/// A task with all changes made to it in memory, and what has to be written to make them last.
pub(super) struct Staged {
    /// As it will be.
    pub(super) record: Arc<TaskRecord>,
    tenant: String,
    /// Where it stood when it was read.
    status: Status,
    expected: i64,
    mark: Mark,
    /// What is done to it: an entry for each version that the write makes.
    moves: Arc<[MoveRecord]>,
    /// Its stored form, as it will be, if that is worth remembering.
    remembered: Option<RawDocumentBuf>,
    /// What is new or differs, but for the stamp.
    set: RawDocumentBuf,
    unset: Vec<String>,
}

/// What is to be told of a write once it is durable.
pub(super) struct News {
    before: Status,
    moves: Arc<[MoveRecord]>,
    /// The task as the write leaves it.
    pub(super) task: Arc<TaskRecord>,
}

impl News {
    /// Tells it. A write that makes no version of the task is no event.
    pub(super) fn tell(&self, hub: &Hub) {
        if !self.moves.is_empty() {
            hub.emit(&TaskEvent { before: Some(self.before), moves: &self.moves, task: &self.task });
        }
    }
}

/// What became of a staged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is durable.
    Landed,
    /// Another's write was first; nothing has changed.
    Missed,
    /// The database did not say, neither when it wrote nor when it was asked.
    Unknown,
    /// It was not applied, and to try again at once would not help.
    Failed(StoreError),
}

impl Staging {
    /// Remembers `record` as it is. `None`: BSON cannot hold it.
    pub(super) fn of(record: &TaskRecord, mark: Mark, form: Form) -> Option<Self> {
        form.of(record).map(|fields| Self::with(record, fields, mark, form))
    }

    /// The same where its stored form is at hand.
    pub(super) fn with(record: &TaskRecord, fields: RawDocumentBuf, mark: Mark, form: Form) -> Self {
        Self { tenant: record.tenant.clone(), status: record.status, stamp: record.stamp, mark, form, fields }
    }

    /// The write that turns what was remembered into `record`, which these moves have made of it.
    pub(super) fn finish(self, mut record: TaskRecord, moves: Vec<MoveRecord>) -> Option<Staged> {
        let Self { tenant, status, stamp, mark, form, .. } = self;
        record.stamp = mark.of(stamp);
        record.note(&moves);
        let fields = form.of(&record)?;
        let (set, unset) = difference(&self.fields, &fields)?;
        let remembered = if !Leases::want(&record) {
            None
        } else if record.has_payload() {
            let mut bare = record.clone();
            bare.take_payload();
            form.of(&bare)
        } else {
            Some(fields)
        };
        Some(Staged {
            record: Arc::new(record),
            tenant,
            status,
            expected: stamp,
            mark,
            moves: moves.into(),
            remembered,
            set,
            unset,
        })
    }
}

impl Staged {
    /// What is to be told once the write is durable.
    pub(super) fn news(&self) -> News {
        News { before: self.status, moves: Arc::clone(&self.moves), task: Arc::clone(&self.record) }
    }

    /// Bytes of a command that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.set.as_bytes().len() + 100
    }

    /// Whether it is written without its guard, by a mistake made on purpose.
    pub(super) fn is_unguarded(&self) -> bool {
        let is_claim = self.status == Status::Pending && self.record.lease.is_some();
        let is_loss =
            self.status == Status::Processing && self.record.losses > 0 && !self.record.status.is_final();
        (is_claim && mistake::is_made(Mistake::UnguardedClaim))
            || (is_loss && mistake::is_made(Mistake::UnguardedSweeper))
    }
}

/// What the writes of one call leave behind. It turns the stamp of each task into a new one, so tasks whose stamps
/// differed still have different ones, though the database is told one number for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(i64);

impl Mark {
    /// One that no other call has.
    pub(super) fn new() -> Self {
        Self(rand::random::<i64>() & !1)
    }

    fn of(self, stamp: i64) -> i64 {
        stamp ^ self.0
    }
}

/// The stamp of a new task: odd, as all that come of it, and so never 0.
pub fn new_stamp() -> i64 {
    rand::random::<i64>() | 1
}

impl Store {
    /// Writes what was staged, together with what other callers have staged; says of each, in order, what became of
    /// it, as far as that is known by `until`. Who has much to write has it carried by several commands side by side.
    pub(super) async fn write(&self, mut staged: Vec<Staged>, until: Instant) -> Vec<Fate> {
        if staged.len() <= MAX_PIECE {
            return self.write_piece(staged, until).await;
        }
        let mut pieces = Vec::with_capacity(staged.len().div_ceil(MAX_PIECE));
        while !staged.is_empty() {
            let first = staged.len().saturating_sub(MAX_PIECE);
            pieces.push(staged.split_off(first));
        }
        pieces.reverse();
        join_all(pieces.into_iter().map(|piece| self.write_piece(piece, until))).await.concat()
    }

    async fn write_piece(&self, staged: Vec<Staged>, until: Instant) -> Vec<Fate> {
        let (count, bytes) = (staged.len(), staged.iter().map(Staged::bytes).sum());
        let store = self.clone();
        let run = move |staged| {
            let store = store.clone();
            async move { store.write_now(staged).await }
        };
        match self.groups.writes.submit(staged, bytes, until, &self.runtime, run).await {
            Ok(fates) => fates,
            Err(StoreError::OutcomeUnknown) => vec![Fate::Unknown; count],
            Err(error) => vec![Fate::Failed(error); count],
        }
    }

    async fn write_now(&self, staged: Vec<Staged>) -> Vec<Fate> {
        let mut refused = Vec::new();
        let mut written = self.update_command(&statement::statements(&staged)).await;
        if let Written::Unsent = written {
            return vec![Fate::Failed(StoreError::Overloaded); staged.len()];
        }
        if let Written::Answered { matched: before, errors } = &written
            && !errors.is_empty()
        {
            // A task that cannot be written must not stop those that share its statement. Who has landed has another
            // stamp by now and is not written twice.
            let (before, each): (_, Vec<_>) = (*before, staged.iter().map(Staged::statement).collect());
            written = self.update_command(&each).await;
            if let Written::Answered { matched, errors } = &mut written {
                *matched += before;
                refused.extend(errors.iter().map(|error| error.index));
            }
        }
        let landed = match written {
            Written::Answered { matched, .. } => Some(matched),
            Written::Unknown | Written::Unsent => None,
        };
        let mut fates = if landed == Some(staged.len()) {
            vec![Fate::Landed; staged.len()]
        } else {
            // Another was first somewhere, or the answer was lost. The stamps tell which.
            let ids: Vec<_> = staged.iter().map(Staged::id).collect();
            fates(&staged, landed, self.stamps(&ids).await.as_ref())
        };
        for index in refused {
            if let Some(fate @ Fate::Missed) = fates.get_mut(index) {
                *fate = Fate::Failed(StoreError::Unavailable);
            }
        }
        for (stage, fate) in staged.into_iter().zip(&fates) {
            if *fate == Fate::Landed {
                stage.news().tell(&self.hub);
            }
            match (fate, stage.remembered) {
                (Fate::Landed, Some(fields)) => self.leases.note(stage.record.id, fields),
                _ => self.leases.forget(stage.record.id),
            }
        }
        fates
    }

    /// The latest write of each task, as a majority has it; `None` when the database does not say.
    pub(super) async fn stamps(&self, ids: &[Binary]) -> Option<HashMap<Uuid, i64>> {
        let tasks = self.tasks.clone_with_type::<Document>();
        let filter = doc! { "_id": { "$in": ids } };
        let options = FindOptions::builder().projection(doc! { "stamp": 1 }).max_time(self.timeout).build();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<_>>().await };
        let found = self.call("stamps", find).await.ok()?;
        let stamp = |task: &Document| Some((read_id(task.get("_id")?)?, task.get_i64("stamp").ok()?));
        Some(found.iter().filter_map(stamp).collect())
    }
}

/// What became of each write, where `landed` of them did, as far as the database said, and the tasks now have these
/// stamps.
fn fates(staged: &[Staged], landed: Option<usize>, stamps: Option<&HashMap<Uuid, i64>>) -> Vec<Fate> {
    let Some(stamps) = stamps else { return vec![Fate::Unknown; staged.len()] };
    let is_there = |stage: &Staged| stamps.get(&stage.record.id) == Some(&stage.record.stamp);
    let seen = staged.iter().filter(|stage| is_there(stage)).count();
    // Where more have landed than are seen, somebody has written over one since, and nothing tells which. A write that
    // was not heard of may still be on its way.
    let is_clear = landed.is_some_and(|landed| seen >= landed);
    let not_there = if is_clear { Fate::Missed } else { Fate::Unknown };
    staged.iter().map(|stage| if is_there(stage) { Fate::Landed } else { not_there }).collect()
}

/// The top-level fields that are new or differ, but for the stamp, and the names of those that are gone. Both documents
/// are stored forms of a task, so their fields come in one order.
fn difference(before: &RawDocumentBuf, after: &RawDocumentBuf) -> Option<(RawDocumentBuf, Vec<String>)> {
    let before: Vec<(_, RawBsonRef<'_>)> = before.iter().collect::<Result<_, _>>().ok()?;
    let (mut set, mut unset) = (RawDocumentBuf::new(), Vec::new());
    let mut rest = before.as_slice();
    for element in after {
        let (key, value) = element.ok()?;
        match rest.iter().position(|(name, _)| *name == key) {
            None => set.append(key, value),
            Some(place) => {
                unset.extend(rest[..place].iter().map(|(name, _)| name.as_str().to_owned()));
                if rest[place].1 != value && key != "stamp" {
                    set.append(key, value);
                }
                rest = &rest[place + 1..];
            }
        }
    }
    unset.extend(rest.iter().map(|(name, _)| name.as_str().to_owned()));
    Some((set, unset))
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    pub(super) fn write(id: u128, expected: i64) -> Staged {
        let record = TaskRecord { stamp: expected + 1000, ..TaskRecord::pending(Uuid::from_u128(id)) };
        Staged {
            record: Arc::new(record),
            tenant: "default".to_owned(),
            status: Status::Pending,
            expected,
            mark: Mark::new(),
            moves: Arc::default(),
            remembered: None,
            set: rawdoc! { "version": expected },
            unset: Vec::new(),
        }
    }

    #[test]
    fn a_write_that_may_have_been_written_over_is_not_called_missed() {
        let staged = [write(1, 10), write(2, 20), write(3, 30)];
        let now = |stamps: [i64; 3]| (1..=3).map(Uuid::from_u128).zip(stamps).collect::<HashMap<_, _>>();
        let fates = |landed, stamps: [i64; 3]| super::fates(&staged, landed, Some(&now(stamps)));
        let [there, missed, unknown] = [Fate::Landed, Fate::Missed, Fate::Unknown];
        assert_eq!(fates(Some(1), [1010, 5, 6]), [there, missed, missed]);
        assert_eq!(fates(Some(2), [1010, 5, 6]), [there, unknown, unknown]);
        assert_eq!(fates(Some(0), [4, 5, 6]), [missed; 3]);
        assert_eq!(fates(None, [1010, 5, 6]), [there, unknown, unknown]);
        assert_eq!(super::fates(&staged, Some(1), None), [unknown; 3]);
    }

    #[test]
    fn a_difference_names_what_is_new_what_differs_and_what_is_gone() {
        let before = rawdoc! { "a": 1, "b": "x", "c": { "d": [1] }, "e": 5 };
        let after = rawdoc! { "a": 1, "b": "y", "n": true, "c": { "d": [1] } };
        let (set, unset) = difference(&before, &after).unwrap();
        assert_eq!(set, rawdoc! { "b": "y", "n": true });
        assert_eq!(unset, ["e"]);
        let (set, unset) = difference(&rawdoc! { "x": 1, "a": 2 }, &rawdoc! { "a": 2 }).unwrap();
        assert_eq!((set, unset), (rawdoc! {}, vec!["x".to_owned()]));
    }
}
