//! A task as it was read, as it will be, and the write that makes the difference last.

use std::sync::Arc;

use bson::{RawBsonRef, RawDocumentBuf};

use crate::events::{Hub, TaskEvent};
use crate::fault_injection::{self, InjectedFault};
use crate::store::error::StoreError;
use crate::store::form::Form;
use crate::store::lease_cache::LeaseCache;
use crate::task::{MoveRecord, Status, TaskRecord};

/// A task as it was read, to be compared with what becomes of it.
pub(in crate::store) struct Staging {
    tenant: String,
    status: Status,
    stamp: i64,
    nonce: WriteNonce,
    form: Form,
    fields: RawDocumentBuf,
}

/// A task with all changes made to it in memory, and what has to be written to make them last.
pub(in crate::store) struct Staged {
    /// As it will be.
    pub(in crate::store) record: Arc<TaskRecord>,
    pub(in crate::store) tenant: String,
    /// Where it stood when it was read.
    pub(in crate::store) status: Status,
    pub(in crate::store) expected: i64,
    pub(in crate::store) nonce: WriteNonce,
    /// The moves of the task: one for each version that the write makes.
    pub(in crate::store) moves: Arc<[MoveRecord]>,
    /// Its stored form, as it will be, if that is worth remembering.
    pub(in crate::store) remembered: Option<RawDocumentBuf>,
    /// The fields that are new or differ, but for the stamp.
    pub(in crate::store) set: RawDocumentBuf,
    pub(in crate::store) unset: Vec<String>,
}

/// The event of a write that is not durable yet.
pub(in crate::store) struct PendingEvent {
    before: Status,
    moves: Arc<[MoveRecord]>,
    /// The task as the write leaves it.
    pub(in crate::store) task: Arc<TaskRecord>,
}

impl PendingEvent {
    /// Emits it. A write that makes no version of the task is no event.
    pub(in crate::store) fn emit(&self, hub: &Hub) {
        if !self.moves.is_empty() {
            hub.emit(&TaskEvent { before: Some(self.before), moves: &self.moves, task: &self.task });
        }
    }
}

/// The outcome of a staged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum WriteOutcome {
    /// It is durable.
    Landed,
    /// Another write of the task was first; nothing has changed.
    Missed,
    /// The database did not say, neither when it wrote nor when it was asked.
    Unknown,
    /// It was not applied, and to try again at once would not help.
    Failed(StoreError),
}

impl Staging {
    /// Remembers `record` as it is. `None`: BSON cannot hold it.
    pub(in crate::store) fn of(record: &TaskRecord, nonce: WriteNonce, form: Form) -> Option<Self> {
        form.of(record).map(|fields| Self::with(record, fields, nonce, form))
    }

    /// The same where its stored form is at hand.
    pub(in crate::store) fn with(
        record: &TaskRecord,
        fields: RawDocumentBuf,
        nonce: WriteNonce,
        form: Form,
    ) -> Self {
        Self {
            tenant: record.tenant.clone(),
            status: record.status,
            stamp: record.stamp,
            nonce,
            form,
            fields,
        }
    }

    /// The write that turns what was remembered into `record`, which these moves have made of it.
    pub(in crate::store) fn finish(self, mut record: TaskRecord, moves: Vec<MoveRecord>) -> Option<Staged> {
        let Self { tenant, status, stamp, nonce, form, .. } = self;
        record.stamp = nonce.of(stamp);
        record.note(&moves);
        let fields = form.of(&record)?;
        let (set, unset) = difference(&self.fields, &fields)?;
        let remembered = if !LeaseCache::want(&record) {
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
            nonce,
            moves: moves.into(),
            remembered,
            set,
            unset,
        })
    }
}

impl Staged {
    /// The event to be emitted once the write is durable.
    pub(in crate::store) fn pending_event(&self) -> PendingEvent {
        PendingEvent { before: self.status, moves: Arc::clone(&self.moves), task: Arc::clone(&self.record) }
    }

    /// Bytes of a command that it takes.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.set.as_bytes().len() + 100
    }

    /// Whether it is written without its guard, by an injected fault.
    pub(in crate::store) fn is_unguarded(&self) -> bool {
        let is_claim = self.status == Status::Pending && self.record.lease.is_some();
        let is_loss =
            self.status == Status::Processing && self.record.losses > 0 && !self.record.status.is_final();
        (is_claim && fault_injection::is_injected(InjectedFault::UnguardedClaim))
            || (is_loss && fault_injection::is_injected(InjectedFault::UnguardedSweeper))
    }
}

/// XOR mask of one call: it gives each task of a statement a new, distinct stamp by one `$bit`. Stamps that differed still
/// differ afterwards, though the database is told one number for all tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct WriteNonce(pub(in crate::store) i64);

impl WriteNonce {
    /// A mask that no other call has. Its last bit is 0, so that stamps stay odd.
    pub(in crate::store) fn new() -> Self {
        Self(rand::random::<i64>() & !1)
    }

    pub(in crate::store) fn of(self, stamp: i64) -> i64 {
        stamp ^ self.0
    }
}

/// The stamp of a new task. It is odd, as all later stamps of the task are, so none is ever 0.
pub fn new_stamp() -> i64 {
    rand::random::<i64>() | 1
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
pub(in crate::store) mod tests {
    use bson::rawdoc;
    use task_repo_protocol::Uuid;

    use super::*;

    pub(in crate::store) fn write(id: u128, expected: i64) -> Staged {
        let record = TaskRecord { stamp: expected + 1000, ..TaskRecord::pending(Uuid::from_u128(id)) };
        Staged {
            record: Arc::new(record),
            tenant: "default".to_owned(),
            status: Status::Pending,
            expected,
            nonce: WriteNonce::new(),
            moves: Arc::default(),
            remembered: None,
            set: rawdoc! { "version": expected },
            unset: Vec::new(),
        }
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
