//! What happens in a worker, for hooks and logs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use task_repo_protocol::{ErrorCode, Receipt, Task, Uuid};

use super::lease::CancelReason;
use crate::error::ClientError;
use crate::failure::TaskFailure;

/// What happens in a worker. Each is logged as well.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkerEvent<'a> {
    /// A task was claimed and its handler starts.
    Claimed {
        /// The task, with its payload.
        task: &'a Task,
    },
    /// The service has taken how an attempt ended.
    Settled {
        /// The task as it was claimed.
        task: &'a Task,
        /// Where it went.
        receipt: &'a Receipt,
    },
    /// The lease was lost; how the attempt ended no longer counts.
    Lost {
        /// The task as it was claimed.
        task: &'a Task,
    },
    /// A handler ended with a failure, took too long or panicked. It is reported next.
    AttemptFailed {
        /// The task as it was claimed.
        task: &'a Task,
        /// What went wrong.
        failure: &'a TaskFailure,
    },
    /// A task is given back unfinished: its handler said so, could not read its request, or was stopped with the worker.
    GivenBack {
        /// The task as it was claimed.
        task: &'a Task,
        /// Why.
        why: &'a str,
        /// How many tasks this worker has given back one after the other, with no other end between them; what a stop gives
        /// back is not counted. A worker that gives back all it claims keeps others from the work.
        in_a_row: u32,
    },
    /// A handler was told to stop, did not return within the patience that is set, and blocks its thread, so that it cannot
    /// be aborted. It keeps its slot until it returns.
    HandlerStuck {
        /// The task as it was claimed.
        task: &'a Task,
        /// Why it should stop.
        reason: CancelReason,
        /// How long ago it was told.
        told_for: Duration,
    },
    /// A handler waits for a task that this worker would have to do itself, while handlers that wait hold all slots it could
    /// have: unless another worker does it, both stand still.
    WaitsForItself {
        /// The task whose handler waits.
        task: &'a Task,
        /// What it waits for.
        awaited: &'a Task,
    },
    /// How attempts ended could not be delivered yet; the same is tried again.
    DeliveryFailed {
        /// Why.
        error: &'a ClientError,
        /// How many attempts it was for.
        attempts: usize,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// How an attempt ended could not be delivered. The lease runs out and the task is tried again.
    Unsettled {
        /// The task as it was claimed.
        task: &'a Task,
        /// Why.
        error: &'a ClientError,
    },
    /// A claim failed; the worker goes on.
    ClaimFailed {
        /// Why.
        error: &'a ClientError,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The service refuses to give this worker work, and will go on to: the worker stops.
    Refused {
        /// Why.
        error: &'a ClientError,
    },
    /// A task was claimed and cannot be read. No handler sees it; it is reported as failed with the code
    /// `invalid_answer`, so that a newer worker may try again, unless its id or lease token cannot be read either.
    Undecodable {
        /// The task, if at least its id can be read.
        id: Option<Uuid>,
        /// What does not fit.
        error: &'a ClientError,
    },
    /// A heartbeat failed; the next one comes sooner than usual.
    HeartbeatFailed {
        /// Why.
        error: &'a ClientError,
        /// How many leases it was for.
        leases: usize,
    },
    /// The worker claims nothing more.
    Stopping {
        /// How many handlers are still at work.
        running: usize,
    },
}

/// Where events go.
#[derive(Clone, Default)]
pub(crate) struct Events(Option<Hook>);

type Hook = Arc<dyn Fn(WorkerEvent<'_>) + Send + Sync>;

impl Events {
    pub(crate) fn new(hook: impl Fn(WorkerEvent<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn emit(&self, event: WorkerEvent<'_>) {
        log(&event);
        if let Some(hook) = &self.0 {
            // A hook is there to look on: its defect must not cost the worker its tasks.
            if catch_unwind(AssertUnwindSafe(|| hook(event))).is_err() {
                tracing::error!("the worker's event hook panicked");
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events(hooked: {})", self.0.is_some())
    }
}

fn log(event: &WorkerEvent<'_>) {
    match event {
        WorkerEvent::Claimed { task } => {
            tracing::debug!(task.id = %task.id, task.r#type = task.task_type, task.attempt, "claimed a task");
        }
        WorkerEvent::Settled { task, receipt } => {
            tracing::debug!(task.id = %task.id, task.r#type = task.task_type, status = %receipt.status, "settled a task");
        }
        WorkerEvent::Lost { task } => {
            tracing::warn!(task.id = %task.id, task.r#type = task.task_type, task.attempt, "lost the lease of a task");
        }
        WorkerEvent::AttemptFailed { task, failure } => {
            let (error, code) = (failure.message(), failure.code());
            tracing::warn!(task.id = %task.id, task.r#type = task.task_type, task.attempt, error, code, "an attempt failed");
        }
        WorkerEvent::GivenBack { task, why, in_a_row: 0 | 1 } => {
            tracing::info!(task.id = %task.id, task.r#type = task.task_type, task.attempt, why, "gave a task back");
        }
        WorkerEvent::GivenBack { task, why, in_a_row } => {
            tracing::warn!(
                task.id = %task.id,
                task.r#type = task.task_type,
                task.attempt,
                why,
                in_a_row,
                "gave a task back, as those before it",
            );
        }
        WorkerEvent::HandlerStuck { task, reason, told_for } => {
            tracing::error!(
                task.id = %task.id,
                task.r#type = task.task_type,
                task.attempt,
                ?reason,
                ?told_for,
                "a handler cannot be aborted, because it blocks its thread: its slot is kept until it returns",
            );
        }
        WorkerEvent::WaitsForItself { task, awaited } => {
            tracing::warn!(
                task.id = %task.id,
                task.r#type = task.task_type,
                awaited.id = %awaited.id,
                awaited.r#type = awaited.task_type,
                "a handler waits for a task that this worker would have to do itself, and handlers that wait hold all slots \
                 for it: raise the concurrency, or give tasks that wait a type with a lower concurrency of its own",
            );
        }
        WorkerEvent::DeliveryFailed { error, attempts, retry_in } => {
            tracing::warn!(error = chain(error), attempts, ?retry_in, "results cannot be delivered yet");
        }
        WorkerEvent::Unsettled { task, error } => {
            tracing::error!(task.id = %task.id, task.r#type = task.task_type, error = chain(error), "cannot settle a task");
        }
        WorkerEvent::ClaimFailed { error, retry_in } => {
            tracing::warn!(error = chain(error), ?retry_in, "a claim failed");
        }
        WorkerEvent::Refused { error } => {
            tracing::error!(
                error = chain(error),
                advice = advice(error),
                "the worker stops: the service refuses to give it work",
            );
        }
        WorkerEvent::Undecodable { id, error } => {
            let id = id.map(tracing::field::display);
            tracing::error!(task.id = id, error = chain(error), "cannot read a claimed task");
        }
        WorkerEvent::HeartbeatFailed { error, leases } => {
            tracing::warn!(error = chain(error), leases, "a heartbeat failed");
        }
        WorkerEvent::Stopping { running } => tracing::info!(running, "stopping"),
    }
}

fn chain(error: &ClientError) -> &(dyn std::error::Error + 'static) {
    error
}

/// What to do about a refusal that stays.
fn advice(error: &ClientError) -> &'static str {
    match error.code() {
        Some(ErrorCode::Unauthenticated) => {
            "start the worker with an API key that is known, not expired and not revoked"
        }
        Some(ErrorCode::Forbidden) => {
            "give the worker a key with the role worker, for its tenant and for all task types that it has handlers for"
        }
        Some(ErrorCode::NotFound | ErrorCode::MethodNotAllowed) => {
            "check the base URL: it is that of the service itself, such as http://localhost:8503"
        }
        _ => "check the worker's settings, and whether client and service are of releases that go together",
    }
}

/// What a worker has done by the time it has stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Tasks that it claimed.
    pub claimed: u64,
    /// Attempts that brought a result.
    pub completed: u64,
    /// Attempts that failed, whether they are tried again or not.
    pub failed: u64,
    /// Attempts whose cancellation was acknowledged.
    pub cancelled: u64,
    /// Tasks given back.
    pub released: u64,
    /// Attempts whose lease was lost.
    pub lost: u64,
    /// Attempts whose end could not be delivered.
    pub unsettled: u64,
    /// Handlers that could not be aborted, because they block their thread.
    pub stuck: u64,
    /// Those of them that were still at work when the worker had stopped.
    pub still_running: u64,
    /// Tasks that it claimed and could not read. They count nowhere else.
    pub undecodable: u64,
}
