//! Health answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

/// A dependency as it was found just now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dependency {
    /// `healthy` or `unavailable`.
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
    /// `healthy`, `starting` or `failing`.
    pub status: String,
    /// How long its last round took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// How far behind the oldest thing it had to do was, in milliseconds.
    pub lag_ms: Option<f64>,
    /// How long ago it last finished a round, in milliseconds.
    pub last_success_ms_ago: Option<f64>,
}
