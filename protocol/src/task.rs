//! A task, what creates one, what edits one.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::Progress;
use crate::json::{Json, Payload, Priority, Tags, maybe_object, present, present_object, timestamp};
use crate::key::visible_ascii;
use crate::outcome::{TaskError, Usage};
use crate::payload::{self, Numbers};
use crate::state::{Reason, Status};

/// Most bytes of JSON text that request, template, metadata and result of one task may have together.
pub const MAX_TASK_BYTES: usize = 1 << 20;
/// Most bytes of JSON text that a task's metadata may have.
pub const MAX_METADATA_BYTES: usize = 16 << 10;
/// Longest delay and retention, in seconds: a year.
pub const MAX_DELAY_SECONDS: i64 = 31_536_000;

/// A task as an answer shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// UUIDv7: newer tasks have greater ids.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: String,
    /// The end user it was created for.
    pub user_id: Option<String>,
    /// The queue it waits in.
    pub task_type: String,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Why it is `scheduled` or `failed`.
    pub reason: Option<Reason>,
    /// 0–100, higher first.
    #[cfg_attr(feature = "openapi", schema(value_type = u8, maximum = 100))]
    pub priority: Priority,
    /// What is to be done, exactly as sent. Lists leave it out.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub request: Payload,
    /// What kind of service does it, and with which parameters.
    pub template: Option<Template>,
    /// Free-form, for its owner.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Json,
    /// Free-form, for search.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub tags: Tags,
    /// How many attempts have begun that count.
    pub attempt: u32,
    /// How many may.
    pub max_attempts: u32,
    /// How often its lease ran out.
    pub losses: u32,
    /// Not to be claimed before.
    #[serde(with = "timestamp::option")]
    pub run_at: Option<DateTime<Utc>>,
    /// For its owner; the service does not act on it.
    #[serde(with = "timestamp::option")]
    pub due_date: Option<DateTime<Utc>>,
    /// For its owner; the service does not act on it.
    #[serde(with = "timestamp::option")]
    pub reminder_time: Option<DateTime<Utc>>,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// The latest its worker reported.
    pub progress: Option<Progress>,
    /// When its cancellation was asked for.
    #[serde(with = "timestamp::option")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What came out, exactly as sent. Lists leave it out.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub result: Payload,
    /// Where the result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why the latest attempt failed.
    pub error: Option<TaskError>,
    /// Summed over the attempts.
    pub usage: Usage,
    /// When it was created.
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
    /// When the latest attempt began.
    #[serde(with = "timestamp::option")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it became final.
    #[serde(with = "timestamp::option")]
    pub completed_at: Option<DateTime<Utc>>,
    /// Grows by one with every stored change; the `ETag` of `GET`.
    pub version: u64,
}

/// Who works on a task, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// What its holder must show. Only the answer to a claim carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The worker's own name for itself.
    pub worker_id: String,
    /// When the task is taken back unless a heartbeat comes.
    #[serde(with = "timestamp")]
    pub expires_at: DateTime<Utc>,
}

/// What kind of service does a task, and with which parameters.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
    /// 1–255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub service_type: Option<String>,
    /// Any JSON, kept exactly as sent.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_parameters))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub parameters: Payload,
}

/// How the wait before the next attempt grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Backoff {
    /// After the n-th attempt: base · 2ⁿ⁻¹.
    #[default]
    Exponential,
    /// After the n-th attempt: base · n.
    Linear,
    /// Always base.
    Fixed,
}

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// How the wait grows.
    #[garde(skip)]
    pub backoff: Backoff,
    /// Seconds, 1–86 400.
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub base_seconds: i64,
    /// Longest wait before jitter, in seconds, 1–86 400.
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub cap_seconds: i64,
    /// The wait is drawn from ± this share of itself, 0–1.
    #[garde(range(min = 0.0, max = 1.0))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { backoff: Backoff::Exponential, base_seconds: 5, cap_seconds: 3600, jitter: 0.2 }
    }
}

/// Body of `POST /tasks`.
#[allow(clippy::option_option, reason = "absent is the server's default, null is for ever")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewTask {
    /// The queue: 1–128 of `[A-Za-z0-9._:-]`.
    #[garde(custom(is_task_type))]
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._:-]+$")
    )]
    pub task_type: String,
    /// The end user it is created for: 1–255 visible ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_user_id)))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$"))]
    pub user_id: Option<String>,
    /// 1–255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub name: Option<String>,
    /// Up to 4 096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, max = 4096))]
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub description: Option<String>,
    /// Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub priority: Option<Priority>,
    /// What is to be done: any JSON, kept exactly as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_payload)))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub request: Option<Json>,
    /// What kind of service does it.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub template: Option<Template>,
    /// A JSON object of up to 16 KiB, numbers of up to 64 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_metadata)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Json>,
    /// For search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(are_tags)))]
    pub tags: Option<Tags>,
    /// Not to be claimed before; not together with `delay_seconds`.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub run_at: Option<DateTime<Utc>>,
    /// The same as a distance from now, in seconds: 0–31 536 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS), custom(is_only_delay(&self.run_at)))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub delay_seconds: Option<i64>,
    /// 1–50, default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 50))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 50))]
    pub max_attempts: Option<i64>,
    /// Default: exponential from 5 seconds to an hour, jitter 0.2.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub retry: Option<RetryPolicy>,
    /// How long a claim holds without a heartbeat, in seconds: 1–86 400, default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// How long an attempt may take, whatever the heartbeats, in seconds: 1–604 800, default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 604_800))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub timeout_seconds: Option<i64>,
    /// How long the task stays once it is final, in seconds: 0–31 536 000; default from the server's settings;
    /// `null` for ever.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 0, max = MAX_DELAY_SECONDS)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000))]
    pub retention_seconds: Option<Option<i64>>,
    /// For its owner; the service does not act on it.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub due_date: Option<DateTime<Utc>>,
    /// For its owner; the service does not act on it.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub reminder_time: Option<DateTime<Utc>>,
}

