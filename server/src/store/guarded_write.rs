//! THE guarded write: every move of a task is one of these.
//!
//! Each write leaves a stamp of its own in the task, a random number, and each names the stamp it expects to find. So
//! a write succeeds only on exactly the task that was read, two can never both succeed, and a write whose answer was
//! lost is found again by its stamp instead of guessed at.
//!
//! What the database does for each *statement* (parse, plan, lock) costs more than what it does for each task. Tasks
//! that move alike therefore share one statement: it finds them by id and stamp and merges into each what has changed
//! in it, looked up by its id. No statement carries two writes of one task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bson::{RawArrayBuf, RawBsonRef, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::FindOptions;
use task_repo_protocol::{Status, Uuid};

use super::command::{Written, cstr};
use super::leases::Leases;
use super::{Store, StoreError, stored_id};
use crate::mistake::{self, Mistake};
use crate::task::TaskRecord;

/// Most writes of one caller that go together: the database works on one command with one thread.
const MAX_PIECE: usize = 125;
/// Most bytes of changes in one statement that several tasks share.
const MAX_SHARED_BYTES: usize = 2 << 20;

/// A task as it was read, to be compared with what becomes of it.
pub(super) struct Staging {
    tenant: String,
    status: Status,
    stamp: i64,
    fields: RawDocumentBuf,
}

/// A task with all changes made to it in memory, and what has to be written to make them last.
pub(super) struct Staged {
    /// As it will be.
    pub(super) record: Arc<TaskRecord>,
    tenant: String,
    status: Status,
    expected: i64,
    /// Its stored form, as it will be, if that is worth remembering.
    remembered: Option<RawDocumentBuf>,
    set: RawDocumentBuf,
    unset: Vec<String>,
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
    pub(super) fn of(record: &TaskRecord) -> Option<Self> {
        stored(record).map(|fields| Self::with(record, fields))
    }

    /// The same where its stored form is at hand.
    pub(super) fn with(record: &TaskRecord, fields: RawDocumentBuf) -> Self {
        Self { tenant: record.tenant.clone(), status: record.status, stamp: record.stamp, fields }
    }

    /// The write that turns what was remembered into `record`.
    pub(super) fn finish(self, mut record: TaskRecord) -> Option<Staged> {
        record.stamp = new_stamp();
        let fields = stored(&record)?;
        let (set, unset) = difference(&self.fields, &fields)?;
        let Self { tenant, status, stamp, .. } = self;
        let remembered = if !Leases::want(&record) {
            None
        } else if record.has_payload() {
            let mut bare = record.clone();
            bare.take_payload();
            stored(&bare)
        } else {
            Some(fields)
        };
        Some(Staged { record: Arc::new(record), tenant, status, expected: stamp, remembered, set, unset })
    }
}

impl Staged {
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

    fn id(&self) -> bson::Binary {
        stored_id(self.record.id)
    }

    /// A statement of its own.
    fn statement(&self) -> RawDocumentBuf {
        let mut update = rawdoc! { "$set": self.set.clone() };
        if !self.unset.is_empty() {
            let mut unset = RawDocumentBuf::new();
            for field in &self.unset {
                unset.append(cstr(field), "");
            }
            update.append(cstr("$unset"), unset);
        }
        let mut query = rawdoc! {
            "_id": self.id(), "tenant": self.tenant.as_str(), "status": self.status.as_str(), "stamp": self.expected,
        };
        if self.is_unguarded() {
            query = rawdoc! { "_id": self.id() };
        }
        rawdoc! { "q": query, "u": update, "hint": "_id_" }
    }
}

/// Tells one write from any other; never 0.
pub(super) fn new_stamp() -> i64 {
    rand::random::<i64>() | 1
}

/// One statement for tasks of one tenant and status that lose the same fields.
fn shared_statement(alike: &[&Staged]) -> RawDocumentBuf {
    let (mut ids, mut stamps, mut sets) = (RawArrayBuf::new(), RawArrayBuf::new(), RawArrayBuf::new());
    for staged in alike {
        ids.push(staged.id());
        stamps.push(staged.expected);
        sets.push(&*staged.set);
    }
    let first = alike[0];
    let query = rawdoc! {
        "_id": { "$in": ids.clone() },
        "tenant": first.tenant.as_str(),
        "status": first.status.as_str(),
        "stamp": { "$in": stamps },
    };
    // Everything from callers stands under $literal, so that nothing in it is an expression.
    let place = rawdoc! { "$indexOfArray": [{ "$literal": ids }, "$_id"] };
    let change = rawdoc! { "$arrayElemAt": [{ "$literal": sets }, place] };
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", change] } });
    if !first.unset.is_empty() {
        let mut unset = RawArrayBuf::new();
        for field in &first.unset {
            unset.push(field.as_str());
        }
        pipeline.push(rawdoc! { "$unset": unset });
    }
    rawdoc! { "q": query, "u": pipeline, "multi": true, "hint": "_id_" }
}

