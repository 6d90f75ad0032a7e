//! Statuses of tasks and of attempts, and the reasons that go with them.

use crate::words;

words! {
    /// Where a task stands. Each status says who moves the task on.
    pub enum Status {
        /// Ready now; a worker's claim moves it on.
        Pending = "pending",
        /// Not yet; the promoter moves it to `pending` at `run_at`, or `execute` does at once.
        Scheduled = "scheduled",
        /// Leased to a worker, which settles it; the sweeper takes it back when the lease or the attempt runs out.
        Processing = "processing",
        /// Final: the work is done and its result is kept.
        Completed = "completed",
        /// Final: no attempt is left, or the worker said not to retry.
        Failed = "failed",
        /// Final: cancelled before it was done.
        Cancelled = "cancelled",
    }
}

impl Status {
    /// Whether only `execute` leads out of it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

words! {
    /// Why a task is `scheduled` or `failed`; tasks in other statuses have none.
    pub enum Reason {
        /// `scheduled`: its `run_at` lies in the future.
        Delayed = "delayed",
        /// `scheduled`: an attempt failed and the next one waits for its backoff.
        Retry = "retry",
        /// `failed`: the worker said not to retry.
        Error = "error",
        /// `failed`: the last attempt failed.
        Exhausted = "exhausted",
        /// `failed`: its lease ran out too often, or on the last attempt.
        Lost = "lost",
        /// `failed`: the last attempt ran past `timeout_seconds`.
        Timeout = "timeout",
    }
}

words! {
    /// How an attempt ended, or that it goes on.
    pub enum ExecutionStatus {
        /// It goes on.
        Processing = "processing",
        /// It brought the result.
        Completed = "completed",
        /// It failed.
        Failed = "failed",
        /// The worker gave the task back; the attempt does not count.
        Released = "released",
        /// The lease ran out.
        Lost = "lost",
        /// It ran past `timeout_seconds`.
        Timeout = "timeout",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
}

#[cfg(feature = "openapi")]
crate::word_schema!(Status, Reason, ExecutionStatus);
