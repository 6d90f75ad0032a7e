//! What a worker reports of an attempt, and how answers show it.

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::rules::is_payload;

/// Most bytes of JSON text in an error's `details`.
pub const MAX_DETAILS_BYTES: usize = 32 << 10;

/// What went wrong, as a worker reports it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorReport {
    /// For people: up to 8 192 characters.
    #[garde(length(chars, max = 8192))]
    #[cfg_attr(feature = "openapi", schema(max_length = 8192))]
    pub message: String,
    /// For programs: 1–128 characters.
    #[serde(default)]
    #[garde(length(chars, min = 1, max = 128))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub code: Option<String>,
    /// Any JSON of up to 32 KiB, kept exactly as sent.
    #[serde(default)]
    #[garde(inner(custom(are_details)))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub details: Option<Json>,
}

/// What an attempt used, as a worker reports it. Each is non-negative; what is left out counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageReport {
    /// May be fractional.
    #[garde(range(min = 0.0, max = 1e15))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000_000_000_000_i64))]
    pub credits_consumed: f64,
    /// Up to 10^15.
    #[garde(range(min = 0, max = 1_000_000_000_000_000))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000_000_000_000_i64))]
    pub tokens_used: i64,
    /// Up to 10^15.
    #[garde(range(min = 0, max = 1_000_000_000_000_000))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1_000_000_000_000_000_i64))]
    pub api_calls_made: i64,
}

impl UsageReport {
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

/// Why an attempt failed, as answers show it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskError {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default)]
    pub code: Option<String>,
    /// Any JSON, kept exactly as sent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub details: Option<Json>,
}

/// What attempts used, as answers show it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// May be fractional.
    pub credits_consumed: f64,
    /// How many tokens.
    pub tokens_used: i64,
    /// How many calls of other services.
    pub api_calls_made: i64,
}

/// How far a task is, as its worker last said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// 0–1.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub value: Option<f64>,
    /// For people.
    pub text: Option<String>,
}

/// What a heartbeat says of the progress: value, text or both. What is not said stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgressUpdate {
    /// 0–1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0.0, max = 1.0), custom(has_value_or_text(self.text.is_some())))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub value: Option<f64>,
    /// Up to 4 096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(chars, max = 4096))]
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub text: Option<String>,
}

fn has_value_or_text(has_text: bool) -> impl FnOnce(&Option<f64>, &()) -> garde::Result {
    move |value, ()| {
        if value.is_some() || has_text {
            Ok(())
        } else {
            Err(garde::Error::new("value, text or both are expected"))
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn are_details(details: &Json, context: &()) -> garde::Result {
    if details.as_str().len() > MAX_DETAILS_BYTES {
        return Err(garde::Error::new("details may have 32 KiB at most"));
    }
    is_payload(details, context)
}
