//! Asking for work, leases, heartbeats.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Problem;
use crate::json::{Payload, maybe_object};
use crate::rules::{are_tags, is_checkpoint, is_task_type};
use crate::tags::Tags;
use crate::task::Task;
use crate::timestamp;

pub use crate::limits::{MAX_CLAIM, MAX_CLAIM_TYPES, MAX_WAIT_MS};
pub use crate::report::{Progress, ProgressUpdate};

/// Body of `POST /tasks/claim`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claim {
    /// The queues to take from, 1–100.
    #[garde(length(min = 1, max = MAX_CLAIM_TYPES), inner(custom(is_task_type)))]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::rules::task_types_schema))]
    pub task_types: Vec<String>,
    /// How many at most: 1–1000, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = MAX_CLAIM))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// The worker's own name for itself: 1–255 characters.
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub worker_id: String,
    /// How long the leases hold without a heartbeat: 1–86 400; default: each task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// How long to wait for work, in milliseconds: 0–30 000, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = MAX_WAIT_MS))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 30_000))]
    pub wait_ms: Option<u64>,
    /// Makes the claim safe to repeat for 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub claim_id: Option<Uuid>,
    /// Only tasks that have all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(are_tags)))]
    pub tags: Option<Tags>,
}

/// Body of `POST /tasks/{id}/claim`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimOne {
    /// The worker's own name for itself: 1–255 characters.
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub worker_id: String,
    /// How long the lease holds without a heartbeat: 1–86 400; default: the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
}

/// Answer of `POST /tasks/claim`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claimed {
    /// With lease and payload; empty when nothing was ready before the wait ended.
    pub tasks: Vec<Task>,
}

/// Body of `POST /tasks/{id}/heartbeat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// How long the lease holds from now: 1–86 400; default: as long as it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// How far the work is.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub progress: Option<ProgressUpdate>,
    /// What the next attempt goes on from: any JSON of up to 64 KiB, kept exactly as sent; `null` removes it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_checkpoint))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
}

/// One of the heartbeats of `POST /tasks/heartbeat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatItem {
    /// The task.
    #[garde(skip)]
    pub id: String,
    /// From the claim.
    #[garde(skip)]
    pub lease_token: String,
    /// How long the lease holds from now: 1–86 400; default: as long as it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = 86_400))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub lease_seconds: Option<i64>,
    /// How far the work is.
    #[serde(default, deserialize_with = "maybe_object", skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub progress: Option<ProgressUpdate>,
    /// What the next attempt goes on from: any JSON of up to 64 KiB, kept exactly as sent; `null` removes it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[garde(custom(is_checkpoint))]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
}

impl HeartbeatItem {
    /// The task's id as sent, and its heartbeat.
    pub fn split(self) -> (String, Heartbeat) {
        let Self { id, lease_token, lease_seconds, progress, checkpoint } = self;
        (id, Heartbeat { lease_token, lease_seconds, progress, checkpoint })
    }
}

/// Body of `POST /tasks/heartbeat`, up to 1000.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeats {
    /// Each is a [`HeartbeatItem`]; one that breaks a rule is that item's problem.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<HeartbeatItem>, max_items = 1000))]
    pub heartbeats: Vec<crate::json::Json>,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatReceipt {
    /// Until when the lease holds now.
    #[serde(with = "timestamp")]
    pub expires_at: DateTime<Utc>,
    /// Whether the worker should stop and acknowledge the cancellation.
    pub cancel_requested: bool,
}

/// What became of one of many heartbeats: the fields of a receipt, or a problem.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatResult {
    /// Until when the lease holds now.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether the worker should stop and acknowledge the cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested: Option<bool>,
    /// Why the lease was not renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Answer of `POST /tasks/heartbeat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatsAnswer {
    /// One for each heartbeat, in order.
    pub results: Vec<HeartbeatResult>,
}
