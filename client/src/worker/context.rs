//! What a handler knows of its task, and what it can say while it works.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use task_repo_protocol::{DateTime, ProgressUpdate, Task, UsageReport, Utc, Uuid};
use tokio_util::sync::CancellationToken;

use super::lease::{CancelReason, HeldLease};
use crate::claimed::request_of;
use crate::client::TaskClient;
use crate::ending::usage_within_limits;

/// A handler's view of its task. Clones are cheap, may go to other threads, and are about the same attempt.
#[derive(Clone)]
pub struct TaskContext {
    lease: Arc<HeldLease>,
    client: TaskClient,
    notes: Arc<Mutex<Notes>>,
    stopping: CancellationToken,
}

/// What a handler adds to the settlement of its attempt, however the attempt ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) usage: Option<UsageReport>,
    pub(crate) result_id: Option<String>,
}

impl TaskContext {
    /// `stopping` is done when the worker begins to stop.
    pub(crate) fn new(lease: Arc<HeldLease>, client: TaskClient, stopping: CancellationToken) -> Self {
        Self { lease, client, notes: Arc::default(), stopping }
    }

    /// The task as it was claimed, with its payload.
    pub fn task(&self) -> &Task {
        &self.lease.task
    }

    /// The task's id.
    pub fn id(&self) -> Uuid {
        self.task().id
    }

    /// Which attempt this is, from 1. It grows with every claim that counts: good as a fencing number for what the
    /// handler changes elsewhere.
    pub fn attempt(&self) -> u32 {
        self.task().attempt
    }

    /// Whether no attempt is left after this one.
    pub fn is_last_attempt(&self) -> bool {
        self.task().attempt >= self.task().max_attempts
    }

    /// Reads the task's request as another type than the handler's own.
    ///
    /// # Errors
    /// When the request does not fit `T`.
    pub fn request<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        request_of(self.task())
    }

    /// The worker's client, to create tasks or look at them. A handler that waits with it for a task that this very worker
    /// would have to do, while handlers that wait hold all slots, is told by
    /// [`WorkerEvent::WaitsForItself`](super::WorkerEvent::WaitsForItself).
    pub fn client(&self) -> &TaskClient {
        &self.client
    }

    /// Tells how far the work is, from 0 to 1.
    ///
    /// Never waits: progress is sent from another thread, the latest wins, at most every 250 ms. The last one arrives
    /// before the result is reported.
    pub fn send_progress_value(&self, value: f64) {
        self.lease.put_progress(ProgressUpdate { value: Some(value), text: None });
    }

    /// Tells people what the work is at, in up to 4096 characters. As [`TaskContext::send_progress_value`].
    pub fn send_progress_text(&self, text: impl Into<String>) {
        self.lease.put_progress(ProgressUpdate { value: None, text: Some(text.into()) });
    }

    /// Tells both. As [`TaskContext::send_progress_value`].
    pub fn send_progress(&self, value: f64, text: impl Into<String>) {
        self.lease.put_progress(ProgressUpdate { value: Some(value), text: Some(text.into()) });
    }

    /// Whether the handler should stop: return [`TaskFailure::cancelled`](crate::TaskFailure::cancelled).
    pub fn is_cancelled(&self) -> bool {
        self.lease.cancellation().is_cancelled()
    }

    /// Why the handler should stop, if it should.
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        self.lease.signals().reason
    }

    /// Is done when the handler should stop: when the task's cancellation was asked for, its lease is lost, the attempt
    /// took too long, or the worker stops and the grace period is over. In all but the first case the handler is aborted
    /// after the worker's [patience](super::WorkerBuilder::stop_patience).
    pub async fn cancelled(&self) {
        self.lease.cancellation().cancelled().await;
    }

    /// Whether the worker has begun to stop. The handler may go on for the worker's grace period; then it is told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Is done as soon as the worker begins to stop: for handlers that need longer than the grace period and would rather
    /// save what they have and return [`TaskFailure::release`](crate::TaskFailure::release).
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// The same as a token, for what the handler starts. Cancelling it does not cancel the task.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.lease.cancellation().child_token()
    }

    /// Until when the lease holds, by the service's clock and as far as is known: heartbeats move it on. While the
    /// service cannot be reached it may pass; the work then goes on, and counts unless somebody else has claimed the
    /// task meanwhile.
    pub fn lease_expires_at(&self) -> Option<DateTime<Utc>> {
        self.lease.expires_at()
    }

    /// Adds to what this attempt used. Reported with its end, whatever that is.
    pub fn add_usage(&self, usage: UsageReport) {
        // Before it is added, or what is no number would cost all that was added before.
        let usage = usage_within_limits(self.id(), usage);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.usage = Some(notes.usage.unwrap_or_default().plus(usage));
    }

    /// Names where the result is kept, if elsewhere: 1–255 characters. Reported with the result; another one is left out,
    /// with a warning in the log.
    pub fn set_result_id(&self, result_id: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).result_id = Some(result_id.into());
    }

    pub(crate) fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("task", self.task()).finish_non_exhaustive()
    }
}
