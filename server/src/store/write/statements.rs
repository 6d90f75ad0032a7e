//! The statements that carry guarded writes.
//!
//! What the database does for each *statement* (parse, plan, lock) costs more than what it does for each task. Tasks
//! that move alike therefore share one statement, which finds them by id and stamp. Where the very same changes in all,
//! as in most claims of several tasks, it says so once; otherwise it merges into each what has changed in it, looked up
//! by its id. No statement carries two writes of one task.

use std::collections::{BTreeMap, HashSet};

use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

use crate::store::carried::Staged;
use crate::store::driver::command::cstr;
use crate::store::ids::stored_id;

/// How many tasks must change in the same way for a statement of their own.
const MIN_SAME: usize = 8;
/// Most bytes of changes in one statement that several tasks share.
const MAX_SHARED_BYTES: usize = 2 << 20;

impl Staged {
    pub(super) fn id(&self) -> bson::Binary {
        stored_id(self.record.id)
    }

    /// A statement of its own.
    pub(super) fn statement(&self) -> RawDocumentBuf {
        let mut update = rawdoc! { "$set": self.changes() };
        if !self.unset.is_empty() {
            update.append(cstr("$unset"), self.unsets());
        }
        let mut query = rawdoc! {
            "_id": self.id(), "tenant": self.tenant.as_str(), "status": self.status.as_str(), "stamp": self.expected,
        };
        if self.is_unguarded() {
            query = rawdoc! { "_id": self.id() };
        }
        rawdoc! { "q": query, "u": update, "hint": "_id_" }
    }

    /// All that is new or differs.
    fn changes(&self) -> RawDocumentBuf {
        let mut changes = self.set.clone();
        changes.append(cstr("stamp"), self.record.stamp);
        changes
    }

    fn unsets(&self) -> RawDocumentBuf {
        let mut unset = RawDocumentBuf::new();
        for field in &self.unset {
            unset.append(cstr(field), "");
        }
        unset
    }
}

/// Finds tasks of one tenant and status, as they were read.
fn shared_query(alike: &[&Staged]) -> RawDocumentBuf {
    let (mut ids, mut stamps) = (RawArrayBuf::new(), RawArrayBuf::new());
    for staged in alike {
        ids.push(staged.id());
        stamps.push(staged.expected);
    }
    rawdoc! {
        "_id": { "$in": ids },
        "tenant": alike[0].tenant.as_str(),
        "status": alike[0].status.as_str(),
        "stamp": { "$in": stamps },
    }
}

/// One statement for tasks that one call changes in the very same way.
fn same_statement(same: &[&Staged]) -> RawDocumentBuf {
    let first = same[0];
    let mut update = rawdoc! { "$set": first.set.clone(), "$bit": { "stamp": { "xor": first.nonce.0 } } };
    if !first.unset.is_empty() {
        update.append(cstr("$unset"), first.unsets());
    }
    rawdoc! { "q": shared_query(same), "u": update, "multi": true, "hint": "_id_" }
}

/// One statement for tasks of one tenant and status that lose the same fields.
fn shared_statement(alike: &[&Staged]) -> RawDocumentBuf {
    let (mut ids, mut sets) = (RawArrayBuf::new(), RawArrayBuf::new());
    for staged in alike {
        ids.push(staged.id());
        sets.push(staged.changes());
    }
    let first = alike[0];
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
    rawdoc! { "q": shared_query(alike), "u": pipeline, "multi": true, "hint": "_id_" }
}

/// The statements that carry these writes.
pub(super) fn statements(staged: &[Staged]) -> Vec<RawDocumentBuf> {
    let mut same: BTreeMap<_, Vec<&Staged>> = BTreeMap::new();
    let mut statements = Vec::new();
    let mut named = HashSet::with_capacity(staged.len());
    for stage in staged {
        if named.insert(stage.record.id) && !stage.is_unguarded() {
            let kind = (stage.tenant.as_str(), stage.status.as_str(), stage.unset.as_slice());
            same.entry((kind, stage.nonce, stage.set.as_bytes())).or_default().push(stage);
        } else {
            // A shared statement tells the writes of one task apart by nothing but its id: the stamp that one of them
            // expects would let the change of another in.
            statements.push(stage.statement());
        }
    }
    let mut alike: BTreeMap<_, Vec<&Staged>> = BTreeMap::new();
    for ((kind, ..), stages) in same {
        if stages.len() < MIN_SAME {
            alike.entry(kind).or_default().extend(stages);
        } else {
            statements.push(same_statement(&stages));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::carried::{WriteNonce, staged_for_tests as write};

    #[test]
    fn tasks_that_change_in_the_same_way_share_a_statement_that_says_it_once() {
        let nonce = WriteNonce::new();
        let same = |id: u128| Staged { nonce, set: rawdoc! { "status": "processing" }, ..write(id, odd(id)) };
        let other = Staged { set: rawdoc! { "status": "processing" }, ..write(90, odd(90)) };
        let mut staged: Vec<_> = (0..10).map(same).collect();
        staged.push(other);
        let [shared, lone] = &statements(&staged)[..] else { panic!("two statements") };
        assert_eq!(lone.get_document("q").unwrap().get_i64("stamp").unwrap(), odd(90), "another call's");
        let query = shared.get_document("q").unwrap();
        let ids = query.get_document("_id").unwrap().get_array("$in").unwrap();
        assert_eq!(ids.into_iter().count(), 10);
        let update = shared.get_document("u").unwrap();
        assert_eq!(update.get_document("$set").unwrap(), &*staged[0].set);
        let xor = update.get_document("$bit").unwrap().get_document("stamp").unwrap().get_i64("xor").unwrap();
        assert!(staged[..10].iter().all(|stage| stage.expected ^ xor == nonce.of(stage.expected)));
    }

    fn odd(id: u128) -> i64 {
        i64::try_from(2 * id + 1).unwrap()
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
}
