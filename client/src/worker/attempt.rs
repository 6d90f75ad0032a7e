//! One handler at work on one task, and how that ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use task_repo_protocol::{Task, UsageReport};
use tokio_util::sync::CancellationToken;

use super::context::{Notes, TaskContext};
use super::event::WorkerEvent;
use super::handler::HandlerOptions;
use super::handler_waits::HandlerWaits;
use super::heartbeat::LeaseGuard;
use super::lease::{CancelReason, Signals};
use super::running::{HandlerOutcome, RunningHandler};
use super::settings::Settings;
use crate::claimed::{ClaimedTask, Settlement};
use crate::ending::{Completion, Ending};
use crate::failure::TaskFailure;

/// How long an aborted handler has to reach its next `.await`.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// An attempt whose end is still to be delivered.
pub(crate) struct FinishedAttempt {
    pub(crate) task: Arc<Task>,
    /// The index of its type in the registrations, while it holds a slot.
    pub(crate) type_index: Option<usize>,
    /// The settlement to deliver; `None`: the lease is lost and there is nothing to deliver.
    pub(crate) settlement: Option<Settlement>,
    /// Why the task is given back, if it is.
    pub(crate) given_back: Option<String>,
    /// The handler, where it goes on although its attempt is over.
    pub(crate) still_running: Option<RunningHandler>,
    /// Renews the lease until the settlement is delivered.
    pub(crate) lease: Option<LeaseGuard>,
    /// When its delivery was deferred for the first time.
    pub(crate) deferred_since: Option<Instant>,
    /// It is delivered by itself.
    pub(crate) goes_alone: bool,
}

impl FinishedAttempt {
    /// A claimed task that is given back as it is.
    pub(crate) fn released(claimed: ClaimedTask, why: &str) -> Self {
        let task = claimed.shared_task();
        let settlement = Some(claimed.ending(Ending::Released { delay: Duration::ZERO }));
        let given_back = Some(why.to_owned());
        let (type_index, still_running, lease, deferred_since) = (None, None, None, None);
        let goes_alone = false;
        Self { task, type_index, settlement, given_back, still_running, lease, deferred_since, goes_alone }
    }
}

/// How a stop of the worker reaches the attempts under way.
#[derive(Clone, Default)]
pub(crate) struct StopSignals {
    /// A stop has begun: handlers may go on for the grace period.
    pub(crate) begun: CancellationToken,
    /// Handlers are aborted.
    pub(crate) abort: CancellationToken,
}

/// Runs the handler of a claimed task until it returns or panics. It is ended when it takes too long, its lease is lost, or
/// the worker's stop aborts it.
pub(crate) async fn run(
    settings: Arc<Settings>,
    type_index: usize,
    claimed: ClaimedTask,
    guard: LeaseGuard,
    stop: StopSignals,
) -> FinishedAttempt {
    let registration = &settings.registrations[type_index];
    let task = claimed.shared_task();
    let (settings_too, task_too) = (Arc::clone(&settings), Arc::clone(&task));
    let waits = HandlerWaits { settings: settings_too, type_index, task: task_too };
    let client = settings.client.watched(waits);
    let context = TaskContext::new(Arc::clone(guard.lease()), client, stop.begun.clone());
    let limit = time_limit(registration.options, &task);
    let mut handler = registration.start(context.clone());
    let interruption = tokio::select! {
        outcome = handler.ended() => Err(outcome),
        () = elapsed(limit) => Ok(CancelReason::Timeout),
        () = guard.lease().is_lost() => Ok(CancelReason::LeaseLost),
        () = stop.abort.cancelled() => Ok(CancelReason::Shutdown),
    };
    let (outcome, still_running) = match interruption {
        Err(outcome) => (outcome, None),
        Ok(reason) => {
            guard.lease().cancel(reason);
            end(&settings, &task, handler, reason, &stop).await
        }
    };
    if still_running.is_none() {
        guard.lease().flush_progress().await;
    }
    guard.lease().end();
    let signals = guard.lease().signals();
    let given_back = why_given_back(&outcome, signals);
    let settlement = ending(outcome, context.notes(), signals).map(|ending| claimed.ending(ending));
    FinishedAttempt {
        task,
        type_index: Some(type_index),
        settlement,
        given_back,
        still_running,
        lease: Some(guard),
        deferred_since: None,
        goes_alone: false,
    }
}

/// Ends a handler that was told why it should stop: it may return within the patience that is set, then it is aborted. One
/// that blocks its thread cannot be aborted; only after a timeout, which is reported meanwhile, is it given back as still
/// running, otherwise this waits for it.
async fn end(
    settings: &Settings,
    task: &Task,
    mut handler: RunningHandler,
    reason: CancelReason,
    stop: &StopSignals,
) -> (HandlerOutcome, Option<RunningHandler>) {
    let told_at = Instant::now();
    tokio::select! {
        outcome = handler.ended() => return (outcome, None),
        () = tokio::time::sleep(settings.stop_patience) => {}
        () = stop.abort.cancelled() => {}
    }
    handler.abort();
    if let Ok(outcome) = tokio::time::timeout(ABORT_TIME, handler.ended()).await {
        return (outcome, None);
    }
    settings.stuck.fetch_add(1, Ordering::Relaxed);
    settings.events.emit(WorkerEvent::HandlerStuck { task, reason, told_for: told_at.elapsed() });
    if reason == CancelReason::Timeout {
        (Err(TaskFailure::cancelled()), Some(handler))
    } else {
        // Nothing may be said of the task while its handler still works on it.
        (handler.ended().await, None)
    }
}