fn statements(staged: &[Staged]) -> Vec<RawDocumentBuf> {
    let mut alike: BTreeMap<_, Vec<&Staged>> = BTreeMap::new();
    let mut statements = Vec::new();
    let mut named = HashSet::with_capacity(staged.len());
    for stage in staged {
        if named.insert(stage.record.id) && !stage.is_unguarded() {
            alike.entry((&stage.tenant, stage.status.as_str(), &stage.unset)).or_default().push(stage);
        } else {
            // A shared statement tells the writes of one task apart by nothing but its id: the stamp that one of them
            // expects would let the change of another in.
            statements.push(stage.statement());
        }
    }
    for mut rest in alike.values().map(Vec::as_slice) {
        while !rest.is_empty() {
            let mut bytes = 0;
            let is_full = |stage: &&Staged| {
                bytes += stage.bytes();
                bytes > MAX_SHARED_BYTES
            };
            let count = rest.iter().position(is_full).unwrap_or(rest.len()).max(1);
            let (now, later) = rest.split_at(count);
            statements.push(if let [lone] = now { lone.statement() } else { shared_statement(now) });
            rest = later;
        }
    }
    statements
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
        let mut written = self.update_command(&statements(&staged)).await;
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
            Written::Unknown => None,
        };
        let mut fates = if landed == Some(staged.len()) {
            vec![Fate::Landed; staged.len()]
        } else {
            // Another was first somewhere, or the answer was lost. The stamps tell which.
            fates(&staged, landed, self.stamps(&staged).await.as_ref())
        };
        for index in refused {
            if let Some(fate @ Fate::Missed) = fates.get_mut(index) {
                *fate = Fate::Failed(StoreError::Unavailable);
            }
        }
        for (stage, fate) in staged.into_iter().zip(&fates) {
            match (fate, stage.remembered) {
                (Fate::Landed, Some(fields)) => self.leases.note(stage.record.id, fields),
                _ => self.leases.forget(stage.record.id),
            }
        }
        fates
    }

    /// The latest write of each task, as a majority has it; `None` when the database does not say.
    async fn stamps(&self, staged: &[Staged]) -> Option<HashMap<Uuid, i64>> {
        #[derive(serde::Deserialize)]
        struct Stamp {
            #[serde(rename = "_id")]
            id: bson::Uuid,
            stamp: i64,
        }
        let ids: Vec<_> = staged.iter().map(Staged::id).collect();
        let tasks = self.tasks.clone_with_type::<Stamp>();
        let filter = doc! { "_id": { "$in": ids } };
        let options = FindOptions::builder().projection(doc! { "stamp": 1 }).max_time(self.timeout).build();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<Stamp>>().await };
        let found = self.call("stamps", find).await.ok()?;
        Some(found.into_iter().map(|it| (Uuid::from_bytes(it.id.bytes()), it.stamp)).collect())
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

/// A task's stored form. `None`: BSON cannot hold it.
pub(super) fn stored(record: &TaskRecord) -> Option<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(record)
        .inspect_err(|error| tracing::error!(%error, "a task has no stored form"))
        .ok()
}

/// The top-level fields that are new or differ, and the names of those that are gone. Both documents are stored forms
/// of a task, so their fields come in one order.
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
                if rest[place].1 != value {
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
    use super::*;

    fn write(id: u128, expected: i64) -> Staged {
        let record = TaskRecord { stamp: expected + 1000, ..TaskRecord::pending(Uuid::from_u128(id)) };
        Staged {
            record: Arc::new(record),
            tenant: "default".to_owned(),
            status: Status::Pending,
            expected,
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
    fn a_statement_never_carries_two_writes_of_one_task() {
        // One was read before the other's write: side by side, the stamp of one would let the change of the other in.
        let statements = statements(&[write(1, 10), write(2, 20), write(1, 11), write(3, 30)]);
        let mut found: Vec<_> = statements
            .iter()
            .map(|statement| {
                let query = statement.get_document("q").unwrap();
                match query.get_document("_id").and_then(|ids| ids.get_array("$in")) {
                    Ok(ids) => ids.into_iter().count(),
                    Err(_) => 1,
                }
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
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
