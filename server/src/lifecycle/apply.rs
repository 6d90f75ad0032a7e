//! The way in: whatever the table does not list is refused here, and so is a change that ends where it does not lead.

use chrono::TimeDelta;
use task_repo_protocol::SelfManagedStatus;

use super::{Effect, Grant, Intent, Now, Refusal, Verb, operate, settle};
use crate::task::{
    AttemptRecord, AttemptStatus, BeforeClaimRecord, Kept, LeaseRecord, Reason, Status, TaskRecord, Trigger,
};

/// Does what `intent` says to `task`, which must be readable to whoever asks.
///
/// # Errors
/// When the task does not allow it; `task` is then to be thrown away.
pub fn apply(task: &mut TaskRecord, intent: &Intent, now: Now) -> Result<Effect, Refusal> {
    let (before, from) = (task.progress.clone(), task.status);
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
    } else if is_under_lease(task, intent.verb()) {
        return Err(Refusal::WrongState(task.status));
    }
    let leads_to = intent.verb().leads(from).ok_or(Refusal::WrongState(from))?;
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
                let before = task.cancel_receipt.as_deref().filter(|receipt| receipt.status == task.status);
                let receipt = before.copied().unwrap_or_else(|| task.receipt_record());
                return Ok(Effect::Repeated(receipt.for_task(task.id)));
            }
        }
        Intent::Execute(with) => operate::execute(task, with, now),
        Intent::Edit { edit, .. } => operate::edit(task, edit, now)?,
        Intent::Delete { force } => operate::delete(task, *force, now)?,
        Intent::SelfManaged { status: SelfManagedStatus::Processing, execution_id, .. } => {
            begin_attempt(task, now);
            task.lease_until = task.timeout_at;
            let attempt =
                AttemptRecord { id: *execution_id, trigger: Trigger::SelfManaged, ..running(task, now) };
            task.attempts.push(attempt.into());
        }
        Intent::SelfManaged { result, result_id, error_message, status, .. } => {
            let work = (result.as_ref(), result_id.as_ref());
            settle::end_self_managed(task, *status, work, error_message.as_deref(), now)?;
        }
    }
    if !leads_to.contains(&task.status) {
        return Err(Refusal::Unlisted);
    }
    // What only says that the holder is there is kept, but is no change of the task.
    let is_sign_of_life = matches!(intent.verb(), Verb::Heartbeat | Verb::Repeat);
    if is_sign_of_life && task.progress == before {
        return Ok(Effect::Changed);
    }
    task.version += 1;
    task.updated_at = now;
    // An undone claim has put back what belongs to the progress of before.
    if task.progress != before && intent.verb() != Verb::Withdraw {
        task.progress_version = task.progress.is_some().then_some(task.version);
    }
    // An undone claim leaves the task waiting since when it did before.
    if task.status == Status::Pending && from != Status::Pending && intent.verb() != Verb::Withdraw {
        task.pending_at = Some(now);
    }
    note_the_end(task, intent);
    if intent.verb() != Verb::Withdraw {
        task.bound_history();
    }
    Ok(Effect::Changed)
}

/// Writes down where the end of an attempt has led, and what is answered to it and to its repeats.
fn note_the_end(task: &mut TaskRecord, intent: &Intent) {
    let (receipt, version, status) = (task.receipt_record(), task.version, task.status);
    if intent.verb() == Verb::Cancel {
        task.cancel_receipt = Some(receipt.into());
    }
    if let Some(ended) = task.attempts.iter_mut().rev().find(|attempt| attempt.ended_version == Some(version))
    {
        if intent.token().is_some() && intent.verb() != Verb::Withdraw {
            ended.receipt = Some(receipt.into());
            ended.ended_version = None;
        } else {
            ended.led_to = Some(status);
        }
    }
}

/// A service may end only work that it runs itself: a worker's lease stands in the way.
fn is_under_lease(task: &TaskRecord, verb: Verb) -> bool {
    verb == Verb::End && task.lease.is_some()
}

fn claim(task: &mut TaskRecord, grant: &Grant, now: Now) {
    let trigger = match task.attempts.iter().rev().find(|attempt| attempt.status != AttemptStatus::Withdrawn)
    {
        _ if task.executed => Trigger::Manual,
        Some(last) if last.status != AttemptStatus::Released => Trigger::Retry,
        _ => Trigger::Claim,
    };
    let before = displaced(task);
    begin_attempt(task, now);
    let seconds = grant.lease_seconds.unwrap_or(task.lease_seconds);
    let worker_id = grant.worker_id.clone();
    task.lease = Some(LeaseRecord { token: grant.token, worker_id, seconds, repeated: false, before }.into());
    task.lease_until = Some(lease_end(task, seconds, now));
    let attempt = AttemptRecord {
        id: grant.execution_id,
        token: Some(grant.token),
        claim_id: grant.claim_id.clone(),
        worker_id: Some(grant.worker_id.clone()),
        trigger,
        ..running(task, now)
    };
    task.attempts.push(attempt.into());
    if let Some(claim_id) = &grant.claim_id {
        task.claim_ids.push(claim_id.clone());
    }
}

/// What the next claim displaces, for [`settle::withdraw`]. `started_at` is no part of it: it is that of the latest attempt.
fn displaced(task: &TaskRecord) -> Option<Box<Kept<BeforeClaimRecord>>> {
    let before = BeforeClaimRecord {
        lost_token: task.lost_token,
        executed: task.executed,
        progress: task.progress.clone(),
        progress_version: task.progress_version,
    };
    (before != BeforeClaimRecord::default()).then(|| Box::new(before.into()))
}

fn begin_attempt(task: &mut TaskRecord, now: Now) {
    task.status = Status::Processing;
    task.reason = None;
    task.attempt += 1;
    task.executed = false;
    task.started_at = Some(now);
    task.timeout_at = Some(now + TimeDelta::seconds(i64::from(task.timeout_seconds)));
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
        status: AttemptStatus::Processing,
        started_at: now,
        started_version: task.version + 1,
        ended_at: None,
        ended_version: None,
        led_to: None,
        lost_version: None,
        result_id: None,
        error: None,
        truncated: false,
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
    status: AttemptStatus,
    now: Now,
) -> Option<&mut Kept<AttemptRecord>> {
    task.lease = None;
    task.lease_until = None;
    task.timeout_at = None;
    // Only a release, which counts itself, leaves the number as it is.
    if status != AttemptStatus::Released {
        task.releases = 0;
    }
    let version = task.version + 1;
    let attempt = task.attempts.last_mut()?;
    attempt.status = status;
    attempt.ended_at = Some(now);
    attempt.ended_version = Some(version);
    Some(attempt)
}

/// Moves the task to a final status.
pub(super) fn finish(task: &mut TaskRecord, status: Status, reason: Option<Reason>, now: Now) {
    task.status = status;
    task.reason = reason;
    task.completed_at = Some(now);
    task.lost_token = None;
    task.remove_at = retention_end(task, now);
}

/// From when on the task may be removed; an idempotency key is remembered for a day at least.
pub(super) fn retention_end(task: &TaskRecord, now: Now) -> Option<Now> {
    let end = now + TimeDelta::seconds(i64::from(task.retention_seconds?));
    Some(if task.idempotency_key.is_some() { end.max(task.created_at + TimeDelta::days(1)) } else { end })
}
