//! What the history of a task tells of versions that nobody here was told of. Pure.

use chrono::{DateTime, Utc};

use crate::task::{AttemptRecord, AttemptStatus, Kept, MoveVerb, Status, Step, TaskMove, TaskRecord};

/// The starts and ends of attempts after the version `after`, and the latest progress, in order. A claim that was undone
/// shows nothing. `is_open`: for a stream that goes on. To it an attempt that was lost and completed late shows its loss too,
/// and one that has ended its latest progress; a stream that is resumed is told only of the progress of an attempt that goes
/// on.
pub(super) fn moves_after(task: &TaskRecord, after: i64, is_open: bool) -> Vec<TaskMove> {
    let shown = task.attempts.iter().filter(|attempt| attempt.status != AttemptStatus::Withdrawn);
    let mut steps: Vec<_> = shown.flat_map(|attempt| steps(task, attempt, is_open)).collect();
    if task.progress.is_some()
        && (is_open || task.status == Status::Processing)
        && let Some(version) = task.progress_version
    {
        let working = Some(Status::Processing);
        steps.push(step(version, task.updated_at, MoveVerb::Heartbeat, working, Status::Processing));
    }
    steps.retain(|step| step.version > after);
    steps.sort_by_key(|step| step.version);
    steps.into_iter().map(|step| TaskMove::of(task, step)).collect()
}

/// How a final task became so. `None`: it is not final.
pub(super) fn end_of(task: &TaskRecord) -> Option<TaskMove> {
    if !task.status.is_final() {
        return None;
    }
    let ends = task.attempts.iter().filter(|attempt| attempt.status != AttemptStatus::Withdrawn);
    let ends = ends.flat_map(|attempt| steps(task, attempt, false));
    let by_attempt = ends.filter(|step| step.to == task.status).max_by_key(|step| step.version);
    let receipt = task.cancel_receipt.as_ref().filter(|receipt| receipt.status == task.status);
    let at = task.completed_at.unwrap_or(task.updated_at);
    let cancelled = receipt
        .map(|receipt| step(receipt.version, at, MoveVerb::Cancel, Some(Status::Pending), task.status));
    let latest = by_attempt.into_iter().chain(cancelled).max_by_key(|step| step.version);
    // An older release has left no version of it.
    let latest = latest
        .unwrap_or_else(|| step(task.version, at, MoveVerb::Cancel, Some(Status::Pending), task.status));
    let mut end = TaskMove::of(task, latest);
    end.reason = end.reason.or(task.reason);
    Some(end)
}

/// The start of an attempt and its end.
fn steps(task: &TaskRecord, attempt: &Kept<AttemptRecord>, with_losses: bool) -> Vec<Step> {
    let mut steps = Vec::with_capacity(3);
    // An older release has left no version of a start.
    if attempt.started_version > 0 {
        let verb = if attempt.worker_id.is_some() { MoveVerb::Claim } else { MoveVerb::Begin };
        let at = attempt.started_at;
        steps.push(step(attempt.started_version, at, verb, Some(Status::Pending), Status::Processing));
    }
    let working = Some(Status::Processing);
    if let Some(version) = attempt.lost_version.filter(|_| with_losses) {
        let at = attempt.lost_at.unwrap_or(attempt.started_at);
        steps.push(step(version, at, MoveVerb::Expire, working, Status::Pending));
    }
    if let Some(((version, to), at)) = attempt.end().zip(attempt.ended_at) {
        let verb = match attempt.status {
            AttemptStatus::Completed => MoveVerb::Complete,
            AttemptStatus::Failed => MoveVerb::Fail,
            AttemptStatus::Released => MoveVerb::Release,
            AttemptStatus::Cancelled => MoveVerb::AcknowledgeCancel,
            _ => MoveVerb::Expire,
        };
        let is_latest = to == task.status && task.attempts.last().is_some_and(|last| last.id == attempt.id);
        let run_at = task.run_at.filter(|_| is_latest);
        steps.push(Step { run_at, ..step(version, at, verb, working, to) });
    }
    steps
}

fn step(version: i64, at: DateTime<Utc>, verb: MoveVerb, from: Option<Status>, to: Status) -> Step {
    Step { version, at, verb, from, to, reason: None, run_at: None, fields: Vec::new() }
}
