//! THE state machine: which verb leads from which status to which, and what it changes. Pure: no I/O, no clock, no
//! randomness; whoever calls brings the time and the tokens.
//!
//! [`TRANSITIONS`] is the one table. [`apply`] refuses whatever it does not list, before the change and after it, and the
//! store turns what [`apply`] changed into one guarded update. `docs/lifecycle.md` is made of the table.

mod apply;
mod attempt;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod document;
mod expire;
mod moved;
mod operate;
mod retry;
mod settle;
mod table;
#[cfg(test)]
mod undone;

use chrono::{DateTime, Utc};
use task_repo_protocol::SelfManagedStatus;
use task_repo_protocol::{Execute, ProgressUpdate, Receipt, Retry, TaskEdit, Uuid};

use crate::task::{AttemptEnd, ErrorRecord, LimitsRecord, Status, UsageRecord};

pub use apply::apply;
pub(crate) use moved::move_of;
pub use retry::{backoff, rest_seconds};
pub use table::{TRANSITIONS, Transition, Verb};

/// How many lost leases a task survives where nobody says otherwise.
pub const DEFAULT_MAX_LOSSES: u32 = 3;
/// How many attempts a task has where nobody says otherwise.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
/// How long a lease holds where nobody says otherwise, in seconds.
pub const DEFAULT_LEASE_SECONDS: u32 = 60;
/// How long an attempt may take where nobody says otherwise, in seconds.
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 300;

/// A verb with what it needs to know.
#[derive(Debug, Clone)]
pub enum Intent {
    /// See [`Verb::Claim`].
    Claim(Grant),
    /// See [`Verb::Heartbeat`].
    Heartbeat {
        /// Shown by the worker.
        token: Uuid,
        /// How long the lease holds from now; `None`: as long as it did.
        lease_seconds: Option<u32>,
        /// What changed of the progress.
        progress: Option<ProgressUpdate>,
        /// What it leaves for the next attempt.
        checkpoint: CheckpointChange,
    },
    /// See [`Verb::Repeat`].
    Repeat {
        /// To be shown by the worker.
        token: Uuid,
    },
    /// See [`Verb::Complete`].
    Complete {
        /// Shown by the worker.
        token: Uuid,
        /// JSON text.
        result: Option<String>,
        /// Where the result is kept, if elsewhere.
        result_id: Option<String>,
        /// What the attempt used.
        usage: UsageRecord,
    },
    /// See [`Verb::Fail`].
    Fail {
        /// Shown by the worker.
        token: Uuid,
        /// What went wrong.
        failure: AttemptFailure,
        /// What it leaves for the next attempt.
        checkpoint: CheckpointChange,
        /// What the attempt used.
        usage: UsageRecord,
    },
    /// See [`Verb::Release`].
    Release {
        /// Shown by the worker.
        token: Uuid,
        /// How long nobody should claim it, in seconds; `None`: as [`rest_seconds`] says.
        delay_seconds: Option<u32>,
        /// What it leaves for the next attempt.
        checkpoint: CheckpointChange,
    },
    /// See [`Verb::Withdraw`].
    Withdraw {
        /// Never shown to anybody.
        token: Uuid,
    },
    /// See [`Verb::AcknowledgeCancel`].
    AcknowledgeCancel {
        /// Shown by the worker.
        token: Uuid,
    },
    /// See [`Verb::Expire`].
    Expire {
        /// For the backoff of an attempt that timed out: −1 to 1.
        jitter: f64,
        /// How many lost leases the task survives.
        max_losses: u32,
    },
    /// See [`Verb::Promote`].
    Promote,
    /// See [`Verb::Cancel`].
    Cancel,
    /// See [`Verb::Execute`].
    Execute(Box<Execute>),
    /// See [`Verb::Edit`].
    Edit {
        /// The fields to change.
        edit: Box<TaskEdit>,
        /// The limits of a task of this type that says nothing of its own: what `null` sets.
        defaults: Box<LimitsRecord>,
        /// The versions it holds for; `None`: any.
        if_match: Option<Vec<i64>>,
    },
    /// See [`Verb::Delete`].
    Delete {
        /// Also under a worker's lease, which is revoked.
        force: bool,
    },
    /// See [`Verb::Begin`] and [`Verb::End`].
    SelfManaged {
        /// Where the task goes.
        status: SelfManagedStatus,
        /// JSON text.
        result: Option<String>,
        /// Where the result is kept, if elsewhere.
        result_id: Option<String>,
        /// What went wrong, with `failed`.
        error_message: Option<String>,
        /// Names the attempt.
        execution_id: Uuid,
        /// The versions it holds for; `None`: any.
        if_match: Option<Vec<i64>>,
    },
}

