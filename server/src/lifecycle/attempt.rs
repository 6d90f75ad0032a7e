//! How an attempt begins and ends, and how a task becomes final.

use chrono::TimeDelta;
use task_repo_protocol::Uuid;

use super::{Grant, Now};
use crate::task::{
    AttemptRecord, AttemptStatus, BeforeClaimRecord, Kept, LeaseRecord, Reason, Status, TaskRecord, Trigger,
};

pub(super) fn claim(task: &mut TaskRecord, grant: &Grant, now: Now) {
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

/// The fields that the next claim displaces, so that it can be [withdrawn](super::settle::withdraw). `started_at` is no part
/// of them: it is that of the latest attempt.
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
        lost_at: None,
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

/// Begins an attempt of a service that runs the task itself. It has no lease, only a timeout.
pub(super) fn begin_self_managed(task: &mut TaskRecord, execution_id: Uuid, now: Now) {
    begin_attempt(task, now);
    task.lease_until = task.timeout_at;
    let attempt = AttemptRecord { id: execution_id, trigger: Trigger::SelfManaged, ..running(task, now) };
    task.attempts.push(attempt.into());
}
