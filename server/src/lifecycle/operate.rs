//! How a task's owner, or the time, changes it.

use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_protocol::{Execute, NewRetryPolicy, Priority, TaskEdit};

use super::attempt::{end_attempt, finish, retention_end};
use super::{Now, Refusal};
use crate::task::{AttemptStatus, LimitsRecord, Reason, RetryRecord, Status, TaskRecord, input_bytes};
use chrono::TimeDelta;

/// The result of a cancellation.
#[derive(PartialEq, Eq)]
pub(super) enum Cancelling {
    /// The task has changed.
    Done,
    /// It was asked for before.
    Already,
}

pub(super) fn promote(task: &mut TaskRecord, now: Now) -> Result<(), Refusal> {
    let due = task.run_at.filter(|run_at| *run_at <= now).ok_or(Refusal::NotDue)?;
    task.status = Status::Pending;
    task.reason = None;
    task.ready_at = due;
    Ok(())
}

/// Ends what nobody works on; a worker is asked to stop.
pub(super) fn cancel(task: &mut TaskRecord, now: Now) -> Cancelling {
    match task.status {
        Status::Cancelled => return Cancelling::Already,
        Status::Processing if task.lease.is_some() => {
            if task.cancel_requested_at.is_some() {
                return Cancelling::Already;
            }
            task.cancel_requested_at = Some(now);
        }
        _ => {
            if task.status == Status::Processing {
                end_attempt(task, AttemptStatus::Cancelled, now);
            }
            task.cancel_requested_at = Some(now);
            finish(task, Status::Cancelled, None, now);
        }
    }
    Cancelling::Done
}

/// Ready now, or at the time that `with` names. A final task gets a fresh budget and keeps its history, result and usage.
pub(super) fn execute(task: &mut TaskRecord, with: &Execute, now: Now) {
    if task.status.is_final() {
        task.attempt = 0;
        task.losses = 0;
        task.releases = 0;
        task.error = None;
        task.progress = None;
        task.completed_at = None;
        task.cancel_requested_at = None;
        task.cancel_receipt = None;
        // A server that knows no checkpoints may have ended it.
        task.has_checkpoint = false;
        task.remove_at = None;
    }
    if let Some(max_attempts) = whole(with.max_attempts) {
        task.max_attempts = max_attempts;
    }
    if let Some(timeout_seconds) = whole(with.timeout_seconds) {
        task.timeout_seconds = timeout_seconds;
    }
    if let Some(lease_seconds) = whole(with.lease_seconds) {
        task.lease_seconds = lease_seconds;
    }
    if let Some(retry) = with.retry {
        set_retry(task, retry);
    }
    if let Some(priority) = with.priority {
        task.priority = priority.get().into();
    }
    task.status = Status::Pending;
    task.reason = None;
    move_to(
        task,
        with.run_at.or_else(|| with.delay_seconds.map(|delay| now + TimeDelta::seconds(delay))),
        now,
    );
    task.executed = true;
}

pub(super) fn delete(task: &mut TaskRecord, force: bool, now: Now) -> Result<(), Refusal> {
    if task.status == Status::Processing {
        if !force {
            return Err(Refusal::WrongState(task.status));
        }
        end_attempt(task, AttemptStatus::Cancelled, now);
    }
    if !task.status.is_final() {
        // Out of the queue's indexes; nobody sees the status of a deleted task.
        finish(task, Status::Cancelled, None, now);
    }
    task.deleted_at = Some(now);
    task.remove_at = retention_end(task, now);
    Ok(())
}

pub(super) fn edit(
    task: &mut TaskRecord,
    edit: &TaskEdit,
    defaults: &LimitsRecord,
    now: Now,
) -> Result<(), Refusal> {
    set(&mut task.name, edit.name.as_ref());
    set(&mut task.description, edit.description.as_ref());
    set(&mut task.due_date, edit.due_date.as_ref());
    set(&mut task.reminder_time, edit.reminder_time.as_ref());
    if let Some(priority) = edit.priority {
        task.priority = i32::from(priority.unwrap_or_else(Priority::default).get());
    }
    edit_limits(task, edit, defaults);
    if let Some(tags) = &edit.tags {
        task.tags = tags.as_ref().map(TaskRecord::stored_tags).unwrap_or_default();
    }
    edit_payloads(task, edit)?;
    if let Some(run_at) = edit.run_at {
        move_to(task, run_at, now);
    }
    Ok(())
}

/// `null` sets the default of a new task; a task without retention stays for ever.
fn edit_limits(task: &mut TaskRecord, edit: &TaskEdit, defaults: &LimitsRecord) {
    if let Some(max_attempts) = edit.max_attempts {
        task.max_attempts = whole(max_attempts).unwrap_or(defaults.max_attempts);
    }
    if let Some(retry) = edit.retry {
        match retry {
            Some(policy) => set_retry(task, policy),
            None => *task.retry = *defaults.retry,
        }
    }
    if let Some(lease_seconds) = edit.lease_seconds {
        task.lease_seconds = whole(lease_seconds).unwrap_or(defaults.lease_seconds);
    }
    if let Some(timeout_seconds) = edit.timeout_seconds {
        task.timeout_seconds = whole(timeout_seconds).unwrap_or(defaults.timeout_seconds);
    }
    if let Some(retention_seconds) = edit.retention_seconds {
        task.retention_seconds = whole(retention_seconds);
    }
}

/// What a newer version has put beside the policy stays.
fn set_retry(task: &mut TaskRecord, policy: NewRetryPolicy) {
    *task.retry = RetryRecord::from(policy);
}

/// A number that has been checked to be small enough.
fn whole(number: Option<i64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

fn set<T: Clone>(field: &mut Option<T>, edit: Option<&Option<T>>) {
    if let Some(value) = edit {
        field.clone_from(value);
    }
}

fn edit_payloads(task: &mut TaskRecord, edit: &TaskEdit) -> Result<(), Refusal> {
    if let Some(request) = &edit.request {
        task.request = request.as_ref().map(|json| json.as_str().to_owned());
    }
    if let Some(template) = &edit.template {
        // A template is made of text and JSON: it always has a JSON form.
        task.template = template.as_ref().and_then(|template| serde_json::to_string(template).ok());
    }
    if let Some(metadata) = &edit.metadata {
        task.metadata = metadata.as_ref().map(|json| json.as_str().to_owned());
    }
    let input = input_bytes(task.request.as_ref(), task.template.as_ref(), task.metadata.as_ref());
    if input + task.result.as_ref().map_or(0, String::len) > MAX_TASK_BYTES {
        return Err(Refusal::TooLarge);
    }
    task.input_bytes = u32::try_from(input).unwrap_or(u32::MAX);
    Ok(())
}

/// A new time moves between `pending` and `scheduled`; none is now, and a past one counts from creation.
fn move_to(task: &mut TaskRecord, run_at: Option<Now>, now: Now) {
    task.run_at = run_at;
    // A task that is held gets its time only when it is let go.
    if task.status == Status::Held {
        return;
    }
    if let Some(future) = run_at.filter(|time| *time > now) {
        if task.status == Status::Pending {
            task.reason = Some(Reason::Delayed);
        }
        task.status = Status::Scheduled;
        task.ready_at = future;
    } else {
        task.status = Status::Pending;
        task.reason = None;
        task.ready_at = task.created_at;
    }
}
