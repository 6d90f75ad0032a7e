//! One handler at work on one task, and how that ends.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::Task;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::context::{Notes, TaskContext};
use super::heartbeat::LeaseGuard;
use super::lease::{CancelReason, Signals};
use super::settings::Settings;
use crate::claimed::{ClaimedTask, Settlement};
use crate::ending::{Completion, Ending};
use crate::failure::TaskFailure;

/// An attempt whose end is still to be delivered.
pub(crate) struct FinishedAttempt {
    pub(crate) task: Arc<Task>,
    /// The index of its type in the registrations, while it holds a slot.
    pub(crate) type_index: Option<usize>,
    /// The settlement to deliver; `None`: the lease is lost and there is nothing to deliver.
    pub(crate) settlement: Option<Settlement>,
    /// Renews the lease until the settlement is delivered.
    pub(crate) lease: Option<LeaseGuard>,
    /// When its delivery was deferred for the first time.
    pub(crate) deferred_since: Option<Instant>,
}

impl FinishedAttempt {
    /// A claimed task that is given back as it is.
    pub(crate) fn released(claimed: ClaimedTask) -> Self {
        let task = claimed.shared_task();
        let settlement = Some(claimed.ending(Ending::Released { delay: Duration::ZERO }));
        Self { task, type_index: None, settlement, lease: None, deferred_since: None }
    }
}

/// Runs the handler of a claimed task until it returns, panics, takes too long, or is `abort`ed.
pub(crate) async fn run(
    settings: Arc<Settings>,
    type_index: usize,
    claimed: ClaimedTask,
    guard: LeaseGuard,
    abort: CancellationToken,
) -> FinishedAttempt {
    let registration = &settings.registrations[type_index];
    let task = claimed.shared_task();
    let context = TaskContext::new(Arc::clone(guard.lease()), settings.client.clone());
    let span = tracing::info_span!(
        "task",
        task.id = %task.id,
        task.r#type = task.task_type,
        task.attempt = task.attempt,
    );
    let (work, at_work) = (registration.clone(), context.clone());
    // The handler is a tokio task of its own, so that its panic ends there and a blocked thread does not block the
    // worker's loop.
    let mut handler =
        AbortOnDropHandle::new(tokio::spawn(async move { work.run(at_work).await }.instrument(span)));
    let outcome = tokio::select! {
        joined = &mut handler => joined.unwrap_or_else(|error| Err(failure_of(error))),
        () = elapsed(registration.options.timeout) => {
            guard.lease().cancel(CancelReason::Timeout);
            Err(TaskFailure::retry("the attempt took longer than its handler may").with_code("timeout"))
        }
        () = abort.cancelled() => Err(TaskFailure::cancelled()),
    };
    drop(handler);
    guard.lease().flush_progress().await;
    guard.lease().end();
    let ending = ending(outcome, context.notes(), guard.lease().signals());
    let settlement = ending.map(|ending| claimed.ending(ending));
    FinishedAttempt {
        task,
        type_index: Some(type_index),
        settlement,
        lease: Some(guard),
        deferred_since: None,
    }
}

/// Waits that long; for ever without a timeout.
async fn elapsed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// The failure of a handler that did not return.
fn failure_of(error: JoinError) -> TaskFailure {
    match error.try_into_panic() {
        Ok(panic) => TaskFailure::retry(format!("the handler panicked: {}", panic_message(panic.as_ref())))
            .with_code("panic"),
        // The handler was aborted because its runtime shuts down.
        Err(_) => TaskFailure::cancelled(),
    }
}

/// The message of a panic, if it is text.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// How to settle an attempt; `None`: not at all, because the service would refuse it.
fn ending(outcome: Result<Completion, TaskFailure>, notes: Notes, signals: Signals) -> Option<Ending> {
    match outcome {
        // Also after the lease was lost, because a completion counts if no worker has claimed the task since.
        Ok(completion) => Some(Ending::Completed(Completion {
            result_id: notes.result_id.or(completion.result_id),
            usage: notes.usage.or(completion.usage),
            ..completion
        })),
        Err(_) if signals.is_lost => None,
        Err(_) if signals.is_requested => Some(Ending::Cancelled),
        Err(failure) if failure.is_cancelled() && signals.is_shutdown => {
            Some(Ending::Released { delay: Duration::ZERO })
        }
        Err(mut failure) => {
            if let Some(usage) = notes.usage {
                failure.add_usage(usage);
            }
            Some(Ending::Failed(failure))
        }
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::UsageReport;

    use super::*;

    fn failed() -> Result<Completion, TaskFailure> {
        Err(TaskFailure::retry("broken"))
    }

    fn stopped() -> Result<Completion, TaskFailure> {
        Err(TaskFailure::cancelled())
    }

    const RELEASED: Option<Ending> = Some(Ending::Released { delay: Duration::ZERO });

    #[test]
    fn a_result_counts_whatever_was_signalled() {
        for (is_requested, is_lost, is_shutdown) in
            [(true, false, false), (false, true, false), (true, true, true)]
        {
            let signals = Signals { reason: None, is_requested, is_lost, is_shutdown };
            let ending = ending(Ok(Completion::default()), Notes::default(), signals);
            assert_eq!(ending, Some(Ending::Completed(Completion::default())));
        }
    }

    #[test]
    fn a_lost_lease_leaves_nothing_to_report() {
        let signals = Signals { is_lost: true, is_requested: true, ..Signals::default() };
        assert_eq!(ending(failed(), Notes::default(), signals), None);
        assert_eq!(ending(stopped(), Notes::default(), signals), None);
    }

    #[test]
    fn a_requested_cancellation_is_acknowledged() {
        let signals = Signals { is_requested: true, is_shutdown: true, ..Signals::default() };
        assert_eq!(ending(stopped(), Notes::default(), signals), Some(Ending::Cancelled));
        assert_eq!(ending(failed(), Notes::default(), signals), Some(Ending::Cancelled));
    }

    #[test]
    fn a_stopping_worker_gives_back_what_stopped_and_reports_what_failed() {
        let signals = Signals { is_shutdown: true, ..Signals::default() };
        assert_eq!(ending(stopped(), Notes::default(), signals), RELEASED);
        assert!(matches!(ending(failed(), Notes::default(), signals), Some(Ending::Failed(_))));
    }

    #[test]
    fn nobody_told_it_to_stop_so_it_failed() {
        let ending = ending(stopped(), Notes::default(), Signals::default());
        assert!(matches!(ending, Some(Ending::Failed(failure)) if failure.code() == Some("cancelled")));
    }

    #[test]
    fn what_was_noted_goes_along() {
        let usage = UsageReport { tokens_used: 3, ..UsageReport::default() };
        let notes = Notes { usage: Some(usage), result_id: Some("r".to_owned()) };
        let Some(Ending::Completed(completion)) =
            ending(Ok(Completion::default()), notes.clone(), Signals::default())
        else {
            panic!("is completed")
        };
        assert_eq!((completion.usage, completion.result_id.as_deref()), (Some(usage), Some("r")));
        let Some(Ending::Failed(failure)) = ending(failed(), notes, Signals::default()) else {
            panic!("has failed")
        };
        assert_eq!(failure.usage(), Some(usage));
    }
}
