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
    /// How far the event log is that tells what moved; absent before the first server has read anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<Feed>,
    /// Those who read the event log, by name.
    #[serde(default)]
    pub readers: BTreeMap<String, LogReader>,
    /// The servers on this database, the longest running first.
    #[serde(default)]
    pub servers: Vec<ServerEntry>,
    /// Documents that this server has met in the last ten minutes and could not read.
    #[serde(default)]
    pub unreadable: Unreadable,
}

/// How far the event log is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Feed {
    /// The number of its latest document.
    pub position: i64,
    /// The age of the last event that is in it, in seconds; 0 when nothing waits.
    pub lag_seconds: f64,
    /// Why nothing could be read for the last time, if that is so, on the server that was asked.
    pub last_error: Option<String>,
    /// The time up to which everything is in it.
    #[serde(with = "timestamp::option")]
    pub last_at: Option<DateTime<Utc>>,
    /// How far the database's own history reaches back from which the log is written, in seconds; `null` where the service may
    /// not ask for it.
    #[serde(default)]
    pub oplog_window_seconds: Option<u64>,
    /// When the latest time began of which the log knows nothing, if there is such a time.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    pub last_gap_at: Option<DateTime<Utc>>,
}

/// How far a reader of the event log is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogReader {
    /// The number of the document that it has read last.
    pub position: i64,
    /// The age of the last event that it has read, in seconds; 0 when nothing waits.
    pub lag_seconds: f64,
    /// How many events it has not read yet.
    pub events_ahead: u64,
    /// Why it could not read for the last time, if that is so.
    pub last_error: Option<String>,
    /// When it has read for the last time.
    #[serde(with = "timestamp::option")]
    pub last_at: Option<DateTime<Utc>>,
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
