//! What a worker logs about a task.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::timestamp;
use crate::word::known;
use crate::words;

/// Most lines of a call.
pub const MAX_LINES: usize = 100;
/// How many of the newest lines of a task are kept.
pub const MAX_KEPT_LINES: usize = 1000;
/// How much message text of the newest lines of a task is kept, in bytes.
pub const MAX_KEPT_BYTES: usize = 1 << 20;

words! {
    /// How much a line matters.
    #[derive(Default)]
    pub enum LogLevel {
        /// For whoever looks for the cause of something.
        Debug = "debug",
        /// What happened.
        #[default]
        Info = "info",
        /// Something is not as it should be.
        Warn = "warn",
        /// Something went wrong.
        Error = "error",
    }
}

#[cfg(feature = "openapi")]
crate::word_schema!(LogLevel);

/// Body of `POST /tasks/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewLogLines {
    /// From the claim. That of an attempt that has ended is good for another minute.
    #[garde(skip)]
    pub lease_token: String,
    /// 1–100.
    #[garde(length(min = 1, max = MAX_LINES), dive)]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 100))]
    pub lines: Vec<NewLogLine>,
}

/// A line to be logged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewLogLine {
    /// 1–8 192 characters.
    #[garde(length(chars, min = 1, max = 8192))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 8192))]
    pub message: String,
    /// Default `info`.
    #[serde(default, deserialize_with = "maybe_known", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::word::maybe_known_schema::<LogLevel>))]
    pub level: Option<LogLevel>,
    /// When it happened; default: when it arrives. Lines are in the order in which they arrive, whatever this says.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub at: Option<DateTime<Utc>>,
}

fn maybe_known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<LogLevel>, D::Error> {
    #[derive(Deserialize)]
    struct Level(#[serde(deserialize_with = "known")] LogLevel);
    Ok(Option::<Level>::deserialize(deserializer)?.map(|level| level.0))
}

/// Answer of `GET /tasks/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogPage {
    /// The oldest first.
    pub lines: Vec<LogLine>,
    /// Give it back as `cursor` for the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// A line that a worker has logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Grows with each line of the task; numbers may be left out.
    pub seq: u64,
    /// The number of the attempt that logged it.
    pub attempt: u32,
    /// How much it matters.
    pub level: LogLevel,
    /// As it was sent.
    pub message: String,
    /// When it happened.
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}
