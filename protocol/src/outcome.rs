//! Settling work: complete, fail, release, cancel; receipts and executions.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::Claim;
use crate::error::Problem;
use crate::json::{Json, Payload, maybe_object, object};
use crate::limits::MAX_DELAY_SECONDS;
use crate::report::{ErrorReport, TaskError, Usage, UsageReport};
use crate::rules::{is_checkpoint, is_payload};
use crate::state::{Reason, Status};
use crate::task::Task;
use crate::timestamp;
use crate::words;

pub use crate::state::ExecutionStatus;

/// Body of `POST /tasks/{id}/complete`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Complete {
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// What came out: any JSON, kept exactly as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_payload)))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub result: Option<Json>,
    /// Where the result is kept, if elsewhere: 1–255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub result_id: Option<String>,
    /// What the attempt used.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub usage: Option<UsageReport>,
}

/// Body of `POST /tasks/{id}/fail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fail {
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// What went wrong.
    #[serde(deserialize_with = "object")]
    #[garde(dive)]
    pub error: ErrorReport,
    /// Whether to try again; default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub retry: Option<Retry>,
    /// When to try again, instead of the task's backoff, in seconds: 0–31 536 000. Ignored with `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub retry_after_seconds: Option<i64>,
    /// What the attempt used.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub usage: Option<UsageReport>,
    /// What the next attempt goes on from: any JSON of up to 64 KiB, kept exactly as sent; `null` removes it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_checkpoint))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
}

/// Body of `POST /tasks/{id}/release`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// How long nobody should claim it, in seconds: 0–31 536 000. Without it, the first two releases in a row put the task
    /// back in its place; from the third on it waits 1, 2, 4 … up to 60 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub delay_seconds: Option<i64>,
    /// What the next attempt goes on from: any JSON of up to 64 KiB, kept exactly as sent; `null` removes it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_checkpoint))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
}

/// Body of `POST /tasks/{id}/cancel`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cancel {
    /// With it, this is the worker's acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub lease_token: Option<String>,
}

/// Whether a failed task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Retry {
    /// While attempts are left.
    #[default]
    Auto,
    /// No more.
    Never,
}

/// How one of many tasks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OutcomeKind {
    /// As `complete`.
    Completed,
    /// As `fail`.
    Failed,
    /// As `release`.
    Released,
    /// As `cancel` with the token.
    Cancelled,
}

/// One of the outcomes of `POST /tasks/outcomes`: the fields of the body that settles one such task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// The task.
    #[garde(skip)]
    pub id: String,
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// How it ended.
    #[garde(skip)]
    pub outcome: OutcomeKind,
    /// With `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_payload)), custom(belongs_to(self.outcome, &[OutcomeKind::Completed])))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub result: Option<Json>,
    /// With `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255), custom(belongs_to(self.outcome, &[OutcomeKind::Completed])))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub result_id: Option<String>,
    /// With `failed`, and required there.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive, custom(belongs_to(self.outcome, &[OutcomeKind::Failed])), custom(is_given_for_failed(self.outcome)))]
    pub error: Option<ErrorReport>,
    /// With `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(custom(belongs_to(self.outcome, &[OutcomeKind::Failed])))]
    pub retry: Option<Retry>,
    /// With `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS), custom(belongs_to(self.outcome, &[OutcomeKind::Failed])))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub retry_after_seconds: Option<i64>,
    /// With `released`; without it, the task waits as after a [`Release`] without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS), custom(belongs_to(self.outcome, &[OutcomeKind::Released])))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub delay_seconds: Option<i64>,
    /// With `completed` and `failed`.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive, custom(belongs_to(self.outcome, &[OutcomeKind::Completed, OutcomeKind::Failed])))]
    pub usage: Option<UsageReport>,
    /// With `failed` and `released`. What the next attempt goes on from: any JSON of up to 64 KiB, kept exactly as sent; `null` removes it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_checkpoint), custom(goes_on(self.outcome)))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
}

fn belongs_to<T>(
    kind: OutcomeKind,
    kinds: &'static [OutcomeKind],
) -> impl FnOnce(&Option<T>, &()) -> garde::Result {
    move |field, ()| {
        if field.is_none() || kinds.contains(&kind) {
            Ok(())
        } else {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
            Err(garde::Error::new(format!("the field goes with the outcome {} only", kinds.join(" or "))))
        }
    }
}

fn goes_on(kind: OutcomeKind) -> impl FnOnce(&Payload, &()) -> garde::Result {
    move |checkpoint, ()| {
        if checkpoint.is_omitted() || matches!(kind, OutcomeKind::Failed | OutcomeKind::Released) {
            Ok(())
        } else {
            Err(garde::Error::new("the field goes with the outcome failed or released only"))
        }
    }
}

fn is_given_for_failed<T>(kind: OutcomeKind) -> impl FnOnce(&Option<T>, &()) -> garde::Result {
    move |field, ()| {
        if field.is_none() && kind == OutcomeKind::Failed {
            Err(garde::Error::new("an error is required with failed"))
        } else {
            Ok(())
        }
    }
}

/// Body of `POST /tasks/outcomes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcomes {
    /// Up to 1000, each an [`Outcome`]; one that breaks a rule is that item's problem.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Outcome>, max_items = 1000))]
    pub outcomes: Vec<Json>,
    /// The next work to bring in the same call.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// Answer of `POST /tasks/outcomes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomesAnswer {
    /// One for each outcome, in order.
    pub results: Vec<OutcomeResult>,
    /// What `claim` brought; empty without it.
    pub tasks: Vec<Task>,
}

/// What became of one of many outcomes: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomeResult {
    /// It was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// It was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Where a task stood after it was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The task.
    pub id: Uuid,
    /// Where it went.
    pub status: Status,
    /// Why, for `scheduled` and `failed`.
    pub reason: Option<Reason>,
    /// How many attempts had begun that count.
    pub attempt: u32,
    /// Not to be claimed before.
    #[serde(with = "timestamp::option")]
    pub run_at: Option<DateTime<Utc>>,
    /// The task's version after the move.
    pub version: u64,
}

words! {
    /// What started an attempt.
    pub enum Trigger {
        /// A worker claimed the task.
        Claim = "claim",
        /// A worker claimed it after an earlier attempt had failed or been lost.
        Retry = "retry",
        /// A worker claimed it after `execute`.
        Manual = "manual",
        /// A service runs its own work.
        SelfManaged = "self_managed",
    }
}

#[cfg(feature = "openapi")]
crate::word_schema!(Trigger);

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Execution {
    /// Names the attempt.
    pub execution_id: Uuid,
    /// Which one it was, counted from 1.
    pub attempt: u32,
    /// Who worked; `null` for self-managed work.
    pub worker_id: Option<String>,
    /// What started it.
    pub trigger: Trigger,
    /// How it ended.
    pub status: ExecutionStatus,
    /// When it began.
    #[serde(with = "timestamp")]
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(with = "timestamp::option")]
    pub completed_at: Option<DateTime<Utc>>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Where its result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// Whether `error` was shortened, because newer attempts needed its room: its details, perhaps its message.
    #[serde(default)]
    pub truncated: bool,
    /// What it used.
    pub usage: Usage,
}

/// Answer of `GET /tasks/{id}/executions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecutionList {
    /// Newest first.
    pub executions: Vec<Execution>,
}
