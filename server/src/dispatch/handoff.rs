//! Work created for a caller who already waits: inserted as claimed, one write instead of two.

use std::time::{Duration, Instant};

use super::delivery::GiveBack;
use super::group::DequeuedCaller;
use crate::store::{NotInserted, Store, StoreError};
use crate::task::TaskRecord;

/// How long a task whose insert has an unknown outcome may take until a majority has it.
const INSERT_MAY_COME: Duration = Duration::from_secs(30);

/// Inserts a task as claimed by that caller, who waits for just such a one.
pub(super) async fn insert_claimed(
    store: &Store,
    give_back: &GiveBack,
    caller: DequeuedCaller,
    draft: TaskRecord,
) -> Result<(), NotInserted> {
    let (task, inserted) = store.insert_claimed(draft, caller.waiting.grant()).await;
    match inserted {
        Ok(()) => {
            metrics::counter!("task_repo_tasks_claimed_total").increment(1);
            caller.answer(Ok(vec![task]), give_back);
        }
        Err(refused) => {
            caller.requeue().request_round();
            if refused == NotInserted::Store(StoreError::OutcomeUnknown) {
                // If the task is there after all, no worker knows of its lease.
                give_back.spawn(vec![task], Instant::now() + INSERT_MAY_COME);
            }
        }
    }
    inserted
}
