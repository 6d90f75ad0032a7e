//! Health answers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::timestamp;

/// Whether the process lives, or can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `healthy`, `degraded` or `draining`.
    pub status: String,
    /// The service's name, from `SERVICE_NAME`.
    pub service: String,
    /// The server's version.
    pub version: String,
}

/// [`Health`], with each dependency and background job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DetailedHealth {
    /// `healthy`, `degraded` or `draining`.
    pub status: String,
    /// The service's name.
    pub service: String,
    /// The server's version.
    pub version: String,
    /// How long the server has been up, in seconds.
    pub uptime_seconds: u64,
    /// What the server needs, by name.
    pub dependencies: BTreeMap<String, Dependency>,
    /// The loops that run beside the requests, by name.
    pub background: BTreeMap<String, BackgroundJob>,
    /// The servers on this database, the longest running first.
    #[serde(default)]
    pub servers: Vec<ServerEntry>,
    /// Documents that this server has met in the last ten minutes and could not read.
    #[serde(default)]
    pub unreadable: Unreadable,
}

/// A server as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerEntry {
    /// Drawn when it started.
    pub id: Uuid,
    /// The machine it runs on.
    pub host: String,
    /// Its release.
    pub version: String,
    /// The stored form that it writes, `major.minor`.
    pub schema: String,
    /// When it started.
    #[serde(with = "timestamp")]
    pub started_at: DateTime<Utc>,
    /// When it renewed its entry for the last time; one that is alive does so every 5 seconds.
    #[serde(with = "timestamp")]
    pub renewed_at: DateTime<Utc>,
}

/// Documents that a server could not read. It leaves them alone and goes on with all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unreadable {
    /// How many.
    pub count: u64,
    /// Some of them.
    pub documents: Vec<UnreadableDocument>,
}

/// A document that a server could not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnreadableDocument {
    /// The collection it is in.
    pub collection: String,
    /// Its id: the first and last 4 characters.
    pub id: String,
    /// The field that does not fit, as far as it is known.
    pub field: String,
    /// When it was first met.
    #[serde(with = "timestamp")]
    pub since: DateTime<Utc>,
}

/// A dependency as it was found just now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dependency {
    /// `healthy`, `degraded` (see `detail`) or `unavailable`.
    pub status: String,
    /// How long it took to answer, in milliseconds; `null` when it did not.
    pub latency_ms: Option<f64>,
    /// What is wrong, if anything.
    pub detail: Option<String>,
}

/// A background job as it last ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackgroundJob {
    /// `healthy`, `starting`, `degraded` (something is due that the server cannot read) or `failing`.
    pub status: String,
    /// How long its last round took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// How late it was for the oldest thing that was due, whether it could be done or not, in milliseconds. While the job
    /// fails, at least the time since its last good round.
    pub lag_ms: Option<f64>,
    /// How long ago it last finished a round, in milliseconds.
    pub last_success_ms_ago: Option<f64>,
    /// How many tasks are due and stay where they are because the server cannot read them.
    #[serde(default)]
    pub unmoved: u64,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
