//! How work on a task ends.

use std::time::Duration;

use serde::Serialize;
use task_repo_protocol::{Json, Outcome, OutcomeKind, Payload, UsageReport, Uuid};

use crate::error::{ClientError, Result};
use crate::failure::{TaskFailure, whole_seconds};

/// Most that one attempt can report of tokens and of calls.
const MAX_USAGE: i64 = 1_000_000_000_000_000;

/// What came out of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The result itself, if it is to be kept with the task.
    pub result: Option<Json>,
    /// Where the result is kept, if elsewhere: 1–255 characters. Another is left out, with a warning in the log.
    pub result_id: Option<String>,
    /// What the attempt used, each from 0 to 10^15. What is beyond is cut to that, with a warning in the log.
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

    /// The outcome of the task with that id and lease, as the service takes it. What goes with the result and would be
    /// refused is left out or changed, with a warning in the log, because the result must not be lost for it.
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
            checkpoint: Payload::Omitted,
        };
        match self {
            Self::Completed(Completion { result, result_id, usage }) => Outcome {
                result,
                result_id: result_id.filter(|result_id| is_result_id(id, result_id)),
                usage: usage.map(|usage| usage_within_limits(id, usage)),
                ..outcome
            },
            Self::Failed(failure) => {
                let (retry, retry_after_seconds) = failure.retry_fields();
                let usage = failure.usage().map(|usage| usage_within_limits(id, usage));
                Outcome { error: Some(failure.error().clone()), retry, retry_after_seconds, usage, ..outcome }
            }
            Self::Released { delay } => {
                let delay_seconds = Some(whole_seconds(delay)).filter(|seconds| *seconds > 0);
                Outcome { delay_seconds, ..outcome }
            }
            Self::Cancelled => outcome,
        }
    }
}

/// A failure that is [`TaskFailure::cancelled`] acknowledges the cancellation, one that is [`TaskFailure::release`] gives
/// the task back.
impl From<TaskFailure> for Ending {
    fn from(failure: TaskFailure) -> Self {
        match failure.release_delay() {
            Some(delay) => Self::Released { delay },
            None if failure.is_cancelled() => Self::Cancelled,
            None => Self::Failed(failure),
        }
    }
}

/// Whether the service takes it as the place of a result.
fn is_result_id(task_id: Uuid, result_id: &str) -> bool {
    let characters = result_id.chars().count();
    let fits = (1..=255).contains(&characters);
    if !fits {
        tracing::warn!(task.id = %task_id, characters, "a result id is left out: 1 to 255 characters are expected");
    }
    fits
}

/// The nearest usage that the service takes: each value from 0 to 10^15, and 0 for what is no number.
pub(crate) fn usage_within_limits(task_id: Uuid, usage: UsageReport) -> UsageReport {
    let UsageReport { credits_consumed, tokens_used, api_calls_made } = usage;
    let fitting = UsageReport {
        credits_consumed: if credits_consumed.is_nan() { 0.0 } else { credits_consumed.clamp(0.0, 1e15) },
        tokens_used: tokens_used.clamp(0, MAX_USAGE),
        api_calls_made: api_calls_made.clamp(0, MAX_USAGE),
    };
    if fitting != usage {
        tracing::warn!(task.id = %task_id, ?usage, reported = ?fitting, "a usage is changed: 0 to 10^15 is expected");
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(result_id: &str, usage: UsageReport) -> Outcome {
        let completion =
            Completion { result_id: Some(result_id.to_owned()), usage: Some(usage), ..Completion::default() };
        Ending::Completed(completion).outcome(Uuid::nil(), String::new())
    }

    #[test]
    fn what_goes_with_a_result_never_costs_it() {
        let most = UsageReport { credits_consumed: 1e15, tokens_used: MAX_USAGE, api_calls_made: MAX_USAGE };
        let fits = outcome("r", most);
        assert_eq!((fits.result_id.as_deref(), fits.usage), (Some("r"), Some(most)));

        let beyond =
            UsageReport { credits_consumed: f64::INFINITY, tokens_used: i64::MAX, api_calls_made: i64::MAX };
        assert_eq!(outcome("", beyond).usage, Some(most));
        let below = UsageReport { credits_consumed: f64::NAN, tokens_used: -1, api_calls_made: i64::MIN };
        assert_eq!(outcome("", below).usage, Some(UsageReport::default()));
        assert_eq!(
            outcome("", UsageReport { credits_consumed: -0.5, ..below }).usage,
            Some(UsageReport::default())
        );

        assert_eq!(outcome("", most).result_id, None);
        assert_eq!(outcome(&"é".repeat(255), most).result_id.map(|id| id.chars().count()), Some(255));
        assert_eq!(outcome(&"é".repeat(256), most).result_id, None);
    }

    #[test]
    fn a_failure_s_usage_is_reported_as_the_service_takes_it() {
        let usage = UsageReport { credits_consumed: f64::NAN, tokens_used: 3, api_calls_made: -3 };
        let outcome =
            Ending::Failed(TaskFailure::retry("").with_usage(usage)).outcome(Uuid::nil(), String::new());
        assert_eq!(outcome.usage, Some(UsageReport { tokens_used: 3, ..UsageReport::default() }));
    }
}
