//! The parts of a task that are documents of their own: each is written whole, so each keeps what it does not know
//! ([`Kept`]).

use std::fmt::Write as _;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{Bytes, serde_as, skip_serializing_none};
use task_repo_protocol as wire;
use task_repo_protocol::{Receipt, Uuid};

use super::words::{AttemptStatus, Backoff, MoveVerb, Reason, Status, Trigger};
use crate::kept::Kept;

/// The lease under which a worker has a task.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The token that its holder must show.
    #[serde_as(as = "Id")]
    pub token: Uuid,
    /// The worker's own name for itself.
    pub worker_id: String,
    /// How long a heartbeat renews it, in seconds.
    pub seconds: u32,
    /// Its claim was answered once more: it does not go back with the first answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub repeated: bool,
    /// What the claim has displaced; absent where it was nothing, as in a task that was never claimed before. It goes with
    /// the lease, whoever ends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Kept<BeforeClaimRecord>>>,
}

/// The fields that a claim displaces in a task, so that undoing the claim puts them back.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BeforeClaimRecord {
    /// The token of a lease that ran out: its holder may still complete the task.
    #[serde_as(as = "Option<Id>")]
    pub lost_token: Option<Uuid>,
    /// `execute` asked for the next attempt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executed: bool,
    /// The latest that an earlier worker reported.
    pub progress: Option<Kept<ProgressRecord>>,
    /// The version that brought that.
    pub progress_version: Option<i64>,
}

/// One attempt, with the receipt of its settlement.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Names the attempt among those of its task. Tasks that were claimed together have the same.
    #[serde_as(as = "Id")]
    pub id: Uuid,
    /// Which one it was, counted from 1.
    pub number: u32,
    /// The lease's token; absent for self-managed work. Tasks that were claimed together have the same.
    #[serde_as(as = "Option<Id>")]
    pub token: Option<Uuid>,
    /// Hash of the claim's id and caller.
    #[serde_as(as = "Option<Bytes>")]
    pub claim_id: Option<Vec<u8>>,
    /// The worker; absent for self-managed work.
    pub worker_id: Option<String>,
    /// Why it started.
    pub trigger: Trigger,
    /// How it ended.
    pub status: AttemptStatus,
    /// When it began.
    #[serde_as(as = "Date")]
    pub started_at: DateTime<Utc>,
    /// The task's version when it had begun.
    #[serde(default)]
    pub started_version: i64,
    /// When it ended.
    #[serde_as(as = "Option<Date>")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The task's version when it had ended. A receipt says it too, so where there is one this is absent.
    pub ended_version: Option<i64>,
    /// Where the task went with that; likewise.
    pub led_to: Option<Status>,
    /// Of an attempt that was lost and completed later: the task's version when it was lost. The other fields about its
    /// end tell of the completion.
    pub lost_version: Option<i64>,
    /// When that was.
    #[serde_as(as = "Option<Date>")]
    pub lost_at: Option<DateTime<Utc>>,
    /// Where its result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why it failed.
    pub error: Option<Kept<ErrorRecord>>,
    /// Parts of the error have given way to newer attempts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// The resources that it used.
    pub usage: Option<Kept<UsageRecord>>,
    /// The receipt that its worker was answered.
    pub receipt: Option<Kept<ReceiptRecord>>,
}

/// Where a task stood after an attempt was settled.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRecord {
    /// Where it went.
    pub status: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// How many attempts had begun that count.
    pub attempt: u32,
    /// Not to be claimed before.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// The version after the move.
    pub version: i64,
}

/// Why an attempt failed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// For people.
    pub message: String,
    /// For programs.
    pub code: Option<String>,
    /// JSON text as sent.
    pub details: Option<String>,
}

/// Resources that attempts used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageRecord {
    /// May be fractional.
    pub credits_consumed: f64,
    /// How many tokens.
    pub tokens_used: i64,
    /// How many calls of other services.
    pub api_calls_made: i64,
}

/// How far a task is.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// 0–1.
    pub value: Option<f64>,
    /// For people.
    pub text: Option<String>,
}

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryRecord {
    /// How the wait grows.
    pub backoff: Backoff,
    /// In seconds.
    pub base_seconds: i64,
    /// Longest wait before jitter, in seconds.
    pub cap_seconds: i64,
    /// The wait is drawn from ± this share of itself.
    pub jitter: f64,
}

/// The limits of a task as they were chosen when it was created: each the task's own, else the default of that moment.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// How many attempts may begin.
    pub max_attempts: u32,
    /// When a failed attempt is followed by another.
    pub retry: Kept<RetryRecord>,
    /// How long a lease holds where the claim does not say otherwise, in seconds.
    pub lease_seconds: u32,
    /// How long an attempt may take, in seconds.
    pub timeout_seconds: u32,
    /// How long the task stays once final, in seconds; absent: for ever.
    pub retention_seconds: Option<u32>,
}

/// One version of a task that a write has made, for whoever reads the database's change stream.
///
/// It is stored as JSON text, a list for each version: `[version, at, verb, from, fields]`. The database's log tells of a
/// changed part of a document only what differs in it, and only of a text the whole. What is absent at the end of a list
/// is left out; a later release may add to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRecord {
    /// The task's version.
    pub version: i64,
    /// The task's `updated_at` of that version; in the text in milliseconds.
    pub at: DateTime<Utc>,
    /// The verb that made it.
    pub verb: MoveVerb,
    /// Where the task stood before; absent for a creation.
    pub from: Option<Status>,
    /// Of an edit, or of an `execute` with new limits: the names of the fields.
    pub fields: Vec<&'static str>,
}

