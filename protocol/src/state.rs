//! Statuses and the reasons that go with them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task stands. Each status says who moves the task on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Status {
    /// Ready now; a worker's claim moves it on.
    Pending,
    /// Not before `run_at`; the promoter moves it to `pending` then, or `execute` does at once.
    Scheduled,
    /// Leased to a worker, which settles it; the sweeper takes it back when the lease or the attempt runs out.
    Processing,
    /// Final: the work is done and its result is kept.
    Completed,
    /// Final: no attempt is left, or the worker said not to retry.
    Failed,
    /// Final: cancelled before it was done.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a task's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Scheduled, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether only `execute` leads out of it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name it has on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a task is `scheduled` or `failed`; tasks in other statuses have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reason {
    /// `scheduled`: its `run_at` lies in the future.
    Delayed,
    /// `scheduled`: an attempt failed and the next one waits for its backoff.
    Retry,
    /// `failed`: the worker said not to retry.
    Error,
    /// `failed`: the last attempt failed.
    Exhausted,
    /// `failed`: its lease ran out too often, or on the last attempt.
    Lost,
    /// `failed`: the last attempt ran past `timeout_seconds`.
    Timeout,
}
