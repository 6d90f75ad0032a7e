//! The reports of workers: heartbeats, and how their tasks ended.

use rand::RngExt as _;
use task_repo_protocol::{
    Complete, Fail, Heartbeat, HeartbeatReceipt, Outcome, OutcomeKind, Payload, Receipt, Release, Uuid,
};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::Caller;
use crate::lifecycle::{self, CheckpointChange, Intent};
use crate::store::{Applied, Change};
use crate::task::token;

/// The result of one of many reports.
pub type Settled = Result<Receipt, Failure>;

impl TaskService {
    /// The work is done.
    ///
    /// # Errors
    /// When the token does not hold the task, or the result is too large.
    pub async fn complete(&self, caller: &Caller, id: Uuid, body: Complete) -> Settled {
        self.settle(caller, id, completed(id, body)).await
    }

    /// The attempt failed.
    ///
    /// # Errors
    /// When the token does not hold the task.
    pub async fn fail(&self, caller: &Caller, id: Uuid, body: Fail) -> Settled {
        self.settle(caller, id, failed(id, body)).await
    }

    /// The worker gives the task back.
    ///
    /// # Errors
    /// When the token does not hold the task.
    pub async fn release(&self, caller: &Caller, id: Uuid, body: Release) -> Settled {
        self.settle(caller, id, released(id, body)).await
    }

    /// The worker acknowledges the cancellation.
    ///
    /// # Errors
    /// When the token does not hold the task.
    pub async fn acknowledge_cancel(&self, caller: &Caller, id: Uuid, lease_token: &str) -> Settled {
        self.settle(caller, id, Intent::AcknowledgeCancel { token: token::stored(id, lease_token) }).await
    }

    /// Settles many tasks; a bad one does not stop the others.
    pub async fn settle_many(
        &self,
        caller: &Caller,
        outcomes: Vec<Result<Outcome, Failure>>,
    ) -> Vec<Settled> {
        let changes = outcomes
            .into_iter()
            .map(|outcome| {
                let outcome = outcome?;
                let id = task_id(&outcome.id)?;
                Ok(Change { scope: caller.scope.clone(), id, intent: settlement(id, outcome) })
            })
            .collect();
        self.change_many(caller, changes).await.into_iter().map(|applied| Ok(applied?.receipt)).collect()
    }

    /// Renews a lease, and keeps the progress.
    ///
    /// # Errors
    /// When the token does not hold the task.
    pub async fn heartbeat(
        &self,
        caller: &Caller,
        id: Uuid,
        body: Heartbeat,
    ) -> Result<HeartbeatReceipt, Failure> {
        self.change(caller, id, heartbeat(id, body)).await.map(|applied| alive(&applied))
    }

    /// Renews many leases; a bad one does not stop the others.
    pub async fn heartbeat_many(
        &self,
        caller: &Caller,
        heartbeats: Vec<Result<(String, Heartbeat), Failure>>,
    ) -> Vec<Result<HeartbeatReceipt, Failure>> {
        let changes = heartbeats
            .into_iter()
            .map(|item| {
                let (id, body) = item?;
                let id = task_id(&id)?;
                Ok(Change { scope: caller.scope.clone(), id, intent: heartbeat(id, body) })
            })
            .collect();
        self.change_many(caller, changes).await.into_iter().map(|applied| Ok(alive(&applied?))).collect()
    }

    async fn settle(&self, caller: &Caller, id: Uuid, intent: Intent) -> Settled {
        Ok(self.change(caller, id, intent).await?.receipt)
    }

    /// Makes the changes that are ones, keeping everything in order.
    async fn change_many(
        &self,
        caller: &Caller,
        changes: Vec<Result<Change, Failure>>,
    ) -> Vec<Result<Applied, Failure>> {
        let wanted: Vec<_> = changes.iter().filter_map(|change| change.as_ref().ok()).cloned().collect();
        let mut results =
            if wanted.is_empty() { Vec::new() } else { self.store.apply(wanted, caller.deadline.at()).await }
                .into_iter();
        changes
            .into_iter()
            .filter_map(|change| match change {
                Err(failure) => Some(Err(failure)),
                Ok(change) => {
                    let failure = |refused| Failure::of(change.id, change.intent.verb(), &refused);
                    Some(results.next()?.map_err(failure))
                }
            })
            .collect()
    }
}

/// An id in a batch: one that is no UUID names no task.
fn task_id(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_| Failure::no_task(text))
}

fn alive(applied: &Applied) -> HeartbeatReceipt {
    HeartbeatReceipt {
        expires_at: applied.task.lease_until.unwrap_or(applied.task.updated_at),
        cancel_requested: applied.task.cancel_requested_at.is_some(),
    }
}

fn heartbeat(id: Uuid, body: Heartbeat) -> Intent {
    Intent::Heartbeat {
        token: token::stored(id, &body.lease_token),
        lease_seconds: whole(body.lease_seconds),
        progress: body.progress,
        checkpoint: left(body.checkpoint),
    }
}

fn left(checkpoint: Payload) -> CheckpointChange {
    match checkpoint {
        Payload::Omitted => CheckpointChange::None,
        Payload::Null => CheckpointChange::Removed,
        Payload::Json(json) => CheckpointChange::Kept(json.into_text()),
    }
}

fn completed(id: Uuid, body: Complete) -> Intent {
    Intent::Complete {
        token: token::stored(id, &body.lease_token),
        result: body.result.map(task_repo_protocol::Json::into_text),
        result_id: body.result_id,
        usage: body.usage.unwrap_or_default().into(),
    }
}

fn failed(id: Uuid, body: Fail) -> Intent {
    Intent::Fail {
        token: token::stored(id, &body.lease_token),
        failure: lifecycle::AttemptFailure {
            error: body.error.into(),
            retry: body.retry.unwrap_or_default(),
            retry_after_seconds: whole(body.retry_after_seconds),
            jitter: rand::rng().random_range(-1.0..=1.0),
        },
        usage: body.usage.unwrap_or_default().into(),
        checkpoint: left(body.checkpoint),
    }
}

fn released(id: Uuid, body: Release) -> Intent {
    Intent::Release {
        token: token::stored(id, &body.lease_token),
        delay_seconds: whole(body.delay_seconds),
        checkpoint: left(body.checkpoint),
    }
}

fn settlement(id: Uuid, outcome: Outcome) -> Intent {
    let Outcome { lease_token, usage, .. } = outcome;
    match outcome.outcome {
        OutcomeKind::Completed => completed(
            id,
            Complete { lease_token, result: outcome.result, result_id: outcome.result_id, usage },
        ),
        OutcomeKind::Failed => failed(
            id,
            Fail {
                lease_token,
                error: outcome.error.unwrap_or_default(),
                retry: outcome.retry,
                retry_after_seconds: outcome.retry_after_seconds,
                usage,
                checkpoint: outcome.checkpoint,
            },
        ),
        OutcomeKind::Released => released(
            id,
            Release { lease_token, delay_seconds: outcome.delay_seconds, checkpoint: outcome.checkpoint },
        ),
        OutcomeKind::Cancelled => Intent::AcknowledgeCancel { token: token::stored(id, &lease_token) },
    }
}

/// Seconds that have been checked to be few enough.
fn whole(seconds: Option<i64>) -> Option<u32> {
    seconds.and_then(|seconds| u32::try_from(seconds).ok())
}
