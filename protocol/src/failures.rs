//! Which failures there were.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::Reason;
use crate::timestamp;

/// How far back failures can be asked for, in days.
pub const MAX_FAILURE_DAYS: i64 = 31;

/// Answer of `GET /failures`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailurePage {
    /// The most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Give it back as `cursor` for the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// Attempts that failed, timed out or were lost, of one task type, with one code, and after which their tasks had one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureGroup {
    /// The type.
    pub task_type: String,
    /// The code that the worker named; `lost` of a loss, `other` of codes beyond the 100 that are counted by themselves in an
    /// hour; `null` where the worker named none.
    pub error_code: Option<String>,
    /// The task's reason after that end, such as `retry` or `exhausted`.
    pub reason: Option<Reason>,
    /// How many.
    pub count: u64,
    /// When the first of them ended.
    #[serde(with = "timestamp")]
    pub first_at: DateTime<Utc>,
    /// When the last of them ended.
    #[serde(with = "timestamp")]
    pub last_at: DateTime<Utc>,
    /// Up to three of the tasks, of the latest hour.
    pub sample: Vec<Uuid>,
    /// What the latest of them said, in its first 1 024 characters; `null` of a loss.
    pub message: Option<String>,
}