/// What becomes of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CheckpointChange {
    /// It stays.
    #[default]
    None,
    /// It is removed.
    Removed,
    /// This takes its place: JSON text.
    Kept(String),
}

/// A lease to be given.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The token that the holder will have to show.
    pub token: Uuid,
    /// Names the attempt.
    pub execution_id: Uuid,
    /// The worker's own name for itself.
    pub worker_id: String,
    /// How long the lease holds; `None`: as the task says.
    pub lease_seconds: Option<u32>,
    /// Hash of the claim's id and caller.
    pub claim_id: Option<Vec<u8>>,
}

/// Why an attempt failed, and what is to follow.
#[derive(Debug, Clone)]
pub struct AttemptFailure {
    /// What went wrong.
    pub error: ErrorRecord,
    /// Whether to try again.
    pub retry: Retry,
    /// When to try again, instead of the task's backoff.
    pub retry_after_seconds: Option<u32>,
    /// For the backoff: −1 to 1.
    pub jitter: f64,
}

impl Intent {
    /// What is done.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Claim(_) => Verb::Claim,
            Self::Heartbeat { .. } => Verb::Heartbeat,
            Self::Repeat { .. } => Verb::Repeat,
            Self::Complete { .. } => Verb::Complete,
            Self::Fail { .. } => Verb::Fail,
            Self::Release { .. } => Verb::Release,
            Self::Withdraw { .. } => Verb::Withdraw,
            Self::AcknowledgeCancel { .. } => Verb::AcknowledgeCancel,
            Self::Expire { .. } => Verb::Expire,
            Self::Promote => Verb::Promote,
            Self::Cancel => Verb::Cancel,
            Self::Execute(_) => Verb::Execute,
            Self::Edit { .. } => Verb::Edit,
            Self::Delete { .. } => Verb::Delete,
            Self::SelfManaged { status: SelfManagedStatus::Processing, .. } => Verb::Begin,
            Self::SelfManaged { .. } => Verb::End,
        }
    }

    /// The lease token shown, where the verb needs one.
    pub fn token(&self) -> Option<Uuid> {
        match self {
            Self::Heartbeat { token, .. }
            | Self::Repeat { token }
            | Self::Complete { token, .. }
            | Self::Fail { token, .. }
            | Self::Release { token, .. }
            | Self::Withdraw { token }
            | Self::AcknowledgeCancel { token } => Some(*token),
            _ => None,
        }
    }

    /// How many bytes of payload it brings.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Complete { result, .. } | Self::SelfManaged { result, .. } => {
                result.as_ref().map_or(0, String::len)
            }
            Self::Edit { edit, .. } => edit.request.iter().flatten().map(|json| json.as_str().len()).sum(),
            _ => 0,
        }
    }

    /// Whether the task's payloads must be at hand: they are edited, handed out, or part of the answer.
    pub fn needs_payload(&self) -> bool {
        matches!(self, Self::Edit { .. } | Self::Claim(_) | Self::SelfManaged { .. })
    }
}

/// The effect of a verb that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The task has changed.
    Changed,
    /// The task is as it was, but has to be written once more: the new stamp keeps a write that is still in flight from
    /// matching.
    Fenced,
    /// The same was done before; this is what was answered then.
    Repeated(Receipt),
}

/// Why a verb was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The task's status does not allow it.
    WrongState(Status),
    /// The token does not hold the task.
    LeaseLost {
        /// Where the task stands.
        status: Status,
        /// Its latest attempt.
        attempt: u32,
        /// How the token's own attempt ended, where it was one of the task's.
        ended: Option<AttemptEnd>,
    },
    /// `If-Match` does not hold.
    VersionConflict(i64),
    /// Request, template, metadata and result would pass 1 MiB together.
    TooLarge,
    /// Its time has not come: the lease was renewed, or the due time moved.
    NotDue,
    /// The change would end where the table does not lead: a defect.
    Unlisted,
}

/// What `apply` brings to every verb.
pub(crate) type Now = DateTime<Utc>;
