//! Settling many tasks in one call.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use task_repo_protocol::{Claim, Json, OutcomeResult, Outcomes, Problem, Receipt, path};

use crate::claimed::ClaimedTask;
use crate::claiming::with_claim_id;
use crate::client::TaskClient;
use crate::decode::ClaimedTasks;
use crate::error::{ClientError, Result};
use crate::request::ApiRequest;
use crate::retry::Repeat;

pub use crate::claimed::Settlement;
pub use crate::ending::{Completion, Ending};

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
        let (results, tasks) = self.settle_and_claim(settlements, next).await?;
        Ok(Settled { results, next: tasks.reported(self).await })
    }

    /// Settles as [`TaskClient::settle`] does; what cannot be read of the next work is still to be reported.
    pub(crate) async fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        next: Option<Claim>,
    ) -> Result<(Vec<Result<Receipt, Box<RefusedSettlement>>>, ClaimedTasks), UnsettledError> {
        match self.send_outcomes(&settlements, next).await {
            Ok((results, tasks)) => {
                let results = settlements
                    .into_iter()
                    .zip(results)
                    .map(|(settlement, result)| {
                        result.map_err(|problem| Box::new(RefusedSettlement { problem, settlement }))
                    })
                    .collect();
                Ok((results, tasks))
            }
            Err(error) => Err(UnsettledError { error, settlements }),
        }
    }

    async fn send_outcomes(
        &self,
        settlements: &[Settlement],
        next: Option<Claim>,
    ) -> Result<(Vec<Result<Receipt, Box<Problem>>>, ClaimedTasks)> {
        let outcomes = settlements
            .iter()
            .map(|settlement| {
                let Settlement { claimed, ending } = settlement;
                let outcome = ending.clone().outcome(claimed.id(), claimed.lease_token().to_owned());
                Json::of(&outcome)
            })
            .collect::<Result<_, _>>()
            .map_err(ClientError::Encode)?;
        let wait =
            next.as_ref().and_then(|claim| claim.wait_ms).map_or(Duration::ZERO, Duration::from_millis);
        let request = ApiRequest::post(path::TASKS_OUTCOMES, Repeat::Always)
            .json(&Outcomes { outcomes, claim: next.map(with_claim_id) })?
            .waiting(wait);
        let answer: UndecodedOutcomes = self.send(request).await?.json()?;
        if answer.results.len() != settlements.len() {
            return Err(ClientError::incomplete_item(path::TASKS_OUTCOMES, "receipt", "problem"));
        }
        let results = answer.results.into_iter().map(receipt_or_problem).collect::<Result<_>>()?;
        Ok((results, ClaimedTasks::decode(self, path::TASKS_OUTCOMES, &answer.tasks)))
    }
}

/// [`OutcomesAnswer`](task_repo_protocol::OutcomesAnswer), with its tasks not yet decoded.
#[derive(Deserialize)]
struct UndecodedOutcomes {
    results: Vec<OutcomeResult>,
    tasks: Vec<Json>,
}

/// The receipt or the problem of an outcome.
fn receipt_or_problem(result: OutcomeResult) -> Result<Result<Receipt, Box<Problem>>> {
    match (result.receipt, result.problem) {
        (Some(receipt), _) => Ok(Ok(receipt)),
        (None, Some(problem)) => Ok(Err(Box::new(problem))),
        (None, None) => Err(ClientError::incomplete_item(path::TASKS_OUTCOMES, "receipt", "problem")),
    }
}
