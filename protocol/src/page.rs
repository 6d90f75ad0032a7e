//! Lists and batches.

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::json::Json;
use crate::state::Status;
use crate::task::Task;

/// Most items that one batch may have.
pub const MAX_BATCH: usize = 1000;
/// Most bytes that the body of a batch may have.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// Most ids that one list may name.
pub const MAX_LISTED_IDS: usize = 100;

/// Answer of `GET /tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskPage {
    /// Without `request` and `result`, unless `include=payload` was given.
    pub tasks: Vec<Task>,
    /// Give it back as `cursor` for the next page; `null` at the end. A page may be short, or empty, and have one.
    pub next_cursor: Option<String>,
    /// The status that was listed because none was named: `pending`. Absent where the query says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<Status>>,
}

/// Body of `POST /tasks/batch`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskBatch {
    /// Up to 1000, each a [`NewTask`](crate::NewTask); one that breaks a rule is that item's problem.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::NewTask>, max_items = 1000))]
    pub tasks: Vec<Json>,
}

/// Answer of `POST /tasks/batch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// One for each task, in order.
    pub results: Vec<BatchItem>,
}

/// What became of one task of a batch: one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchItem {
    /// It was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// It was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}
