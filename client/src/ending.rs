//! How work on a task ends.

use std::time::Duration;

use serde::Serialize;
use task_repo_protocol::{Json, Outcome, OutcomeKind, UsageReport, Uuid};

use crate::error::{ClientError, Result};
use crate::failure::{TaskFailure, whole_seconds};

/// What came out of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The result itself, if it is to be kept with the task.
    pub result: Option<Json>,
    /// Where the result is kept, if elsewhere: 1–255 characters.
    pub result_id: Option<String>,
    /// What the attempt used.
    pub usage: Option<UsageReport>,
}

impl Completion {
    /// With `result` as the result.
    ///
    /// # Errors
    /// When `result` has no JSON form.
    pub fn of<T: Serialize + ?Sized>(result: &T) -> Result<Self> {
        let result = Json::of(result).map_err(ClientError::Encode)?;
        Ok(Self { result: Some(result), ..Self::default() })
    }
}

/// How work on a task ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// With a result: the task is `completed`.
    Completed(Completion),
    /// Without one: the task is tried again or `failed`.
    Failed(TaskFailure),
    /// Given back: the attempt does not count. Nobody claims the task for `delay`, in whole seconds, rounded up. Without a
    /// delay (zero) the first two releases in a row put the task back in its place; from the third on it waits 1, 2, 4 …
    /// up to 60 seconds.
    Released {
        /// How long the task rests.
        delay: Duration,
    },
    /// The cancellation that was asked for is acknowledged: the task is `cancelled`.
    Cancelled,
}

impl Ending {
    /// The name it has on the wire.
    pub(crate) const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Completed(_) => OutcomeKind::Completed,
            Self::Failed(_) => OutcomeKind::Failed,
            Self::Released { .. } => OutcomeKind::Released,
            Self::Cancelled => OutcomeKind::Cancelled,
        }
    }

    /// The outcome of the task with that id and lease.
    pub(crate) fn outcome(self, id: Uuid, lease_token: String) -> Outcome {
        let outcome = Outcome {
            id: id.to_string(),
            lease_token,
            outcome: self.kind(),
            result: None,
            result_id: None,
            error: None,
            retry: None,
            retry_after_seconds: None,
            delay_seconds: None,
            usage: None,
        };
        match self {
            Self::Completed(Completion { result, result_id, usage }) => {
                Outcome { result, result_id, usage, ..outcome }
            }
            Self::Failed(failure) => {
                let (retry, retry_after_seconds) = failure.retry_fields();
                let (error, usage) = (Some(failure.error().clone()), failure.usage());
                Outcome { error, retry, retry_after_seconds, usage, ..outcome }
            }
            Self::Released { delay } => {
                let delay_seconds = Some(whole_seconds(delay)).filter(|seconds| *seconds > 0);
                Outcome { delay_seconds, ..outcome }
            }
            Self::Cancelled => outcome,
        }
    }
}

/// A failure that is [`TaskFailure::cancelled`] acknowledges the cancellation.
impl From<TaskFailure> for Ending {
    fn from(failure: TaskFailure) -> Self {
        if failure.is_cancelled() { Self::Cancelled } else { Self::Failed(failure) }
    }
}
