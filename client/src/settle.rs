//! How work ends, and settling many tasks in one call.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use task_repo_protocol::{
    Claim, Json, Outcome, OutcomeKind, OutcomeResult, Outcomes, Problem, Receipt, UsageReport, path,
};

use crate::call::Call;
use crate::claimed::ClaimedTask;
use crate::claiming::named;
use crate::client::TaskClient;
use crate::error::{ClientError, Result};
use crate::failure::{TaskFailure, whole_seconds};
use crate::retry::Repeat;
use crate::taken::Taken;
use crate::tasks::neither;

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
}

/// A failure that is [`TaskFailure::cancelled`] acknowledges the cancellation.
impl From<TaskFailure> for Ending {
    fn from(failure: TaskFailure) -> Self {
        if failure.is_cancelled() { Self::Cancelled } else { Self::Failed(failure) }
    }
}

/// A claimed task and how work on it ends, not yet reported. Dropped, it ends when the lease does.
#[derive(Debug)]
#[must_use = "nothing is reported until it is given to TaskClient::settle"]
pub struct Settlement {
    /// The task.
    pub claimed: ClaimedTask,
    /// How it ends.
    pub ending: Ending,
}

/// What settling many tasks brought.
#[derive(Debug)]
pub struct Settled {
    /// One for each settlement, in order; what was refused comes back.
    pub results: Vec<Result<Receipt, Box<RefusedSettlement>>>,
    /// The next work, if any was asked for.
    pub next: Vec<ClaimedTask>,
}

/// One settlement of many was refused.
#[derive(Debug)]
pub struct RefusedSettlement {
    /// Why.
    pub problem: Box<Problem>,
    /// What was refused.
    pub settlement: Settlement,
}

/// The call that should have settled many tasks failed as a whole.
pub struct UnsettledError {
    /// Why.
    pub error: ClientError,
    /// What is still to be settled. Giving it to [`TaskClient::settle`] again is safe.
    pub settlements: Vec<Settlement>,
}

impl fmt::Debug for UnsettledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsettledError")
            .field("error", &self.error)
            .field("settlements", &self.settlements.len())
            .finish()
    }
}

impl fmt::Display for UnsettledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks could not be settled", self.settlements.len())
    }
}

impl std::error::Error for UnsettledError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<UnsettledError> for ClientError {
    fn from(unsettled: UnsettledError) -> Self {
        unsettled.error
    }
}

/// Settling many.
impl TaskClient {
    /// Settles up to 1000 tasks in one call and, with `next`, brings the next work in the same one.
    ///
    /// Repetitions carry the lease tokens and the claim id (made by the client, unless `next` has one), so nothing is
    /// settled or claimed twice. Of the next work, what cannot be read is reported as [`TaskClient::claim`] does.
    ///
    /// # Errors
    /// When the call fails as a whole; it then gives the settlements back.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        next: Option<Claim>,
    ) -> Result<Settled, UnsettledError> {
        let (results, taken) = self.settle_and_take(settlements, next).await?;
        Ok(Settled { results, next: taken.reported(self).await })
    }

    /// Settles as [`TaskClient::settle`] does; what cannot be read of the next work is still to be reported.
    pub(crate) async fn settle_and_take(
        &self,
        settlements: Vec<Settlement>,
        next: Option<Claim>,
    ) -> Result<(Vec<Result<Receipt, Box<RefusedSettlement>>>, Taken), UnsettledError> {
        match self.send_outcomes(&settlements, next).await {
            Ok((results, taken)) => {
                let results = settlements
                    .into_iter()
                    .zip(results)
                    .map(|(settlement, result)| {
                        result.map_err(|problem| Box::new(RefusedSettlement { problem, settlement }))
                    })
                    .collect();
                Ok((results, taken))
            }
            Err(error) => Err(UnsettledError { error, settlements }),
        }
    }

    async fn send_outcomes(
        &self,
        settlements: &[Settlement],
        next: Option<Claim>,
    ) -> Result<(Vec<Result<Receipt, Box<Problem>>>, Taken)> {
        let outcomes = settlements
            .iter()
            .map(|settlement| Json::of(&outcome(settlement)))
            .collect::<Result<_, _>>()
            .map_err(ClientError::Encode)?;
        let wait =
            next.as_ref().and_then(|claim| claim.wait_ms).map_or(Duration::ZERO, Duration::from_millis);
        let call = Call::post(path::TASKS_OUTCOMES, Repeat::Always)
            .json(&Outcomes { outcomes, claim: next.map(named) })?
            .waiting(wait);
        let answer: Unread = self.answer_of(call).await?.json()?;
        if answer.results.len() != settlements.len() {
            return Err(neither(path::TASKS_OUTCOMES, "receipt", "problem"));
        }
        let results = answer.results.into_iter().map(one_of).collect::<Result<_>>()?;
        Ok((results, Taken::read(self, path::TASKS_OUTCOMES, &answer.tasks)))
    }
}

/// [`OutcomesAnswer`](task_repo_protocol::OutcomesAnswer), with its tasks unread.
#[derive(Deserialize)]
struct Unread {
    results: Vec<OutcomeResult>,
    tasks: Vec<Json>,
}

fn outcome(settlement: &Settlement) -> Outcome {
    let outcome = Outcome {
        id: settlement.claimed.id().to_string(),
        lease_token: settlement.claimed.lease_token().to_owned(),
        outcome: settlement.ending.kind(),
        result: None,
        result_id: None,
        error: None,
        retry: None,
        retry_after_seconds: None,
        delay_seconds: None,
        usage: None,
    };
    match &settlement.ending {
        Ending::Completed(Completion { result, result_id, usage }) => {
            Outcome { result: result.clone(), result_id: result_id.clone(), usage: *usage, ..outcome }
        }
        Ending::Failed(failure) => {
            let (retry, retry_after_seconds) = failure.retry_fields();
            Outcome {
                error: Some(failure.error().clone()),
                retry,
                retry_after_seconds,
                usage: failure.usage(),
                ..outcome
            }
        }
        Ending::Released { delay } => {
            Outcome { delay_seconds: Some(whole_seconds(*delay)).filter(|seconds| *seconds > 0), ..outcome }
        }
        Ending::Cancelled => outcome,
    }
}

/// An outcome's result as the one of two things that it is.
fn one_of(result: OutcomeResult) -> Result<Result<Receipt, Box<Problem>>> {
    match (result.receipt, result.problem) {
        (Some(receipt), _) => Ok(Ok(receipt)),
        (None, Some(problem)) => Ok(Err(Box::new(problem))),
        (None, None) => Err(neither(path::TASKS_OUTCOMES, "receipt", "problem")),
    }
}
