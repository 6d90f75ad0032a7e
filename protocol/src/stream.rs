//! Watching tasks: the messages of event streams, and the tokens that open them.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::json::Json;
use crate::report::{Progress, TaskError};
use crate::rules::is_task_type;
use crate::state::{Reason, Status};
use crate::{key, timestamp, words};

/// How long a stream token is good where nobody says otherwise, in seconds.
pub const STREAM_TOKEN_SECONDS: i64 = 600;
/// The longest that one may be good, in seconds.
pub const MAX_STREAM_TOKEN_SECONDS: i64 = 3600;

words! {
    /// What a message of a stream tells.
    pub enum StreamEventType {
        /// Where the task stands: the first message of a fresh stream of a task.
        TaskSnapshot = "task_snapshot",
        /// It was created.
        TaskCreated = "task_created",
        /// It was edited, has become ready, or its owner wanted it now or again.
        TaskUpdated = "task_updated",
        /// An attempt has begun.
        TaskStarted = "task_started",
        /// The worker reported progress.
        ProgressUpdate = "progress_update",
        /// An attempt failed, and the next one waits.
        TaskRetrying = "task_retrying",
        /// The worker gave the task back.
        TaskReleased = "task_released",
        /// The lease ran out.
        TaskLost = "task_lost",
        /// Its owner asked for its cancellation, which its worker is told.
        TaskCancelRequested = "task_cancel_requested",
        /// The end: the work is done.
        TaskCompleted = "task_completed",
        /// The end: no attempt is left.
        TaskFailed = "task_failed",
        /// The end: it was cancelled.
        TaskCancelled = "task_cancelled",
        /// The end: it was deleted.
        TaskDeleted = "task_deleted",
        /// What happened before is not known any more.
        StreamGap = "stream_gap",
    }
}

#[cfg(feature = "openapi")]
crate::word_schema!(StreamEventType);

impl StreamEventType {
    /// Whether the stream of a task ends with it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::TaskCompleted | Self::TaskFailed | Self::TaskCancelled | Self::TaskDeleted)
    }
}

/// A message about a task, as its `data:` line has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamMessage {
    /// What it tells.
    pub event_type: StreamEventType,
    /// The task.
    pub task_id: Uuid,
    /// The task's type.
    pub task_type: String,
    /// The task's version after the change.
    pub seq: u64,
    /// When it changed.
    #[serde(with = "timestamp")]
    pub timestamp: DateTime<Utc>,
    /// What there is to say beside; the result, exactly as sent, of a `task_completed` on the stream of the task.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub data: Json,
}

/// The data of a `task_snapshot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSnapshot {
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
    /// When its cancellation was asked for.
    #[serde(default, with = "timestamp::option")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
}

/// Body of `POST /tasks/{id}/stream-token`; it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewStreamToken {
    /// How long the token is good, in seconds: 1–3 600, default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = MAX_STREAM_TOKEN_SECONDS))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3600))]
    pub expires_in_seconds: Option<i64>,
}

/// Body of `POST /stream-token`; it may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewTenantStreamToken {
    /// Only tasks of one of these types, 32 at most; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 32), inner(inner(custom(is_task_type))))]
    #[cfg_attr(feature = "openapi", schema(max_items = 32))]
    pub task_type: Option<Vec<String>>,
    /// Only tasks of one of these end users, 32 at most; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 32), inner(inner(custom(is_user_id))))]
    #[cfg_attr(feature = "openapi", schema(max_items = 32))]
    pub user_id: Option<Vec<String>>,
    /// How long the token is good, in seconds: 1–3 600, default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 1, max = MAX_STREAM_TOKEN_SECONDS))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3600))]
    pub expires_in_seconds: Option<i64>,
}

/// A URL that opens one stream without a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamToken {
    /// The path of the stream, with the token in it.
    pub stream_url: String,
    /// Until when it opens the stream.
    #[serde(with = "timestamp")]
    pub expires_at: DateTime<Utc>,
}

impl std::fmt::Debug for StreamToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_user_id(user: &str, _: &()) -> garde::Result {
    key::visible_ascii(user, 255).map_err(garde::Error::new)
}
