//! The way in: whatever the table does not list is refused here, and so is a change that ends where it does not lead.

use task_repo_protocol::SelfManagedStatus;

use super::{Effect, Intent, Now, Refusal, Verb, attempt, expire, operate, settle};
use crate::task::{Status, TaskRecord};

/// Does what `intent` says to `task`, which must be readable to whoever asks.
///
/// # Errors
/// When the task does not allow it; `task` is then to be thrown away.
pub fn apply(task: &mut TaskRecord, intent: &Intent, now: Now) -> Result<Effect, Refusal> {
    let (before, from) = (task.progress.clone(), task.status);
    if let Intent::Withdraw { token } = intent
        && settle::may_be_in_flight(task, *token)
    {
        return Ok(Effect::Fenced);
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
    if let Intent::Heartbeat { checkpoint, .. }
    | Intent::Fail { checkpoint, .. }
    | Intent::Release { checkpoint, .. } = intent
    {
        // Before the attempt ends: what is final leaves nothing.
        settle::leave(task, checkpoint);
    }
    match intent {
        Intent::Claim(grant) => attempt::claim(task, grant, now),
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
        Intent::Expire { jitter, max_losses } => expire::expire(task, *jitter, *max_losses, now)?,
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
        Intent::Edit { edit, defaults, .. } => operate::edit(task, edit, defaults, now)?,
        Intent::Delete { force } => operate::delete(task, *force, now)?,
        Intent::SelfManaged { status: SelfManagedStatus::Processing, execution_id, .. } => {
            attempt::begin_self_managed(task, *execution_id, now);
        }
        Intent::SelfManaged { result, result_id, error_message, status, .. } => {
            let work = (result.as_ref(), result_id.as_ref());
            settle::end_self_managed(task, *status, work, error_message.as_deref(), now)?;
        }
    }
    if !leads_to.contains(&task.status) {
        return Err(Refusal::Unlisted);
    }
    // A report that only says that the holder is alive is written, but is no new version of the task.
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
