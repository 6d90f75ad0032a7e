//! What happens in a worker, for hooks and logs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use task_repo_protocol::{Receipt, Task, Uuid};

use crate::error::ClientError;

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
            tracing::warn!(task.id = %task.id, task.r#type = task.task_type, "lost the lease of a task");
        }
        WorkerEvent::Unsettled { task, error } => {
            tracing::error!(task.id = %task.id, task.r#type = task.task_type, error = chain(error), "cannot settle a task");
        }
        WorkerEvent::ClaimFailed { error, retry_in } => {
            tracing::warn!(error = chain(error), ?retry_in, "a claim failed");
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
    /// Tasks that it claimed and could not read. They count nowhere else.
    pub undecodable: u64,
}
