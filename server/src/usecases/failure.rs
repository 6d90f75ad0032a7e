//! Why the service does not do what it was asked to. Knows nothing of HTTP.

use task_repo_protocol::{Status, Uuid};

use super::advice;
use crate::lifecycle::{Refusal, Verb};
use crate::store::{NotApplied, StoreError};
use crate::task::AttemptEnd;
use crate::telemetry::masked;

/// Why the service does not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No such task, or not the caller's.
    #[error("{}", advice::no_task(.0))]
    TaskNotFound(String),
    /// It is not among the tasks that cannot be read, because it can.
    #[error("this server can read the task: GET and DELETE /tasks/{0} are for it")]
    NotUnreadable(String),
    /// No task has that result.
    #[error("no task has produced the result {0}")]
    ResultNotFound(String),
    /// No such key.
    #[error("there is no key {0}")]
    KeyNotFound(String),
    /// The task is not `pending`.
    #[error("{}", advice::not_claimable(*status))]
    NotClaimable {
        /// The task.
        id: Uuid,
        /// Where it stands.
        status: Status,
    },
    /// The task's status does not allow it.
    #[error("{}", advice::forbidden(*verb, *status))]
    InvalidTransition {
        /// The task.
        id: Uuid,
        /// What was asked for.
        verb: Verb,
        /// Where it stands.
        status: Status,
    },
    /// The token does not hold the task.
    #[error("{}", advice::lease_lost(*status, *attempt))]
    LeaseLost {
        /// The task.
        id: Uuid,
        /// Where it stands.
        status: Status,
        /// Its latest attempt.
        attempt: u32,
        /// How the token's own attempt ended, where it was one of the task's.
        ended: Option<AttemptEnd>,
    },
    /// `If-Match` does not hold.
    #[error(
        "the task is at version {version}, which If-Match does not name: read it again and send its ETag"
    )]
    VersionConflict {
        /// The task.
        id: Uuid,
        /// Its version.
        version: i64,
    },
    /// A limit is reached.
    #[error("{}", advice::limit_exceeded(limit_type, *limit, *current))]
    LimitExceeded {
        /// Which one.
        limit_type: &'static str,
        /// How much is allowed.
        limit: u64,
        /// How much there is.
        current: u64,
    },
    /// The task would pass 1 MiB.
    #[error("request, template, metadata and result of a task may have 1 MiB of JSON text together")]
    TooLarge,
    /// The key is limited to other task types.
    #[error("the API key may not use the task type {0}: its task_types do not name it")]
    TypeForbidden(String),
    /// The caller acts for another user.
    #[error(
        "user_id differs from X-User-ID, the user on whose behalf the call is made: leave one of them out"
    )]
    UserForbidden,
    /// The idempotency key came with another body before.
    #[error(
        "the idempotency key was used with another body or path within the last 24 hours: send what was sent then, or \
         another key"
    )]
    IdempotencyKeyReused {
        /// The task that has the key, where the caller may see it.
        id: Option<Uuid>,
    },
    /// A defect of the service.
    #[error("the service failed")]
    Defect,
    /// The database could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Most characters of an id that an answer repeats: what is no id may be of any length.
const MAX_ID: usize = 64;

impl Failure {
    /// There is no task of that id, or it is none.
    pub fn no_task(id: &str) -> Self {
        Self::TaskNotFound(shortened(id, MAX_ID))
    }

    /// There is no key of that id, or it is none.
    pub fn no_key(id: &str) -> Self {
        Self::KeyNotFound(shortened(id, MAX_ID))
    }

    /// No task has that result.
    pub fn no_result(id: &str) -> Self {
        Self::ResultNotFound(shortened(id, MAX_ID))
    }

    /// Why a change of that task was refused.
    pub(super) fn of(id: Uuid, verb: Verb, refused: &NotApplied) -> Self {
        match *refused {
            NotApplied::Missing => Self::TaskNotFound(id.to_string()),
            NotApplied::Store(error) => Self::Store(error),
            NotApplied::Task(Refusal::WrongState(status)) if verb == Verb::Claim => {
                Self::NotClaimable { id, status: status.into() }
            }
            NotApplied::Task(Refusal::WrongState(status)) => {
                Self::InvalidTransition { id, verb, status: status.into() }
            }
            NotApplied::Task(Refusal::LeaseLost { status, attempt, ended }) => {
                Self::LeaseLost { id, status: status.into(), attempt, ended }
            }
            NotApplied::Task(Refusal::VersionConflict(version)) => Self::VersionConflict { id, version },
            NotApplied::Task(Refusal::TooLarge) => Self::TooLarge,
            // Only the background jobs ask for what is due, and they do not report.
            NotApplied::Task(Refusal::NotDue) => {
                Self::InvalidTransition { id, verb, status: Status::Processing }
            }
            NotApplied::Task(Refusal::Unlisted) => {
                tracing::error!(
                    ?verb,
                    task = masked(&id.to_string()),
                    "a change ends where the table does not lead"
                );
                Self::Defect
            }
        }
    }
}

/// What a caller sent, as an answer repeats it: so many characters of it at most.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
