//! Getting work, and what a worker then says about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use task_repo_protocol::claim::{ClaimOne, Heartbeats, HeartbeatsAnswer};
use task_repo_protocol::{Claim, HeartbeatItem, HeartbeatResult, Json, Receipt, Uuid, path};

use crate::claimed::{ClaimedTask, SettleError};
use crate::client::TaskClient;
use crate::decode::{self, ClaimedTasks};
use crate::error::{ClientError, Result};
use crate::failure::{TaskFailure, whole_seconds};
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// Getting work and reporting on it.
impl TaskClient {
    /// Claims up to `claim.limit` tasks, waiting up to `claim.wait_ms` for the first. Empty when there were none.
    ///
    /// Repetitions carry the claim id, made by the client unless `claim` has one, so no task is claimed twice.
    ///
    /// A task that cannot be read does not cost the others: before this returns without it, it is reported as failed with
    /// the code `invalid_answer` and logged. It is tried again while attempts are left.
    ///
    /// # Errors
    /// `validation_failed`, `forbidden` for a type that the key may not have; see [`ClientError`].
    pub async fn claim(&self, claim: &Claim) -> Result<Vec<ClaimedTask>> {
        Ok(self.claim_unreported(claim).await?.reported(self).await)
    }

    /// Claims as [`TaskClient::claim`] does; what cannot be read is still to be reported.
    pub(crate) async fn claim_unreported(&self, claim: &Claim) -> Result<ClaimedTasks> {
        let claim = with_claim_id(claim.clone());
        let wait = Duration::from_millis(claim.wait_ms.unwrap_or(0));
        let request = ApiRequest::post(path::TASKS_CLAIM, Repeat::Always).json(&claim)?.waiting(wait);
        let answer: UndecodedClaimed = self.send(request).await?.json()?;
        Ok(ClaimedTasks::decode(self, path::TASKS_CLAIM, &answer.tasks))
    }

    /// Claims one known task, for as long as the task says.
    ///
    /// Such a claim has no id: it is not repeated once it may have been applied. If it was, the lease runs out.
    ///
    /// # Errors
    /// `task_not_claimable` unless it is `pending`, `task_not_found`; see [`ClientError`]. With
    /// [`ClientError::Decode`] the task was claimed; it has been reported as failed with the code `invalid_answer`, if at
    /// least its lease token can be read.
    pub async fn claim_task(&self, id: Uuid, worker_id: &str) -> Result<ClaimedTask> {
        self.claim_one(id, ClaimOne { worker_id: worker_id.to_owned(), lease_seconds: None }).await
    }

    /// The same for as long as `lease` says, in whole seconds, rounded up, up to a day.
    ///
    /// # Errors
    /// As [`TaskClient::claim_task`].
    pub async fn claim_task_for(&self, id: Uuid, worker_id: &str, lease: Duration) -> Result<ClaimedTask> {
        let lease_seconds = Some(whole_seconds(lease));
        self.claim_one(id, ClaimOne { worker_id: worker_id.to_owned(), lease_seconds }).await
    }

    async fn claim_one(&self, id: Uuid, body: ClaimOne) -> Result<ClaimedTask> {
        let request =
            ApiRequest::post(path::TASK_CLAIM, Repeat::Unapplied).at(&id.to_string())?.json(&body)?;
        let task: Json = self.send(request).await?.json()?;
        match decode::task(self, path::TASK_CLAIM, &task) {
            Ok(claimed) => Ok(claimed),
            Err(mut undecodable) => {
                undecodable.id = Some(id);
                undecodable.report(self).await;
                Err(undecodable.error)
            }
        }
    }

    /// As [`ClaimedTask::complete`], through this client.
    ///
    /// # Errors
    /// As [`ClaimedTask::complete`].
    pub async fn complete_task<T: Serialize + ?Sized>(
        &self,
        claimed: ClaimedTask,
        result: &T,
    ) -> Result<Receipt, SettleError> {
        claimed.through(self).complete(result).await
    }

    /// As [`ClaimedTask::fail`], through this client.
    ///
    /// # Errors
    /// As [`ClaimedTask::fail`].
    pub async fn fail_task(
        &self,
        claimed: ClaimedTask,
        failure: impl Into<TaskFailure>,
    ) -> Result<Receipt, SettleError> {
        claimed.through(self).fail(failure).await
    }

    /// Renews up to 1000 leases in one call. Each has its own answer, in order.
    ///
    /// # Errors
    /// When the call fails as a whole; see [`ClientError`].
    pub async fn heartbeats(&self, heartbeats: &[HeartbeatItem]) -> Result<Vec<HeartbeatResult>> {
        self.send_heartbeats(heartbeats, self.transport.timeout).await
    }

    /// The same with another time for the call.
    pub(crate) async fn send_heartbeats(
        &self,
        heartbeats: &[HeartbeatItem],
        timeout: Duration,
    ) -> Result<Vec<HeartbeatResult>> {
        let heartbeats =
            heartbeats.iter().map(Json::of).collect::<Result<_, _>>().map_err(ClientError::Encode)?;
        let request = ApiRequest::post(path::TASKS_HEARTBEAT, Repeat::Always)
            .json(&Heartbeats { heartbeats })?
            .within(timeout);
        Ok(self.send(request).await?.json::<HeartbeatsAnswer>()?.results)
    }
}

/// The claim with an id, so that it can be repeated.
pub(crate) fn with_claim_id(claim: Claim) -> Claim {
    Claim { claim_id: claim.claim_id.or_else(|| Some(Uuid::now_v7())), ..claim }
}

/// [`Claimed`](task_repo_protocol::claim::Claimed), with its tasks not yet decoded.
#[derive(Deserialize)]
struct UndecodedClaimed {
    tasks: Vec<Json>,
}
