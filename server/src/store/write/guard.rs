//! THE guarded write: every move of a task is one of these.
//!
//! Each write leaves a stamp of its own in the task, a random number, and names the stamp that it expects to find. So a
//! write succeeds only on exactly the task that was read, and two can never both succeed. A write whose answer was lost is
//! found again by its stamp.

use std::collections::HashMap;
use std::time::Instant;

use bson::{Binary, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::statements::statements;
use crate::store::carried::{Staged, WriteOutcome};
use crate::store::driver::Store;
use crate::store::driver::command::Written;
use crate::store::error::StoreError;
use crate::store::ids::read_id;

/// Most writes of one caller that go together: the database works on one command with one thread.
const MAX_PIECE: usize = 125;

impl Store {
    /// Writes what was staged, together with what other callers have staged; says of each, in order, what became of
    /// it, as far as that is known by `until`. A large call is carried by several commands side by side.
    pub(super) async fn write(&self, mut staged: Vec<Staged>, until: Instant) -> Vec<WriteOutcome> {
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

    async fn write_piece(&self, staged: Vec<Staged>, until: Instant) -> Vec<WriteOutcome> {
        let (count, bytes) = (staged.len(), staged.iter().map(Staged::bytes).sum());
        let store = self.clone();
        let run = move |staged| {
            let store = store.clone();
            async move { store.write_now(staged).await }
        };
        match self.groups.writes.submit(staged, bytes, until, &self.runtime, run).await {
            Ok(outcomes) => outcomes,
            Err(StoreError::OutcomeUnknown) => vec![WriteOutcome::Unknown; count],
            Err(error) => vec![WriteOutcome::Failed(error); count],
        }
    }

    async fn write_now(&self, staged: Vec<Staged>) -> Vec<WriteOutcome> {
        let mut refused = Vec::new();
        let mut written = self.update_command(&statements(&staged)).await;
        if let Written::Unsent = written {
            return vec![WriteOutcome::Failed(StoreError::Overloaded); staged.len()];
        }
        if let Written::Answered { matched: before, errors } = &written
            && !errors.is_empty()
        {
            // A task that cannot be written must not stop those that share its statement. A write that landed has left
            // another stamp by now, so it is not made twice.
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
        let mut outcomes = if landed == Some(staged.len()) {
            vec![WriteOutcome::Landed; staged.len()]
        } else {
            // Another write was first somewhere, or the answer was lost. The stamps tell which.
            let ids: Vec<_> = staged.iter().map(Staged::id).collect();
            outcomes(&staged, landed, self.stamps(&ids).await.as_ref())
        };
        for index in refused {
            if let Some(outcome @ WriteOutcome::Missed) = outcomes.get_mut(index) {
                *outcome = WriteOutcome::Failed(StoreError::Unavailable);
            }
        }
        for (stage, outcome) in staged.into_iter().zip(&outcomes) {
            if *outcome == WriteOutcome::Landed {
                stage.pending_event().emit(&self.hub);
            }
            match (outcome, stage.remembered) {
                (WriteOutcome::Landed, Some(fields)) => self.leases.note(stage.record.id, fields),
                _ => self.leases.forget(stage.record.id),
            }
        }
        outcomes
    }

    /// The latest write of each task, as a majority has it; `None` when the database does not say.
    pub(super) async fn stamps(&self, ids: &[Binary]) -> Option<HashMap<Uuid, i64>> {
        let tasks = self.tasks.clone_with_type::<Document>();
        let filter = doc! { "_id": { "$in": ids } };
        let options = FindOptions::builder().projection(doc! { "stamp": 1 }).max_time(self.timeout).build();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<_>>().await };
        let found = self.call("stamps", self.step_deadline(), find).await.ok()?;
        let stamp = |task: &Document| Some((read_id(task.get("_id")?)?, task.get_i64("stamp").ok()?));
        Some(found.iter().filter_map(stamp).collect())
    }
}

/// The outcome of each write, where `landed` of them landed as far as the database said, and the tasks now have these
/// stamps.
fn outcomes(
    staged: &[Staged],
    landed: Option<usize>,
    stamps: Option<&HashMap<Uuid, i64>>,
) -> Vec<WriteOutcome> {
    let Some(stamps) = stamps else { return vec![WriteOutcome::Unknown; staged.len()] };
    let is_there = |stage: &Staged| stamps.get(&stage.record.id) == Some(&stage.record.stamp);
    let seen = staged.iter().filter(|stage| is_there(stage)).count();
    // Where more have landed than are seen, a later write has hidden one, and nothing tells which. A write of unknown
    // outcome may still be in flight.
    let is_clear = landed.is_some_and(|landed| seen >= landed);
    let not_there = if is_clear { WriteOutcome::Missed } else { WriteOutcome::Unknown };
    staged.iter().map(|stage| if is_there(stage) { WriteOutcome::Landed } else { not_there }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::carried::staged_for_tests as write;

    #[test]
    fn a_write_that_may_have_been_written_over_is_not_called_missed() {
        let staged = [write(1, 10), write(2, 20), write(3, 30)];
        let now = |stamps: [i64; 3]| (1..=3).map(Uuid::from_u128).zip(stamps).collect::<HashMap<_, _>>();
        let outcomes = |landed, stamps: [i64; 3]| super::outcomes(&staged, landed, Some(&now(stamps)));
        let [there, missed, unknown] = [WriteOutcome::Landed, WriteOutcome::Missed, WriteOutcome::Unknown];
        assert_eq!(outcomes(Some(1), [1010, 5, 6]), [there, missed, missed]);
        assert_eq!(outcomes(Some(2), [1010, 5, 6]), [there, unknown, unknown]);
        assert_eq!(outcomes(Some(0), [4, 5, 6]), [missed; 3]);
        assert_eq!(outcomes(None, [1010, 5, 6]), [there, unknown, unknown]);
        assert_eq!(super::outcomes(&staged, Some(1), None), [unknown; 3]);
    }
}
