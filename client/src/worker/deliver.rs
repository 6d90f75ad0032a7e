//! Delivers how attempts ended, many in one call that may also bring the next work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::{ErrorCode, OutcomeKind, Problem, Receipt, Uuid};

use super::attempt::FinishedAttempt;
use super::event::WorkerEvent;
use super::settings::Settings;
use super::slots::ClaimPlan;
use crate::claimed::Settlement;
use crate::decode::ClaimedTasks;
use crate::ending::Ending;
use crate::failure::TaskFailure;
use crate::retry::{RetryBudget, endless_pauses, pause_after};
use crate::settle::RefusedSettlement;

/// For how long a settlement that cannot be delivered is kept and tried again: ten minutes.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(600);
/// The first pause before a delivery is tried again.
const FIRST_DELIVERY_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a delivery is tried again.
const LONGEST_DELIVERY_PAUSE: Duration = Duration::from_secs(5);
/// Most attempts in one delivery.
const MAX_OUTCOMES: usize = 1000;
/// About how many bytes of results go into one delivery; the service takes 16 MiB, with everything around them.
const MAX_DELIVERY_BYTES: usize = 8 << 20;

/// The outcome of a delivery.
pub(crate) struct Delivery {
    /// What the service said of each attempt.
    pub(crate) results: Vec<DeliveredAttempt>,
    /// Attempts that could not be delivered.
    pub(crate) unsettled: Vec<FinishedAttempt>,
    /// The claim that went with the delivery, and its claim id.
    pub(crate) plan: Option<(ClaimPlan, Uuid)>,
    /// The tasks that the claim brought.
    pub(crate) next: ClaimedTasks,
}

/// What the service said of one attempt.
pub(crate) struct DeliveredAttempt {
    /// The attempt. Its settlement is back if it was refused.
    pub(crate) finished: FinishedAttempt,
    /// The kind of settlement that was delivered.
    pub(crate) kind: OutcomeKind,
    pub(crate) result: Result<Receipt, Box<Problem>>,
}

/// Delivers a batch, again and again until the service has answered or [`MAX_DELIVERY_TIME`] is over.
///
/// All attempts in `batch` have a settlement.
pub(crate) async fn deliver(
    settings: Arc<Settings>,
    mut batch: Vec<FinishedAttempt>,
    plan: Option<ClaimPlan>,
) -> Delivery {
    let plan = plan.map(|plan| (plan, Uuid::now_v7()));
    let mut claim = plan.as_ref().map(|(plan, id)| settings.claim(plan, Duration::ZERO, *id));
    let mut settlements: Vec<Settlement> =
        batch.iter_mut().filter_map(|finished| finished.settlement.take()).collect();
    let kinds: Vec<OutcomeKind> = settlements.iter().map(|settlement| settlement.ending.kind()).collect();
    let mut pauses = endless_pauses(FIRST_DELIVERY_PAUSE, LONGEST_DELIVERY_PAUSE);
    let (client, started) = (&settings.client_without_retries, Instant::now());
    loop {
        let unsettled = match client.settle_and_claim(settlements, claim.clone()).await {
            Ok((results, next)) => {
                let delivered = |((result, mut finished), kind): (
                    (Result<_, Box<RefusedSettlement>>, FinishedAttempt),
                    _,
                )| {
                    let result = result.map_err(|refused| {
                        finished.settlement = Some(refused.settlement);
                        refused.problem
                    });
                    DeliveredAttempt { finished, kind, result }
                };
                let results = results.into_iter().zip(batch).zip(kinds).map(delivered).collect();
                return Delivery { results, unsettled: Vec::new(), plan, next };
            }
            Err(unsettled) => unsettled,
        };
        settlements = unsettled.settlements;
        let error = unsettled.error;
        if !error.is_retryable() && claim.take().is_some() {
            // The refusal may be of the claim that goes along, so the settlements are tried once more without it.
            continue;
        }
        let pause = pauses.next().map(|drawn| pause_after(&error, drawn)).filter(|_| error.is_retryable());
        match pause {
            Some(pause) if started.elapsed().saturating_add(pause) < MAX_DELIVERY_TIME => {
                tracing::warn!(%error, ?pause, attempts = settlements.len(), "results cannot be delivered yet");
                tokio::time::sleep(pause).await;
            }
            _ => {
                for finished in &batch {
                    settings.events.emit(WorkerEvent::Unsettled { task: &finished.task, error: &error });
                }
                return Delivery { results: Vec::new(), unsettled: batch, plan, next: ClaimedTasks::none() };
            }
        }
    }
}

/// The retry budget of a delivery, for single calls that are not part of one.
pub(crate) fn retry_budget() -> RetryBudget {
    RetryBudget {
        attempts: u32::MAX,
        total: MAX_DELIVERY_TIME,
        first_pause: FIRST_DELIVERY_PAUSE,
        longest_pause: LONGEST_DELIVERY_PAUSE,
    }
}

