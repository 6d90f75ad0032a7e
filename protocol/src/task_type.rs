//! Task types: the queues, what holds for their tasks, and how they are doing.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::json::{Json, maybe_object, present};
use crate::limits::MAX_DELAY_SECONDS;
use crate::new_task::NewRetryPolicy;
use crate::payload::{self, Numbers};
use crate::timestamp;

/// Most bytes of JSON text that a schema may have.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// Body of `PUT /task-types/{task_type}`: what holds for tasks that say nothing else. It replaces what was set before.
#[allow(clippy::option_option, reason = "absent is the server's default, null is for ever")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskTypeSettings {
    /// For people, up to 4 096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, max = 4096))]
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub description: Option<String>,
    /// How long a claim holds without a heartbeat, in seconds: 1–86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// How long an attempt may take, whatever the heartbeats, in seconds: 1–604 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 604_800))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub timeout_seconds: Option<i64>,
    /// 1–50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 50))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 50))]
    pub max_attempts: Option<i64>,
    /// When a failed attempt is followed by another. A member that is left out has its default.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub retry: Option<NewRetryPolicy>,
    /// How long a task stays once it is final, in seconds: 0–31 536 000; `null` for ever.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 0, max = MAX_DELAY_SECONDS)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000))]
    pub retention_seconds: Option<Option<i64>>,
    /// How many lost leases a task survives, 1–100, default 3. It holds for all that are lost from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 100))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub max_losses: Option<i64>,
    /// Beyond so many tasks that are ready or scheduled, creates are refused: 1–1 000 000 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 1_000_000_000))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000_000))]
    pub max_pending: Option<i64>,
    /// A JSON Schema that every request must fit: draft 2020-12, or an older one that `$schema` names. Up to 64 KiB and
    /// 32 levels; no reference leads outside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_schema)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub request_schema: Option<Json>,
}

/// What every schema must keep to before its keywords are looked at.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_schema(schema: &Json, _: &()) -> garde::Result {
    let text = schema.as_str();
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(garde::Error::new("a schema may have 64 KiB at most"));
    }
    if !text.starts_with('{') && !matches!(text, "true" | "false") {
        return Err(garde::Error::new("a JSON Schema is expected: an object, true or false"));
    }
    payload::check(text, Numbers::Any).map_err(garde::Error::new)
}

/// Body of `POST /task-types/{task_type}/pause`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPause {
    /// For people, 1–255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub reason: Option<String>,
    /// When the pause ends by itself; it must lie ahead.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub until: Option<DateTime<Utc>>,
}

/// Body of `POST /task-types/{task_type}/resume`; may be left out, and says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resume {}

/// That no work of a type is given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pause {
    /// For people.
    pub reason: Option<String>,
    /// When it ends by itself; `null`: not before it is resumed.
    #[serde(with = "timestamp::option")]
    pub until: Option<DateTime<Utc>>,
    /// When it began.
    #[serde(with = "timestamp")]
    pub since: DateTime<Utc>,
}

/// A task type, with what holds for it and how it is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskType {
    /// The queue's name.
    pub task_type: String,
    /// How many tasks are ready.
    pub pending: u64,
    /// How many may not run yet.
    pub scheduled: u64,
    /// How many are being worked on.
    pub processing: u64,
    /// How many failed and are still kept.
    pub failed: u64,
    /// How many are completed and still kept.
    pub completed: u64,
    /// How many are cancelled and still kept.
    pub cancelled: u64,
    /// The age of the oldest ready task, in seconds; `null` without one.
    pub oldest_pending_seconds: Option<u64>,
    /// Tasks created in the last 60 minutes and the running one.
    pub created_last_hour: u64,
    /// Moves to `completed` in the same time.
    pub completed_last_hour: u64,
    /// Moves to `failed` in the same time.
    pub failed_last_hour: u64,
    /// How many workers take this type.
    pub workers: u64,
    /// Since when no worker has taken this type though work is ready; else `null`.
    #[serde(with = "timestamp::option")]
    pub no_worker_since: Option<DateTime<Utc>>,
    /// Whether claims get nothing of it.
    pub paused: Option<Pause>,
    /// What was given by `PUT /task-types/{task_type}`; `{}` where nothing was.
    #[cfg_attr(feature = "openapi", schema(value_type = TaskTypeSettings))]
    pub settings: Json,
    /// Grows with each change of the settings; 0 without settings.
    pub version: i64,
    /// Up to when the counts are right; `null` while they are being made for the first time.
    #[serde(with = "timestamp::option")]
    pub as_of: Option<DateTime<Utc>>,
}

/// Answer of `GET /task-types`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskTypePage {
    /// By name.
    pub task_types: Vec<TaskType>,
    /// Give it back as `cursor` for the next page; `null` at the end.
    pub next_cursor: Option<String>,
    /// Up to when the counts are right; `null` while they are being made for the first time.
    #[serde(with = "timestamp::option")]
    pub as_of: Option<DateTime<Utc>>,
}
