//! The tasks that a claim's answer brings, each read by itself.
//!
//! One task that cannot be read must not cost the others, which are leased as well. Nor must its own lease run out unused:
//! it is reported as failed, and may be tried again by a worker that can read it.

use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use task_repo_protocol::{Json, Task, Uuid};

use crate::claimed::{ClaimedTask, settle_one};
use crate::client::TaskClient;
use crate::error::ClientError;
use crate::failure::TaskFailure;

/// The code of the failure that is reported for a task that cannot be read.
const INVALID_ANSWER: &str = "invalid_answer";

/// The tasks that a claim brought.
pub(crate) struct ClaimedTasks {
    /// Those that can be read.
    pub(crate) claimed: Vec<ClaimedTask>,
    /// Those that cannot be read: leased all the same, and still to be reported.
    pub(crate) undecodable: Vec<UndecodableTask>,
}

impl ClaimedTasks {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self { claimed: Vec::new(), undecodable: Vec::new() }
    }

    /// Reads each of `tasks`. `call` names the answer in errors.
    pub(crate) fn decode(client: &TaskClient, call: &'static str, tasks: &[Json]) -> Self {
        let mut decoded = Self::none();
        for task in tasks {
            match self::task(client, call, task) {
                Ok(claimed) => decoded.claimed.push(claimed),
                Err(undecodable) => decoded.undecodable.push(*undecodable),
            }
        }
        decoded
    }

    /// Whether the claim found no task.
    pub(crate) fn is_empty(&self) -> bool {
        self.claimed.is_empty() && self.undecodable.is_empty()
    }

    /// The tasks that can be read, after all others were reported.
    pub(crate) async fn reported(self, client: &TaskClient) -> Vec<ClaimedTask> {
        join_all(self.undecodable.iter().map(|undecodable| {
            undecodable.log();
            undecodable.report(client)
        }))
        .await;
        self.claimed
    }
}

/// Reads one task of a claim's answer. `call` names the answer in errors.
///
/// # Errors
/// When it does not fit a [`Task`], or comes without a lease token.
pub(crate) fn task(
    client: &TaskClient,
    call: &'static str,
    task: &Json,
) -> Result<ClaimedTask, Box<UndecodableTask>> {
    let decoded = task.to::<Task>().map_err(|source| ClientError::Decode { call, source });
    decoded.and_then(|decoded| ClaimedTask::new(client, call, decoded)).map_err(|error| {
        let TaskIdentity { id, lease } = task.to().unwrap_or_default();
        let LeaseIdentity { token } = field(lease).unwrap_or_default();
        Box::new(UndecodableTask { id: field(id), lease_token: field(token), error })
    })
}

/// A task that was claimed and cannot be read.
pub(crate) struct UndecodableTask {
    /// As far as it can be read.
    pub(crate) id: Option<Uuid>,
    /// As far as it can be read.
    lease_token: Option<String>,
    /// What does not fit.
    pub(crate) error: ClientError,
}

impl UndecodableTask {
    /// Logs it, where no event does.
    pub(crate) fn log(&self) {
        let error: &(dyn std::error::Error + 'static) = &self.error;
        tracing::error!(task.id = self.id.map(tracing::field::display), error, "cannot read a claimed task");
    }

    /// Reports that the attempt failed. Another one may follow: a newer worker may be able to read the task.
    ///
    /// Errors are logged, because no caller waits for them. Without a report, the lease runs out.
    pub(crate) async fn report(&self, client: &TaskClient) {
        let Some((id, lease_token)) = self.id.zip(self.lease_token.clone()) else {
            tracing::error!(
                task.id = self.id.map(tracing::field::display),
                "cannot report a claimed task that cannot be read: its id or its lease token is missing",
            );
            return;
        };
        let failure = TaskFailure::of(&self.error).with_code(INVALID_ANSWER);
        if let Err(error) = settle_one(client, id, lease_token, failure.into()).await {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::error!(task.id = %id, error, "cannot report a claimed task that cannot be read");
        }
    }
}

/// The members of a task that a report needs, of any type and beside any others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TaskIdentity {
    id: Option<Json>,
    lease: Option<Json>,
}

/// The member of a lease that a report needs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LeaseIdentity {
    token: Option<Json>,
}

/// The value of a member, if it is there and fits.
fn field<T: DeserializeOwned>(json: Option<Json>) -> Option<T> {
    json?.to().ok()
}
