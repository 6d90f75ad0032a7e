//! A task as answers show it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::json::{Json, Payload};
use crate::new_task::RetryPolicy;
use crate::priority::Priority;
use crate::report::{Progress, TaskError, Usage};
use crate::state::{Reason, Status};
use crate::tags::Tags;
use crate::timestamp;

pub use crate::limits::{MAX_DELAY_SECONDS, MAX_METADATA_BYTES, MAX_TASK_BYTES};
pub use crate::new_task::NewTemplate;

/// A task as an answer shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// `UUIDv7`: newer tasks have greater ids.
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
    /// How often in a row it was given back, with no attempt between that ended otherwise.
    #[serde(default)]
    pub releases: u32,
    /// When a failed attempt is followed by another.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    /// How long a claim holds without a heartbeat where it does not say otherwise, in seconds.
    #[serde(default)]
    pub lease_seconds: Option<u32>,
    /// How long an attempt may take, whatever the heartbeats, in seconds.
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// How long it stays once it is final, in seconds; `null`: for ever.
    #[serde(default)]
    pub retention_seconds: Option<u32>,
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
    /// What an attempt has left for the next one, exactly as sent. Only claims and `GET /tasks/{id}` show it.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub checkpoint: Payload,
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
    /// The path of its stream; only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_url: Option<String>,
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

/// What kind of service does a task, and with which parameters, as answers show it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
    /// The kind of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Any JSON, kept exactly as sent.
    #[serde(default, skip_serializing_if = "Payload::is_omitted")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub parameters: Payload,
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