/// Takes as many attempts as go into one delivery.
pub(crate) fn take_batch(finished: &mut Vec<FinishedAttempt>) -> Vec<FinishedAttempt> {
    let mut bytes = 0_usize;
    let fitting = finished.iter().take(MAX_OUTCOMES).take_while(|finished| {
        bytes += size(finished);
        bytes <= MAX_DELIVERY_BYTES
    });
    // A settlement that is too large by itself goes alone, so that the service refuses it alone.
    let count = fitting.count().max(1).min(finished.len());
    finished.drain(..count).collect()
}

fn size(finished: &FinishedAttempt) -> usize {
    match finished.settlement.as_ref().map(|settlement| &settlement.ending) {
        Some(Ending::Completed(completion)) => {
            completion.result.as_ref().map_or(0, |result| result.as_str().len())
        }
        Some(Ending::Failed(failure)) => {
            failure.message().len()
                + failure.error().details.as_ref().map_or(0, |details| details.as_str().len())
        }
        _ => 0,
    }
}

/// What to do with a refused settlement.
#[derive(Debug, PartialEq)]
pub(crate) enum AfterRefusal {
    /// Deliver it again after a pause.
    DeliverLater,
    /// Deliver this ending instead, because the service will never take the refused one.
    DeliverInstead(Ending),
    /// Nothing: the lease is lost.
    Lost,
    /// Nothing: it cannot be delivered.
    Unsettled,
}

/// What to do with a settlement that was refused because of `problem`, and deferred first at `deferred_since`.
pub(crate) fn after_refusal(
    problem: &Problem,
    ending: &Ending,
    deferred_since: Option<Instant>,
    now: Instant,
) -> AfterRefusal {
    match problem.code {
        ErrorCode::LeaseLost | ErrorCode::TaskNotFound => AfterRefusal::Lost,
        ErrorCode::ValidationFailed | ErrorCode::PayloadTooLarge => match ending {
            Ending::Completed(_) => {
                let message = format!("the service does not take the result: {}", problem.detail);
                AfterRefusal::DeliverInstead(Ending::Failed(
                    TaskFailure::never(message).with_code("result_refused"),
                ))
            }
            Ending::Failed(failure) if *failure != failure.without_details_and_usage() => {
                AfterRefusal::DeliverInstead(Ending::Failed(failure.without_details_and_usage()))
            }
            _ => AfterRefusal::Unsettled,
        },
        _ if problem.retryable && deferred_since.is_none_or(|since| now < since + MAX_DELIVERY_TIME) => {
            AfterRefusal::DeliverLater
        }
        _ => AfterRefusal::Unsettled,
    }
}

#[cfg(test)]
mod tests {
    use crate::ending::Completion;

    use super::*;

    fn answer(code: ErrorCode, ending: &Ending) -> AfterRefusal {
        after_refusal(&Problem::new(code, "too deep", "r"), ending, None, Instant::now())
    }

    #[test]
    fn a_result_that_is_not_taken_fails_the_task_for_good() {
        let completed = Ending::Completed(Completion::default());
        let AfterRefusal::DeliverInstead(Ending::Failed(failure)) =
            answer(ErrorCode::ValidationFailed, &completed)
        else {
            panic!("is replaced")
        };
        assert_eq!(failure.code(), Some("result_refused"));
        assert!(failure.message().contains("too deep"));
    }

    #[test]
    fn a_failure_that_is_not_taken_is_told_plainly_once() {
        let failure = TaskFailure::retry("broken").with_code("c").with_details(&[1]);
        let AfterRefusal::DeliverInstead(plain) =
            answer(ErrorCode::PayloadTooLarge, &Ending::Failed(failure))
        else {
            panic!("is replaced")
        };
        assert_eq!(plain, Ending::Failed(TaskFailure::retry("broken").with_code("c")));
        assert_eq!(answer(ErrorCode::PayloadTooLarge, &plain), AfterRefusal::Unsettled);
    }

    #[test]
    fn what_passes_is_tried_again_until_patience_ends() {
        let cancelled = Ending::Cancelled;
        assert_eq!(answer(ErrorCode::Overloaded, &cancelled), AfterRefusal::DeliverLater);
        assert_eq!(answer(ErrorCode::LeaseLost, &cancelled), AfterRefusal::Lost);
        let problem = Problem::new(ErrorCode::Overloaded, "", "r");
        let since = Instant::now();
        assert_eq!(
            after_refusal(&problem, &cancelled, Some(since), since + MAX_DELIVERY_TIME),
            AfterRefusal::Unsettled
        );
    }
}
