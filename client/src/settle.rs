//! Settling many tasks in one call.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use task_repo_protocol::{Claim, Json, OutcomeResult, Receipt, path};

use crate::claimed::ClaimedTask;
use crate::claiming::with_claim_id;
use crate::client::TaskClient;
use crate::decode::ClaimedTasks;
use crate::error::{ClientError, Result};
use crate::request::ApiRequest;
use crate::retry::Repeat;
use crate::transport::ApiResponse;

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

/// One settlement of many was refused, or what the service says of it cannot be read.
#[derive(Debug)]
pub struct RefusedSettlement {
    /// Why.
    pub error: ClientError,
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
    /// When the call fails as a whole; it then gives the settlements back. A proxy may take less in one call than the
    /// service, which takes 16 MiB: after status 413 give fewer at once.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        next: Option<Claim>,
    ) -> Result<Settled, UnsettledError> {
        let sent = async {
            let outcomes: Vec<Json> = settlements.iter().map(Settlement::outcome).collect::<Result<_>>()?;
            self.send_outcomes(&outcomes, next.map(with_claim_id).as_ref()).await
        };
        match sent.await {
            Ok((results, tasks)) => {
                let next = tasks.reported(self).await;
                let results = settlements.into_iter().zip(results).map(|(settlement, result)| {
                    result.map_err(|error| Box::new(RefusedSettlement { error, settlement }))
                });
                Ok(Settled { results: results.collect(), next })
            }
            Err(error) => Err(UnsettledError { error, settlements }),
        }
    }

    /// Sends outcomes that are JSON already, and reads what the service says of each. What cannot be read of the next work
    /// is still to be reported.
    pub(crate) async fn send_outcomes(
        &self,
        outcomes: &[Json],
        claim: Option<&Claim>,
    ) -> Result<(Vec<Result<Receipt>>, ClaimedTasks)> {
        let wait = claim.and_then(|claim| claim.wait_ms).map_or(Duration::ZERO, Duration::from_millis);
        let request = ApiRequest::post(path::TASKS_OUTCOMES, Repeat::UntilSettled)
            .json(&OutcomesBody { outcomes, claim })?
            .waiting(wait);
        let read = |answer: ApiResponse| {
            let answer: UndecodedOutcomes = answer.json()?;
            if answer.results.len() != outcomes.len() {
                return Err(ClientError::incomplete_item(path::TASKS_OUTCOMES, "receipt", "problem"));
            }
            // Each by itself: one that cannot be read must not cost the others, nor the tasks beside them.
            let results = answer.results.iter().map(receipt).collect();
            Ok((results, ClaimedTasks::decode(self, path::TASKS_OUTCOMES, &answer.tasks)))
        };
        self.transport.send_and_read(request, read).await
    }
}

/// [`Outcomes`](task_repo_protocol::Outcomes), borrowed.
#[derive(Serialize)]
struct OutcomesBody<'a> {
    outcomes: &'a [Json],
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a Claim>,
}

/// [`OutcomesAnswer`](task_repo_protocol::OutcomesAnswer), with its items not yet decoded.
#[derive(Deserialize)]
struct UndecodedOutcomes {
    results: Vec<Json>,
    tasks: Vec<Json>,
}

/// The receipt of an outcome, or why there is none.
fn receipt(result: &Json) -> Result<Receipt> {
    let call = path::TASKS_OUTCOMES;
    let result = result.to::<OutcomeResult>().map_err(|source| ClientError::Decode { call, source })?;
    match (result.receipt, result.problem) {
        (Some(receipt), _) => Ok(receipt),
        (None, Some(problem)) => Err(ClientError::Refused(Box::new(problem))),
        (None, None) => Err(ClientError::incomplete_item(call, "receipt", "problem")),
    }
}