impl NewTask {
    /// A task of that type with nothing else said.
    pub fn new(task_type: impl Into<String>) -> Self {
        Self { task_type: task_type.into(), ..Self::default() }
    }
}

/// Body of `PUT /tasks/{id}`: absent fields stay, `null` clears a field or sets its default.
#[allow(clippy::option_option, reason = "absent, null and a value are three things")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskEdit {
    /// 1–255 characters.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(chars, min = 1, max = 255)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 255))]
    pub name: Option<Option<String>>,
    /// Up to 4 096 characters.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(chars, max = 4096)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, max_length = 4096))]
    pub description: Option<Option<String>>,
    /// `null`: 50.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Priority>))]
    pub priority: Option<Option<Priority>>,
    /// Any JSON, kept exactly as sent.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(inner(custom(is_payload))))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub request: Option<Option<Json>>,
    /// What kind of service does it.
    #[serde(deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Template>))]
    pub template: Option<Option<Template>>,
    /// `null`: `{}`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(inner(custom(is_metadata))))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Option<Json>>,
    /// `null`: none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(inner(custom(are_tags))))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Tags>))]
    pub tags: Option<Option<Tags>>,
    /// `null`: now.
    #[serde(with = "timestamp::edit", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<DateTime<Utc>>))]
    pub run_at: Option<Option<DateTime<Utc>>>,
    /// 1–50; `null`: 3.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 50)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 1, maximum = 50))]
    pub max_attempts: Option<Option<i64>>,
    /// For its owner.
    #[serde(with = "timestamp::edit", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<DateTime<Utc>>))]
    pub due_date: Option<Option<DateTime<Utc>>>,
    /// For its owner.
    #[serde(with = "timestamp::edit", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<DateTime<Utc>>))]
    pub reminder_time: Option<Option<DateTime<Utc>>>,
}

/// The statuses that `PUT /tasks/{id}/status` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SelfManagedStatus {
    /// The service has begun the work.
    Processing,
    /// The work is done.
    Completed,
    /// The work failed for good.
    Failed,
}

/// Body of `PUT /tasks/{id}/status`, for services that run their own work without a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusChange {
    /// Where the task goes.
    #[garde(skip)]
    pub status: SelfManagedStatus,
    /// Where the result is kept, if elsewhere: 1–255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub result_id: Option<String>,
    /// What came out: any JSON, kept exactly as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_payload)))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub result: Option<Json>,
    /// What went wrong, with `failed`: up to 8 192 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, max = 8192))]
    #[cfg_attr(feature = "openapi", schema(max_length = 8192))]
    pub error_message: Option<String>,
}

/// Answer of `GET /tasks/{id}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusReport {
    /// The task.
    pub id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// Why it is `scheduled` or `failed`.
    pub reason: Option<Reason>,
    /// How many attempts have begun that count.
    pub attempt: u32,
    /// The latest its worker reported.
    pub progress: Option<Progress>,
    /// Where the result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why the latest attempt failed.
    pub error: Option<TaskError>,
    /// When the task last changed.
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
}

/// 1–128 of `[A-Za-z0-9._:-]`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_task_type(task_type: &str, _: &()) -> garde::Result {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    if (1..=128).contains(&task_type.len()) && task_type.bytes().all(allowed) {
        Ok(())
    } else {
        Err(garde::Error::new("1 to 128 of A-Z a-z 0-9 . _ : - are expected"))
    }
}

/// Whether `task_type` could be one: 1–128 of `[A-Za-z0-9._:-]`.
pub fn task_type_is_valid(task_type: &str) -> bool {
    is_task_type(task_type, &()).is_ok()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_user_id(user: &str, _: &()) -> garde::Result {
    visible_ascii(user, 255).map_err(garde::Error::new)
}

/// Any JSON up to the depth allowed.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn is_payload(json: &Json, _: &()) -> garde::Result {
    payload::check(json.as_str(), Numbers::Any).map_err(garde::Error::new)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_parameters(parameters: &Payload, context: &()) -> garde::Result {
    parameters.json().map_or(Ok(()), |json| is_payload(json, context))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_metadata(metadata: &Json, _: &()) -> garde::Result {
    let text = metadata.as_str();
    if !text.starts_with('{') {
        return Err(garde::Error::new("a JSON object is expected"));
    }
    if text.len() > MAX_METADATA_BYTES {
        return Err(garde::Error::new("metadata may have 16 KiB at most"));
    }
    payload::check(text, Numbers::SixtyFourBits).map_err(garde::Error::new)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn are_tags(tags: &Tags, _: &()) -> garde::Result {
    tags.check().map_err(garde::Error::new)
}

fn is_only_delay(run_at: &Option<DateTime<Utc>>) -> impl FnOnce(&Option<i64>, &()) -> garde::Result {
    let both = run_at.is_some();
    move |delay, ()| match delay {
        Some(_) if both => Err(garde::Error::new("run_at and delay_seconds cannot both be given")),
        _ => Ok(()),
    }
}
