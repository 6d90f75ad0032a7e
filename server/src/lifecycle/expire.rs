//! How a task changes whose lease or attempt ran out.

use task_repo_protocol::{Retry, Uuid};

use super::attempt::{end_attempt, finish};
use super::settle::follow_up;
use super::{AttemptFailure, Now, Refusal};
use crate::task::{AttemptStatus, ErrorRecord, Reason, Status, TaskRecord};

/// The lease or the attempt ran out. Where both did, the attempt's timeout goes first.
pub(super) fn expire(task: &mut TaskRecord, jitter: f64, max_losses: u32, now: Now) -> Result<(), Refusal> {
    if task.lease_until.is_none_or(|until| until > now) {
        return Err(Refusal::NotDue);
    }
    let timed_out = task.timeout_at.is_some_and(|timeout| timeout <= now);
    let Some(lease) = task.lease.take() else {
        time_out(task, Retry::Never, jitter, now);
        return Ok(());
    };
    if timed_out {
        time_out(task, Retry::Auto, jitter, now);
    } else {
        lose(task, lease.token, max_losses, now);
    }
    Ok(())
}

fn time_out(task: &mut TaskRecord, retry: Retry, jitter: f64, now: Now) {
    let seconds = task.timeout_seconds;
    let error = ErrorRecord {
        message: format!("the attempt took longer than {seconds} seconds"),
        code: Some("timeout".to_owned()),
        details: None,
    };
    if let Some(attempt) = end_attempt(task, AttemptStatus::Timeout, now) {
        attempt.error = Some(error.clone().into());
    }
    let failure = AttemptFailure { error, retry, retry_after_seconds: None, jitter };
    follow_up(task, &failure, Reason::Timeout, now);
    if task.status == Status::Failed {
        task.reason = Some(Reason::Timeout);
    }
}

fn lose(task: &mut TaskRecord, token: Uuid, max_losses: u32, now: Now) {
    let error = ErrorRecord {
        message: "the lease ran out without a heartbeat".to_owned(),
        code: Some("lost".to_owned()),
        details: None,
    };
    if let Some(attempt) = end_attempt(task, AttemptStatus::Lost, now) {
        attempt.error = Some(error.clone().into());
    }
    task.losses += 1;
    task.error = Some(error.into());
    if task.cancel_requested_at.is_some() {
        finish(task, Status::Cancelled, None, now);
    } else if task.losses >= max_losses || task.attempt >= task.max_attempts {
        finish(task, Status::Failed, Some(Reason::Lost), now);
    } else {
        task.status = Status::Pending;
        task.lost_token = Some(token);
    }
}
