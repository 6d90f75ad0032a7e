//! Stored tasks that a server cannot read, as an operator sees them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::timestamp;

/// Answer of `GET /unreadable-tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadableTaskPage {
    /// The newest first, as far as their time of creation can be read.
    pub tasks: Vec<UnreadableTask>,
    /// Give it back as `cursor` for the next page; `null` at the end. A page may be short, or empty, and have one.
    pub next_cursor: Option<String>,
}

/// A stored task that the server cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadableTask {
    /// Its id. Where that is no UUID either, a text that stands for it.
    pub id: String,
    /// The collection it is in.
    pub collection: String,
    /// The field that does not fit, as far as it is known.
    pub field: String,
    /// When this server first met it.
    #[serde(with = "timestamp")]
    pub since: DateTime<Utc>,
}

/// Answer of `GET /unreadable-tasks/{task_id}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadableTaskDetail {
    /// Its id. Where that is no UUID either, a text that stands for it.
    pub id: String,
    /// The collection it is in.
    pub collection: String,
    /// The field that does not fit, as far as it is known.
    pub field: String,
    /// When this server first met it.
    #[serde(with = "timestamp")]
    pub since: DateTime<Utc>,
    /// What is stored, as `MongoDB`'s relaxed extended JSON. Lease tokens, ids of attempts and what belongs to idempotency
    /// keys and claim ids are not shown.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub document: Json,
}
