//! What creates a task.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::json::{Json, Payload, maybe_object, present};
use crate::limits::MAX_DELAY_SECONDS;
use crate::priority::Priority;
use crate::rules::{
    are_tags, is_metadata, is_only_delay, is_parameters, is_payload, is_task_type, is_user_id,
};
use crate::tags::Tags;
use crate::timestamp;
use crate::word::known;
use crate::words;

words! {
    /// How the wait before the next attempt grows.
    #[derive(Default)]
    pub enum Backoff {
        /// After the n-th attempt: base · 2ⁿ⁻¹.
        #[default]
        Exponential = "exponential",
        /// After the n-th attempt: base · n.
        Linear = "linear",
        /// Always base.
        Fixed = "fixed",
    }
}

#[cfg(feature = "openapi")]
crate::word_schema!(Backoff);

/// When a failed attempt is to be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewRetryPolicy {
    /// How the wait grows.
    #[serde(deserialize_with = "known")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::word::known_schema::<Backoff>))]
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

impl Default for NewRetryPolicy {
    fn default() -> Self {
        Self { backoff: Backoff::Exponential, base_seconds: 5, cap_seconds: 3600, jitter: 0.2 }
    }
}

/// When a failed attempt is followed by another, as answers show it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// How the wait grows.
    pub backoff: Backoff,
    /// In seconds.
    pub base_seconds: i64,
    /// Longest wait before jitter, in seconds.
    pub cap_seconds: i64,
    /// The wait is drawn from ± this share of itself.
    pub jitter: f64,
}

/// What kind of service is to do a task, and with which parameters.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewTemplate {
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
    pub template: Option<NewTemplate>,
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
    #[garde(range(min = 0, max = MAX_DELAY_SECONDS), custom(is_only_delay(self.run_at)))]
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
    pub retry: Option<NewRetryPolicy>,
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