/// How long the attempt may take: what the handler's options or the task say, whichever is shorter.
fn time_limit(options: HandlerOptions, task: &Task) -> Option<Duration> {
    let of_task = task.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    options.timeout.into_iter().chain(of_task).min()
}

/// Waits that long; for ever without a limit.
async fn elapsed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Why the task is given back, if it is; as [`ending`] decides.
fn why_given_back(outcome: &HandlerOutcome, signals: Signals) -> Option<String> {
    let failure = outcome.as_ref().err()?;
    if signals.is_lost || signals.is_requested {
        None
    } else if failure.release_delay().is_some() {
        Some(failure.message().to_owned())
    } else {
        let is_stopped = failure.is_cancelled() && !signals.is_timeout && signals.is_shutdown;
        is_stopped.then(|| "the worker stops".to_owned())
    }
}

/// How to settle an attempt; `None`: not at all, because the service would refuse it.
fn ending(outcome: HandlerOutcome, notes: Notes, signals: Signals) -> Option<Ending> {
    match outcome {
        // Also after the lease was lost, because a completion counts if no worker has claimed the task since.
        Ok(completion) => Some(Ending::Completed(Completion {
            result_id: notes.result_id.or(completion.result_id),
            usage: notes.usage.or(completion.usage),
            ..completion
        })),
        Err(_) if signals.is_lost => None,
        Err(_) if signals.is_requested => Some(Ending::Cancelled),
        Err(failure) if failure.release_delay().is_some() => Some(failure.into()),
        Err(failure) if failure.is_cancelled() && signals.is_timeout => {
            Some(failed(timed_out(), notes.usage))
        }
        Err(failure) if failure.is_cancelled() && signals.is_shutdown => {
            Some(Ending::Released { delay: Duration::ZERO })
        }
        Err(failure) => Some(failed(failure, notes.usage)),
    }
}

fn timed_out() -> TaskFailure {
    TaskFailure::retry("the attempt took longer than its handler or its task allows").with_code("timeout")
}

fn failed(mut failure: TaskFailure, usage: Option<UsageReport>) -> Ending {
    if let Some(usage) = usage {
        failure.add_usage(usage);
    }
    Ending::Failed(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<Completion, TaskFailure> {
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
            let signals = Signals { is_requested, is_lost, is_shutdown, ..Signals::default() };
            let ending = ending(Ok(Completion::default()), Notes::default(), signals);
            assert_eq!(ending, Some(Ending::Completed(Completion::default())));
        }
    }

    #[test]
    fn a_lost_lease_leaves_nothing_to_report() {
        let signals = Signals { is_lost: true, is_requested: true, ..Signals::default() };
        assert_eq!(ending(broken(), Notes::default(), signals), None);
        assert_eq!(ending(stopped(), Notes::default(), signals), None);
    }

    #[test]
    fn a_requested_cancellation_is_acknowledged() {
        let signals = Signals { is_requested: true, is_shutdown: true, ..Signals::default() };
        assert_eq!(ending(stopped(), Notes::default(), signals), Some(Ending::Cancelled));
        assert_eq!(ending(broken(), Notes::default(), signals), Some(Ending::Cancelled));
    }

    #[test]
    fn a_stopping_worker_gives_back_what_stopped_and_reports_what_failed() {
        let signals = Signals { is_shutdown: true, ..Signals::default() };
        assert_eq!(ending(stopped(), Notes::default(), signals), RELEASED);
        assert!(matches!(ending(broken(), Notes::default(), signals), Some(Ending::Failed(_))));
    }

    #[test]
    fn a_timeout_is_a_failure_even_while_the_worker_stops() {
        let signals = Signals { is_timeout: true, is_shutdown: true, ..Signals::default() };
        let Some(Ending::Failed(failure)) = ending(stopped(), Notes::default(), signals) else {
            panic!("has failed")
        };
        assert_eq!((failure.code(), failure.retry_fields()), (Some("timeout"), (None, None)));
        assert_eq!(why_given_back(&stopped(), signals), None);
    }

    #[test]
    fn a_handler_gives_back_what_it_cannot_do() {
        let release = || Err(TaskFailure::release("no licence here", Duration::from_secs(3)));
        let delayed = Some(Ending::Released { delay: Duration::from_secs(3) });
        assert_eq!(ending(release(), Notes::default(), Signals::default()), delayed);
        assert_eq!(why_given_back(&release(), Signals::default()).as_deref(), Some("no licence here"));
        let requested = Signals { is_requested: true, ..Signals::default() };
        assert_eq!(ending(release(), Notes::default(), requested), Some(Ending::Cancelled));
        assert_eq!(why_given_back(&release(), requested), None);
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
        let Some(Ending::Failed(failure)) = ending(broken(), notes, Signals::default()) else {
            panic!("has failed")
        };
        assert_eq!(failure.usage(), Some(usage));
    }
}
