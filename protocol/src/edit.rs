//! What changes a task that nobody works on, and what a service says of its own work.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::json::{Json, maybe_object, present, present_object};
use crate::limits::MAX_DELAY_SECONDS;
use crate::new_task::{NewRetryPolicy, NewTemplate};
use crate::priority::Priority;
use crate::rules::{are_tags, is_metadata, is_only_delay, is_payload};
use crate::tags::Tags;
use crate::timestamp;

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
    #[cfg_attr(feature = "openapi", schema(value_type = Option<NewTemplate>))]
    pub template: Option<Option<NewTemplate>>,
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
    /// `null`: exponential from 5 seconds to an hour, jitter 0.2. A member that is left out has its default.
    #[serde(deserialize_with = "present_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<NewRetryPolicy>))]
    pub retry: Option<Option<NewRetryPolicy>>,
    /// How long a claim holds without a heartbeat, in seconds: 1–86 400; `null`: 60.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 86_400)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<Option<i64>>,
    /// How long an attempt may take, whatever the heartbeats, in seconds: 1–604 800; `null`: 300.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 604_800)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 1, maximum = 604_800))]
    pub timeout_seconds: Option<Option<i64>>,
    /// How long the task stays once it is final, in seconds: 0–31 536 000; `null`: for ever.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 0, max = MAX_DELAY_SECONDS)))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000))]
    pub retention_seconds: Option<Option<i64>>,
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

/// Body of `POST /tasks/{id}/execute`; may be left out. What is absent or `null` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Execute {
    /// 1–50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 50))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 50))]
    pub max_attempts: Option<i64>,
    /// How long an attempt may take, whatever the heartbeats, in seconds: 1–604 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 604_800))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub timeout_seconds: Option<i64>,
    /// How long a claim holds without a heartbeat, in seconds: 1–86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// When a failed attempt is followed by another. A member that is left out has its default.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub retry: Option<NewRetryPolicy>,
    /// Higher first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub priority: Option<Priority>,
    /// Not to be claimed before, instead of now; not together with `delay_seconds`.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub run_at: Option<DateTime<Utc>>,
    /// The same as a distance from now, in seconds: 0–31 536 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS), custom(is_only_delay(self.run_at)))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub delay_seconds: Option<i64>,
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
