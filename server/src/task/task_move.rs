//! A version of a task, with what is told of it.

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{serde_as, skip_serializing_none};
use task_repo_protocol::Uuid;

use super::token::seen_from_outside;
use super::{
    AttemptRecord, AttemptStatus, MoveVerb, ProgressRecord, Reason, Status, TaskRecord, UsageRecord,
};

/// Most characters that are told of an error's message.
const MAX_MESSAGE: usize = 1024;
/// Most characters that are told of an error's code.
const MAX_CODE: usize = 128;

/// One version of a task: what was done to it, and what receivers are told of that.
///
/// The server that made the write makes it of the task it has at hand; all others read it in the event log. Both say the
/// same, but for an earlier progress that a later one has replaced.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskMove {
    /// The task.
    #[serde_as(as = "Id")]
    pub task: Uuid,
    /// Its version with this.
    pub version: i64,
    /// Its `updated_at` of that version.
    #[serde_as(as = "Date")]
    pub at: DateTime<Utc>,
    /// Whose it is.
    pub tenant: String,
    /// The queue it belongs to.
    pub task_type: String,
    /// The end user it was created for.
    pub user_id: Option<String>,
    /// What was done.
    pub verb: MoveVerb,
    /// Where it stood before; absent for a creation.
    pub from: Option<Status>,
    /// Where it stands with this.
    pub to: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// The names of the fields that an edit, or an `execute` with new limits, has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Of a creation: what it was created with.
    pub created: Option<Created>,
    /// Of the start of an attempt, also at the creation.
    pub start: Option<AttemptStart>,
    /// Of the end of an attempt.
    pub end: Option<AttemptEnding>,
    /// Of a claim that was undone: which attempt there has not been.
    pub undone: Option<u32>,
    /// The progress that it brought.
    pub progress: Option<ProgressRecord>,
    /// When a scheduled task may run.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// Where the result is kept, if elsewhere, of a completion.
    pub result_id: Option<String>,
}

/// What a task was created with.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// For people.
    pub name: Option<String>,
    /// 0–100, higher first.
    pub priority: i32,
}

/// The start of an attempt.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// Which one it is, counted from 1.
    pub attempt: u32,
    /// The worker; absent for self-managed work.
    pub worker_id: Option<String>,
}

/// The end of an attempt. It ended at the time of the move.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnding {
    /// Names the attempt, as seen from outside.
    #[serde_as(as = "Id")]
    pub execution_id: Uuid,
    /// Which one it was, counted from 1.
    pub attempt: u32,
    /// How it ended.
    pub status: AttemptStatus,
    /// When it began.
    #[serde_as(as = "Date")]
    pub started_at: DateTime<Utc>,
    /// How long the task had been ready when it began, in milliseconds; absent for self-managed work and where that is not
    /// known any more.
    pub waited_ms: Option<i64>,
    /// Why it failed.
    pub error: Option<ToldError>,
    /// The resources that it used.
    pub usage: Option<UsageRecord>,
    /// The attempt had been lost, and was completed all the same. This end replaces that loss.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// When it had been lost then, where that is known.
    #[serde_as(as = "Option<Date>")]
    pub lost_at: Option<DateTime<Utc>>,
}

/// Why an attempt failed, as far as receivers are told.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldError {
    /// For people; the first 1 024 characters.
    pub message: String,
    /// For programs; the first 128 characters.
    pub code: Option<String>,
}

/// Which version of a task a move made, and where it led.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The task's version.
    pub version: i64,
    /// Its `updated_at` of that version.
    pub at: DateTime<Utc>,
    /// What was done.
    pub verb: MoveVerb,
    /// Where the task stood before; `None`: it was created.
    pub from: Option<Status>,
    /// Where it stood afterwards.
    pub to: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// When it may run, where the write has said that.
    pub run_at: Option<DateTime<Utc>>,
    /// Names of changed fields.
    pub fields: Vec<String>,
}