impl MoveRecord {
    /// What a write leaves that has done these things. No two writes of a task leave the same, so that the log tells of
    /// each.
    pub fn text(moves: &[Self]) -> String {
        // Numbers, and words that need no escaping: plain text is quicker than a general writer, and this is on every path.
        let mut text = String::with_capacity(48 * moves.len());
        for (place, it) in moves.iter().enumerate() {
            text.push(if place == 0 { '[' } else { ',' });
            let _ = write!(text, "[{},{},\"{}\"", it.version, it.at.timestamp_millis(), it.verb.as_str());
            if let Some(from) = &it.from {
                let _ = write!(text, ",\"{}\"", from.as_str());
            }
            if !it.fields.is_empty() {
                let _ = write!(text, ",[\"{}\"]", it.fields.join("\",\""));
            }
            text.push(']');
        }
        text.push(']');
        text
    }
}

/// How an attempt ended, and what that made of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptEnd {
    /// How it ended.
    pub status: AttemptStatus,
    /// The task's reason after that.
    pub reason: Option<Reason>,
    /// When it ended.
    pub at: DateTime<Utc>,
}

impl AttemptRecord {
    /// How the attempt ended, for the worker that had its token. `None`: it goes on, or nobody was ever given its token.
    pub fn ended(&self) -> Option<AttemptEnd> {
        if self.status == AttemptStatus::Withdrawn {
            return None;
        }
        let told = self.receipt.as_ref().map(|receipt| receipt.reason);
        let reason = told.unwrap_or_else(|| self.reason_of_its_end());
        Some(AttemptEnd { status: self.status, reason, at: self.ended_at? })
    }

    /// The task's reason after an end that has no receipt: by the sweeper, each of whose ends leads to one status for one
    /// reason.
    fn reason_of_its_end(&self) -> Option<Reason> {
        match (self.status, self.led_to?) {
            (AttemptStatus::Lost, Status::Failed) => Some(Reason::Lost),
            (AttemptStatus::Timeout, Status::Failed) => Some(Reason::Timeout),
            (AttemptStatus::Timeout, Status::Scheduled) => Some(Reason::Retry),
            _ => None,
        }
    }

    /// The task's version when the attempt had ended, and where the task went with that.
    pub fn end(&self) -> Option<(i64, Status)> {
        let told = self.receipt.as_ref().map(|receipt| (receipt.version, receipt.status));
        told.or(self.ended_version.zip(self.led_to))
    }
}

impl From<AttemptEnd> for wire::AttemptEnd {
    fn from(end: AttemptEnd) -> Self {
        let AttemptEnd { status, reason, at } = end;
        Self { status: status.into(), reason: reason.map(Into::into), at }
    }
}

impl ReceiptRecord {
    /// The receipt of the task with that id.
    pub fn for_task(self, id: Uuid) -> Receipt {
        Receipt {
            id,
            status: self.status.into(),
            reason: self.reason.map(Into::into),
            attempt: self.attempt,
            run_at: self.run_at,
            version: self.version.unsigned_abs(),
        }
    }
}

impl UsageRecord {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            credits_consumed: self.credits_consumed + other.credits_consumed,
            tokens_used: self.tokens_used.saturating_add(other.tokens_used),
            api_calls_made: self.api_calls_made.saturating_add(other.api_calls_made),
        }
    }
}

impl From<wire::UsageReport> for UsageRecord {
    fn from(report: wire::UsageReport) -> Self {
        let wire::UsageReport { credits_consumed, tokens_used, api_calls_made } = report;
        Self { credits_consumed, tokens_used, api_calls_made }
    }
}

impl From<UsageRecord> for wire::Usage {
    fn from(usage: UsageRecord) -> Self {
        let UsageRecord { credits_consumed, tokens_used, api_calls_made } = usage;
        Self { credits_consumed, tokens_used, api_calls_made }
    }
}

impl From<ProgressRecord> for wire::Progress {
    fn from(progress: ProgressRecord) -> Self {
        let ProgressRecord { value, text } = progress;
        Self { value, text }
    }
}

impl Default for RetryRecord {
    /// What a task without one means. It is part of the stored form and never changes, whatever a new task gets.
    fn default() -> Self {
        Self { backoff: Backoff::Exponential, base_seconds: 5, cap_seconds: 3600, jitter: 0.2 }
    }
}

impl From<wire::NewRetryPolicy> for RetryRecord {
    fn from(policy: wire::NewRetryPolicy) -> Self {
        let wire::NewRetryPolicy { backoff, base_seconds, cap_seconds, jitter } = policy;
        Self { backoff: backoff.into(), base_seconds, cap_seconds, jitter }
    }
}

impl From<RetryRecord> for wire::RetryPolicy {
    fn from(retry: RetryRecord) -> Self {
        let RetryRecord { backoff, base_seconds, cap_seconds, jitter } = retry;
        Self { backoff: backoff.into(), base_seconds, cap_seconds, jitter }
    }
}

impl From<wire::ErrorReport> for ErrorRecord {
    fn from(report: wire::ErrorReport) -> Self {
        let wire::ErrorReport { message, code, details } = report;
        Self { message, code, details: details.map(wire::Json::into_text) }
    }
}

impl From<ErrorRecord> for wire::TaskError {
    fn from(error: ErrorRecord) -> Self {
        Self { message: error.message, code: error.code, details: error.details.map(wire::Json::known) }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
}
