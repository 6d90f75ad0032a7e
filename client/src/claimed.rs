//! Owning a task: what a claim gives, and nothing else does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use task_repo_protocol::{
    Cancel, Complete, Fail, Heartbeat, HeartbeatReceipt, Json, Outcome, OutcomeKind, Payload, ProgressUpdate,
    Receipt, Release, Task, Uuid, path,
};

use crate::client::TaskClient;
use crate::ending::{Completion, Ending};
use crate::error::{ClientError, Result};
use crate::failure::TaskFailure;
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// A task that this worker holds the lease of: the only thing that can complete, fail, release or heartbeat it.
///
/// Settling consumes it. Dropped unsettled, nothing is reported: the lease runs out and the task goes to somebody else.
///
/// Every settlement is repeated with the same lease token, so it counts once. One that could not be delivered gives the
/// task back in its [`SettleError`], to be tried again or let go.
#[must_use = "nobody else works on a claimed task until its lease runs out: settle or release it"]
pub struct ClaimedTask {
    client: TaskClient,
    task: Arc<Task>,
    lease_token: Arc<str>,
}

impl ClaimedTask {
    /// The task of a claim's answer. `call` names it in the error.
    ///
    /// # Errors
    /// When the task comes without a lease token.
    pub(crate) fn new(client: &TaskClient, call: &'static str, mut task: Task) -> Result<Self> {
        let token =
            task.lease.as_mut().and_then(|lease| lease.token.take()).ok_or_else(|| ClientError::Decode {
                call,
                source: serde::de::Error::custom("a claimed task has no lease token"),
            })?;
        Ok(Self { client: client.clone(), task: Arc::new(task), lease_token: token.into() })
    }

    /// The task as it was claimed, with its payload.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The task's id.
    pub fn id(&self) -> Uuid {
        self.task.id
    }

    /// What the service knows the lease by. Whoever has it can settle the task: treat it as a secret.
    pub fn lease_token(&self) -> &str {
        &self.lease_token
    }

    /// Reads the task's request; a task without one reads as `null`.
    ///
    /// # Errors
    /// When the request does not fit `T`.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        request_of(&self.task)
    }

    /// Completes the task with `result`.
    ///
    /// # Errors
    /// `lease_lost` when somebody else has the task or it is final, `task_not_found`, `validation_failed` and
    /// `payload_too_large` for the result; see [`ClientError`].
    pub async fn complete<T: Serialize + ?Sized>(self, result: &T) -> Result<Receipt, SettleError> {
        match Completion::of(result) {
            Ok(completion) => self.complete_with(completion).await,
            Err(error) => Err(SettleError { error, claimed: Box::new(self) }),
        }
    }

    /// Completes the task with or without a result, with where it is kept, and with what was used.
    ///
    /// # Errors
    /// As [`ClaimedTask::complete`].
    pub async fn complete_with(self, completion: Completion) -> Result<Receipt, SettleError> {
        self.end(Ending::Completed(completion)).await
    }

    /// Reports that there is no result. Errors become a [`TaskFailure`] that is tried again;
    /// [`TaskFailure::cancelled`] acknowledges the cancellation.
    ///
    /// # Errors
    /// `lease_lost`, `task_not_found`; see [`ClientError`].
    pub async fn fail(self, failure: impl Into<TaskFailure>) -> Result<Receipt, SettleError> {
        self.end(failure.into().into()).await
    }

    /// Gives the task back without costing an attempt; nobody claims it for `delay`, in whole seconds, rounded up. With a
    /// delay of zero the service says how long it waits: see [`Ending::Released`].
    ///
    /// # Errors
    /// `lease_lost`, `task_not_found`; see [`ClientError`].
    pub async fn release(self, delay: Duration) -> Result<Receipt, SettleError> {
        self.end(Ending::Released { delay }).await
    }

    /// Acknowledges that the task is cancelled.
    ///
    /// # Errors
    /// `lease_lost`, `task_not_found`; see [`ClientError`].
    pub async fn acknowledge_cancel(self) -> Result<Receipt, SettleError> {
        self.end(Ending::Cancelled).await
    }

    /// Renews the lease by its own length and, with `progress`, tells how far the work is. The answer says until when
    /// the lease holds now, and whether the work should stop.
    ///
    /// # Errors
    /// `lease_lost`: the work no longer counts; `task_not_found`; see [`ClientError`].
    pub async fn heartbeat(&self, progress: Option<ProgressUpdate>) -> Result<HeartbeatReceipt> {
        self.send_heartbeat(Heartbeat { progress, ..Heartbeat::default() }).await
    }

    /// Renews the lease, and keeps a checkpoint of up to 64 KiB of JSON for the next attempt, in place of the one before. It
    /// comes with the next claim, in [`checkpoint`](Self::checkpoint).
    ///
    /// # Errors
    /// `lease_lost`: the work no longer counts; `task_not_found`, `validation_failed`; see [`ClientError`].
    pub async fn keep_checkpoint<T: Serialize + ?Sized>(&self, checkpoint: &T) -> Result<HeartbeatReceipt> {
        let checkpoint = Payload::Json(Json::of(checkpoint).map_err(ClientError::Encode)?);
        self.send_heartbeat(Heartbeat { checkpoint, ..Heartbeat::default() }).await
    }

    /// The checkpoint that an earlier attempt has left; `None` without one.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> std::result::Result<Option<T>, serde_json::Error> {
        self.task.checkpoint.json().map(|json| serde_json::from_str(json.as_str())).transpose()
    }

    async fn send_heartbeat(&self, body: Heartbeat) -> Result<HeartbeatReceipt> {
        let body = Heartbeat { lease_token: self.lease_token().to_owned(), ..body };
        let request =
            ApiRequest::post(path::TASK_HEARTBEAT, Repeat::Always).at(&self.id().to_string())?.json(&body)?;
        self.client.send(request).await?.json()
    }

    /// For [`TaskClient::settle`], which settles many in one call.
    pub fn ending(self, ending: Ending) -> Settlement {
        Settlement { claimed: self, ending }
    }

    /// The task, shared with the handler and the events of its attempt.
    pub(crate) fn shared_task(&self) -> Arc<Task> {
        Arc::clone(&self.task)
    }

    /// The token, shared with the heartbeats.
    pub(crate) fn shared_token(&self) -> Arc<str> {
        Arc::clone(&self.lease_token)
    }

    /// The same task, settled through `client`.
    pub(crate) fn through(self, client: &TaskClient) -> Self {
        Self { client: client.clone(), ..self }
    }

    async fn end(self, ending: Ending) -> Result<Receipt, SettleError> {
        match settle_one(&self.client, self.id(), self.lease_token().to_owned(), ending).await {
            Ok(receipt) => Ok(receipt),
            Err(error) => Err(SettleError { error, claimed: Box::new(self) }),
        }
    }
}

