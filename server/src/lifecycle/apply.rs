//! The way in: whatever the table does not list is refused here.

use chrono::TimeDelta;
use task_repo_protocol::SelfManagedStatus;
use task_repo_protocol::{ExecutionStatus, Reason, Status, Trigger};

use super::{Effect, Grant, Intent, Now, Refusal, Verb, operate, settle};
use crate::task::{AttemptRecord, LeaseRecord, TaskRecord};

/// Does what `intent` says to `task`, which must be readable to whoever asks.
///
/// # Errors
/// When the task does not allow it; `task` is then to be thrown away.
pub fn apply(task: &mut TaskRecord, intent: &Intent, now: Now) -> Result<Effect, Refusal> {
    let before = task.progress.clone();
    if let Intent::Withdraw { token } = intent
        && settle::may_be_on_its_way(task, *token)
    {
        // Written once more, the task is not the one any more that this lease was meant for.
        return Ok(Effect::Changed);
    }
    if let Some(token) = intent.token() {
        if let Some(effect) = settle::recall(task, token, intent.verb())? {
            return Ok(effect);
        }
    } else if !intent.verb().transition().from.contains(&task.status) || is_held(task, intent.verb()) {
        return Err(Refusal::WrongState(task.status));
    }
    if let Intent::Edit { if_match: Some(versions), .. }
    | Intent::SelfManaged { if_match: Some(versions), .. } = intent
        && !versions.contains(&task.version)
    {
        return Err(Refusal::VersionConflict(task.version));
    }
    match intent {
        Intent::Claim(grant) => claim(task, grant, now),
        Intent::Heartbeat { lease_seconds, progress, .. } => {
            settle::heartbeat(task, *lease_seconds, progress.as_ref(), now);
        }
        Intent::Repeat { .. } => settle::repeat(task),
        Intent::Complete { result, result_id, usage, token } => {
            settle::complete(task, *token, (result.as_ref(), result_id.as_ref()), *usage, now)?;
        }
        Intent::Fail { failure, usage, .. } => settle::fail(task, failure, *usage, now),
        Intent::Release { delay_seconds, .. } => settle::release(task, *delay_seconds, now),
        Intent::Withdraw { .. } => settle::withdraw(task, now)?,
        Intent::AcknowledgeCancel { .. } => settle::acknowledge_cancel(task, now),
        Intent::Expire { jitter } => settle::expire(task, *jitter, now)?,
        Intent::Promote => operate::promote(task, now)?,
        Intent::Cancel => {
            if operate::cancel(task, now) == operate::Cancelling::Already {
                // The same answer as before, as long as the task has not moved on.
                let before = task.cancel_receipt.filter(|receipt| receipt.status == task.status);
                return Ok(Effect::Repeated(
                    before.unwrap_or_else(|| task.receipt_record()).for_task(task.id),
                ));
            }
        }
        Intent::Execute => operate::execute(task),
        Intent::Edit { edit, .. } => operate::edit(task, edit, now)?,
        Intent::Delete { force } => operate::delete(task, *force, now)?,
        Intent::SelfManaged { status: SelfManagedStatus::Processing, execution_id, .. } => {
            begin_attempt(task, now);
            task.lease_until = task.timeout_at;
            task.attempts.push(AttemptRecord {
                id: *execution_id,
                token: None,
                worker_id: None,
                claim_id: None,
                trigger: Trigger::SelfManaged,
                ..running(task, now)
            });
        }
        Intent::SelfManaged { result, result_id, error_message, status, .. } => {
            let work = (result.as_ref(), result_id.as_ref());
            settle::end_self_managed(task, *status, work, error_message.as_deref(), now)?;
        }
    }
    // What only says that the holder is there is kept, but is no change of the task.
    let is_sign_of_life = matches!(intent.verb(), Verb::Heartbeat | Verb::Repeat);
    if !is_sign_of_life || task.progress != before {
        task.version += 1;
        task.updated_at = now;
    }
    if intent.verb() == Verb::Cancel {
        task.cancel_receipt = Some(task.receipt_record());
    }
    if let Some(token) = intent.token().filter(|_| !is_sign_of_life) {
        let receipt = task.receipt_record();
        if let Some(attempt) = task.attempts.iter_mut().rev().find(|attempt| attempt.token == Some(token)) {
            attempt.receipt = Some(receipt);
        }
    }
    Ok(Effect::Changed)
}