impl TaskMove {
    /// What is told of one step of a task, which may have gone on since: starts and ends of attempts are found in its
    /// history.
    pub fn of(task: &TaskRecord, step: Step) -> Self {
        let Step { version, at, verb, from, to, reason, run_at, fields } = step;
        let started = task.attempts.iter().rev().find(|attempt| attempt.started_version == version);
        let end = ending(task, version);
        let receipt = end.and_then(|(attempt, late)| attempt.receipt.as_ref().filter(|_| !late));
        let completed = end.filter(|(attempt, _)| attempt.status == AttemptStatus::Completed);
        let progress = task.progress.as_ref().filter(|_| task.progress_version == Some(version));
        let run_at = run_at.or_else(|| receipt?.run_at);
        Self {
            task: task.id,
            version,
            at,
            tenant: task.tenant.clone(),
            task_type: task.task_type.clone(),
            user_id: task.user_id.clone(),
            verb,
            from,
            to,
            reason: reason.or_else(|| end?.0.ended()?.reason.filter(|_| to != Status::Processing)),
            fields,
            created: (verb == MoveVerb::Create)
                .then(|| Created { name: task.name.clone(), priority: task.priority }),
            start: started.map(|attempt| AttemptStart {
                attempt: attempt.number,
                worker_id: attempt.worker_id.clone(),
            }),
            undone: (verb == MoveVerb::Withdraw).then(|| undone(task, version)).flatten(),
            end: end.map(|(attempt, late)| AttemptEnding::of(task, attempt, late, version)),
            progress: progress.map(|progress| progress.clone().into_part()),
            run_at: run_at.filter(|_| to == Status::Scheduled),
            result_id: completed.and_then(|(attempt, _)| attempt.result_id.clone()),
        }
    }
}

/// The number of the attempt that was undone with that version.
fn undone(task: &TaskRecord, version: i64) -> Option<u32> {
    let mut attempts = task.attempts.iter().rev();
    let is_it = |attempt: &&crate::task::Kept<AttemptRecord>| {
        attempt.status == AttemptStatus::Withdrawn && attempt.ended_version == Some(version)
    };
    attempts.find(is_it).map(|attempt| attempt.number)
}

/// The attempt that ended with that version, and whether it was completed then though it had been lost before. One that was
/// undone has no end.
fn ending(task: &TaskRecord, version: i64) -> Option<(&AttemptRecord, bool)> {
    let attempts = || task.attempts.iter().rev().map(|attempt| &**attempt);
    let shown = || attempts().filter(|attempt| attempt.status != AttemptStatus::Withdrawn);
    let ended = shown().find(|attempt| attempt.end().is_some_and(|(end, _)| end == version));
    let ended = ended.map(|attempt| (attempt, attempt.lost_version.is_some()));
    ended.or_else(|| Some((shown().find(|attempt| attempt.lost_version == Some(version))?, false)))
}

impl AttemptEnding {
    fn of(task: &TaskRecord, attempt: &AttemptRecord, late: bool, version: i64) -> Self {
        // One that was completed late is told as lost at first.
        let was_lost = attempt.lost_version == Some(version);
        let ready_since = task.pending_at.unwrap_or(task.ready_at.max(task.created_at));
        let waited = (attempt.started_at - ready_since).num_milliseconds();
        let is_known = attempt.worker_id.is_some() && waited >= 0;
        Self {
            execution_id: seen_from_outside(task.id, attempt.id),
            attempt: attempt.number,
            status: if was_lost { AttemptStatus::Lost } else { attempt.status },
            started_at: attempt.started_at,
            waited_ms: is_known.then_some(waited),
            error: attempt.error.as_ref().filter(|_| !was_lost).map(|error| ToldError {
                message: cut(&error.message, MAX_MESSAGE),
                code: error.code.as_deref().map(|code| cut(code, MAX_CODE)),
            }),
            usage: attempt.usage.as_ref().filter(|_| !was_lost).map(|usage| usage.clone().into_part()),
            late,
            lost_at: attempt.lost_at.filter(|_| late),
        }
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