/// Without the token, which is a secret.
impl fmt::Debug for ClaimedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimedTask").field("task", &self.task).finish_non_exhaustive()
    }
}

/// Settles the task of that id and lease.
pub(crate) async fn settle_one(
    client: &TaskClient,
    id: Uuid,
    lease_token: String,
    ending: Ending,
) -> Result<Receipt> {
    let Outcome {
        id,
        lease_token,
        outcome,
        result,
        result_id,
        error,
        retry,
        retry_after_seconds,
        delay_seconds,
        usage,
        checkpoint,
    } = ending.outcome(id, lease_token);
    let post = |endpoint| ApiRequest::post(endpoint, Repeat::UntilSettled).at(&id);
    let request = match outcome {
        OutcomeKind::Completed => {
            post(path::TASK_COMPLETE)?.json(&Complete { lease_token, result, result_id, usage })?
        }
        OutcomeKind::Failed => {
            // The outcome of a failure always has an error.
            let error = error.unwrap_or_default();
            post(path::TASK_FAIL)?.json(&Fail {
                lease_token,
                error,
                retry,
                retry_after_seconds,
                usage,
                checkpoint,
            })?
        }
        OutcomeKind::Released => {
            post(path::TASK_RELEASE)?.json(&Release { lease_token, delay_seconds, checkpoint })?
        }
        OutcomeKind::Cancelled => {
            post(path::TASK_CANCEL)?.json(&Cancel { lease_token: Some(lease_token) })?
        }
    };
    client.transport.send_and_read(request, |answer| answer.json()).await
}

/// Reads a task's request; none reads as `null`.
pub(crate) fn request_of<T: DeserializeOwned>(task: &Task) -> Result<T, serde_json::Error> {
    serde_json::from_str(task.request.json().map_or("null", |json| json.as_str()))
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

impl Settlement {
    /// As the service is told.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub(crate) fn outcome(&self) -> Result<Json> {
        let lease_token = self.claimed.lease_token().to_owned();
        Json::of(&self.ending.clone().outcome(self.claimed.id(), lease_token)).map_err(ClientError::Encode)
    }
}

/// A task could not be settled.
///
/// When [`ClientError::may_have_been_applied`] says so, the settlement may have counted; the same one again is safe and
/// answers with its receipt.
#[derive(Debug, thiserror::Error)]
#[error("the task could not be settled")]
pub struct SettleError {
    /// Why.
    #[source]
    pub error: ClientError,
    /// The task, still unsettled as far as is known.
    pub claimed: Box<ClaimedTask>,
}

impl From<SettleError> for ClientError {
    fn from(unsettled: SettleError) -> Self {
        unsettled.error
    }
}