/// A service may end only work that it runs itself: a worker's lease stands in the way.
fn is_held(task: &TaskRecord, verb: Verb) -> bool {
    verb == Verb::End && task.lease.is_some()
}

fn claim(task: &mut TaskRecord, grant: &Grant, now: Now) {
    let trigger = match task.attempts.last() {
        _ if task.executed => Trigger::Manual,
        Some(last) if last.status != ExecutionStatus::Released => Trigger::Retry,
        _ => Trigger::Claim,
    };
    begin_attempt(task, now);
    let seconds = grant.lease_seconds.or(task.lease_seconds).unwrap_or(TaskRecord::LEASE_SECONDS);
    let worker_id = grant.worker_id.clone();
    task.lease = Some(LeaseRecord { token: grant.token, worker_id, seconds, repeated: false });
    task.lease_until = Some(lease_end(task, seconds, now));
    task.attempts.push(AttemptRecord {
        id: grant.execution_id,
        token: Some(grant.token),
        claim_id: grant.claim_id.clone(),
        worker_id: Some(grant.worker_id.clone()),
        trigger,
        ..running(task, now)
    });
    if let Some(claim_id) = &grant.claim_id {
        if task.claim_ids.len() >= 8 {
            task.claim_ids.remove(0);
        }
        task.claim_ids.push(claim_id.clone());
    }
}

fn begin_attempt(task: &mut TaskRecord, now: Now) {
    if task.attempts.len() >= TaskRecord::MAX_HISTORY {
        task.attempts.remove(0);
    }
    let timeout = task.timeout_seconds.unwrap_or(TaskRecord::TIMEOUT_SECONDS);
    task.status = Status::Processing;
    task.reason = None;
    task.attempt += 1;
    task.executed = false;
    task.started_at = Some(now);
    task.timeout_at = Some(now + TimeDelta::seconds(i64::from(timeout)));
    task.lost_token = None;
    task.progress = None;
}

/// An attempt that has just begun.
fn running(task: &TaskRecord, now: Now) -> AttemptRecord {
    AttemptRecord {
        id: task.id,
        number: task.attempt,
        token: None,
        claim_id: None,
        worker_id: None,
        trigger: Trigger::Claim,
        status: ExecutionStatus::Processing,
        started_at: now,
        ended_at: None,
        result_id: None,
        error: None,
        usage: None,
        receipt: None,
    }
}

/// When a lease of that length ends: with the attempt's timeout at the latest.
pub(super) fn lease_end(task: &TaskRecord, seconds: u32, now: Now) -> Now {
    let end = now + TimeDelta::seconds(i64::from(seconds));
    task.timeout_at.map_or(end, |timeout| timeout.min(end))
}

/// Ends the attempt that is under way; its status says how.
pub(super) fn end_attempt(
    task: &mut TaskRecord,
    status: ExecutionStatus,
    now: Now,
) -> Option<&mut AttemptRecord> {
    task.lease = None;
    task.lease_until = None;
    task.timeout_at = None;
    let attempt = task.attempts.last_mut()?;
    attempt.status = status;
    attempt.ended_at = Some(now);
    Some(attempt)
}

/// Moves the task to a final status.
pub(super) fn finish(task: &mut TaskRecord, status: Status, reason: Option<Reason>, now: Now) {
    task.status = status;
    task.reason = reason;
    task.completed_at = Some(now);
    task.lost_token = None;
    task.expire_at = retention_end(task, now);
}

/// When the database may remove the task; an idempotency key is remembered for a day at least.
pub(super) fn retention_end(task: &TaskRecord, now: Now) -> Option<Now> {
    let end = now + TimeDelta::seconds(i64::from(task.retention_seconds?));
    Some(if task.idempotency_key.is_some() { end.max(task.created_at + TimeDelta::days(1)) } else { end })
}
