//! A claim that is sent again: what the first one with its id took and still holds.

use std::time::Instant;

use chrono::TimeDelta;
use tokio::time::timeout_at;

use crate::access::Scope;
use crate::lifecycle::Intent;
use crate::store::{Change, NotApplied, Store, StoreError, TaskQuery};
use crate::task::{AttemptRecord, Kept, Order, Status, TaskRecord};

/// How long a claim id is remembered, by the database's clock.
const CLAIM_ID_REMEMBERED: TimeDelta = TimeDelta::minutes(10);

/// What a claim with that id took before and still holds, with payloads. `None`: there was no such claim.
pub(super) async fn held_by(
    store: &Store,
    scope: &Scope,
    claim_id: &[u8],
    until: Instant,
) -> Result<Option<Vec<TaskRecord>>, StoreError> {
    let since = store.clock().now() - CLAIM_ID_REMEMBERED;
    let mut is_known = false;
    let mut held = Vec::new();
    for task in store.claimed_by(scope, claim_id, until).await? {
        let by_this = |attempt: &&Kept<AttemptRecord>| {
            attempt.claim_id.as_deref() == Some(claim_id) && attempt.started_at > since
        };
        let tokens: Vec<_> = task.attempts.iter().filter(by_this).map(|attempt| attempt.token).collect();
        is_known |= !tokens.is_empty();
        let holds = task.status == Status::Processing
            && task.lease.as_ref().is_some_and(|lease| tokens.contains(&Some(lease.token)));
        if holds && task.is_in(scope) {
            held.push(task);
        }
    }
    held.sort_by(|one, other| {
        Order::Claim.compare(&Order::Claim.position(one), &Order::Claim.position(other))
    });
    let held = keep(store, held, until).await?;
    Ok(is_known.then_some(held))
}

/// Of these tasks, those that are still leased as they were read, with their payloads. From now on they do not go back
/// with an earlier answer that may have been lost.
async fn keep(store: &Store, held: Vec<TaskRecord>, until: Instant) -> Result<Vec<TaskRecord>, StoreError> {
    let change = |task: &TaskRecord| {
        let token = task.lease.as_ref()?.token;
        let scope = Scope::tenant(&task.tenant);
        Some(Change { scope, id: task.id, intent: Intent::Repeat { token } })
    };
    let changes: Vec<_> = held.iter().filter_map(change).collect();
    if changes.is_empty() {
        return Ok(held);
    }
    let wants: Vec<_> =
        changes.iter().map(|change| TaskQuery { scope: change.scope.clone(), id: change.id }).collect();
    let results = store.apply(changes, until).await;
    let read = timeout_at(until.into(), store.get(&wants, true, until)).await;
    let payloads = read.map_err(|_| StoreError::Unavailable)??.into_iter();
    let mut kept = Vec::with_capacity(held.len());
    for ((mut task, result), payload) in held.into_iter().zip(results).zip(payloads) {
        match result {
            Ok(_) => {
                // Deleted since then, or not to be read, it is not to be worked on.
                let Ok(Some(mut read)) = payload else { continue };
                task.put_payload(read.take_payload());
                kept.push(task);
            }
            Err(NotApplied::Store(error)) if error != StoreError::Unreadable => return Err(error),
            Err(_) => {}
        }
    }
    Ok(kept)
}
