//! The words that are stored. They are the store's own: what the wire says is made of them, and a word that only a newer
//! version knows is read, kept and shown as it is.

use task_repo_protocol as wire;
use task_repo_protocol::words;

use crate::same_words::same_words;

words! {
    /// Where a task stands.
    pub enum Status {
        /// Ready now.
        Pending = "pending",
        /// Not before its time.
        Scheduled = "scheduled",
        /// Not now, for another reason than time; the wire calls it `scheduled`. No job, no claim and no list of ready
        /// work looks at it: whoever holds a task lets it go.
        Held = "held",
        /// A worker has it, or a service runs it itself.
        Processing = "processing",
        /// Final: done.
        Completed = "completed",
        /// Final: no attempt is left.
        Failed = "failed",
        /// Final: ended before it was done.
        Cancelled = "cancelled",
    }
}

words! {
    /// Why a task is where it is.
    pub enum Reason {
        /// Its time lies ahead.
        Delayed = "delayed",
        /// An attempt failed and the next one waits for its backoff.
        Retry = "retry",
        /// The worker said not to retry.
        Error = "error",
        /// The last attempt failed.
        Exhausted = "exhausted",
        /// Its lease ran out too often, or on the last attempt.
        Lost = "lost",
        /// The last attempt ran past its timeout.
        Timeout = "timeout",
    }
}

words! {
    /// How an attempt ended, or that it goes on.
    pub enum AttemptStatus {
        /// It goes on.
        Processing = "processing",
        /// It brought the result.
        Completed = "completed",
        /// It failed.
        Failed = "failed",
        /// The worker gave the task back.
        Released = "released",
        /// The lease ran out.
        Lost = "lost",
        /// It ran past its timeout.
        Timeout = "timeout",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// It never reached its caller and counts for nothing. It is kept for its versions and shown to nobody.
        Withdrawn = "withdrawn",
    }
}

words! {
    /// What started an attempt.
    pub enum Trigger {
        /// A claim.
        Claim = "claim",
        /// A claim after an earlier attempt had failed or been lost.
        Retry = "retry",
        /// A claim after `execute`.
        Manual = "manual",
        /// A service that runs its own work.
        SelfManaged = "self_managed",
    }
}

words! {
    /// How the wait before the next attempt grows.
    pub enum Backoff {
        /// It doubles.
        Exponential = "exponential",
        /// By the base each time.
        Linear = "linear",
        /// Not at all.
        Fixed = "fixed",
    }
}

words! {
    /// What was done to a task, as it is told: its creation, or a verb of the lifecycle.
    pub enum MoveVerb {
        /// It was created.
        Create = "create",
        /// A worker took it.
        Claim = "claim",
        /// Its worker reported progress.
        Heartbeat = "heartbeat",
        /// Its claim was answered once more: no version of it, and never told.
        Repeat = "repeat",
        /// Its worker brought the result.
        Complete = "complete",
        /// Its worker gave the attempt up.
        Fail = "fail",
        /// Its worker gave it back.
        Release = "release",
        /// A claim was undone.
        Withdraw = "withdraw",
        /// Its worker acknowledged the cancellation.
        AcknowledgeCancel = "acknowledge_cancel",
        /// The lease or the attempt ran out.
        Expire = "expire",
        /// Its time came.
        Promote = "promote",
        /// Its owner asked for its cancellation.
        Cancel = "cancel",
        /// Its owner wanted it now, or again.
        Execute = "execute",
        /// Its owner changed fields.
        Edit = "edit",
        /// Its owner removed it.
        Delete = "delete",
        /// A service began its own work on it.
        Begin = "begin",
        /// A service ended its own work on it.
        End = "end",
    }
}

impl Status {
    /// Whether only `execute` leads out of it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// What is stored where the wire says `status`.
    pub fn of_wire(status: wire::Status) -> &'static [Self] {
        match status {
            wire::Status::Pending => &[Self::Pending],
            wire::Status::Scheduled => &[Self::Scheduled, Self::Held],
            wire::Status::Processing => &[Self::Processing],
            wire::Status::Completed => &[Self::Completed],
            wire::Status::Failed => &[Self::Failed],
            wire::Status::Cancelled => &[Self::Cancelled],
            wire::Status::Other(_) => &[],
        }
    }
}

impl From<Status> for wire::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Scheduled | Status::Held => Self::Scheduled,
            Status::Processing => Self::Processing,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
            Status::Other(word) => Self::Other(word),
        }
    }
}

same_words! {
    Reason => wire::Reason: Delayed, Retry, Error, Exhausted, Lost, Timeout;
    Trigger => wire::Trigger: Claim, Retry, Manual, SelfManaged;
    Backoff => wire::Backoff: Exponential, Linear, Fixed;
    wire::Backoff => Backoff: Exponential, Linear, Fixed;
}

impl From<AttemptStatus> for wire::ExecutionStatus {
    fn from(status: AttemptStatus) -> Self {
        match status {
            AttemptStatus::Processing => Self::Processing,
            AttemptStatus::Completed => Self::Completed,
            AttemptStatus::Failed => Self::Failed,
            // Not shown; if it were, as what it was like.
            AttemptStatus::Released | AttemptStatus::Withdrawn => Self::Released,
            AttemptStatus::Lost => Self::Lost,
            AttemptStatus::Timeout => Self::Timeout,
            AttemptStatus::Cancelled => Self::Cancelled,
            AttemptStatus::Other(word) => Self::Other(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_wire_is_stored_as_one_that_reads_the_same() {
        for status in wire::Status::ALL {
            let stored = Status::of_wire(*status);
            assert!(!stored.is_empty());
            assert!(stored.iter().all(|stored| wire::Status::from(*stored) == *status), "{status}");
        }
        assert!(Status::ALL.iter().all(|stored| Status::of_wire((*stored).into()).contains(stored)));
    }
}
