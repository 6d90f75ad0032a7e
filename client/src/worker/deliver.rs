//! Delivers how attempts ended, many in one call that may also bring the next work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use task_repo_protocol::{ErrorCode, Json, Problem, Receipt, Uuid};

use super::attempt::FinishedAttempt;
use super::event::WorkerEvent;
use super::settings::Settings;
use super::slots::ClaimPlan;
use crate::decode::ClaimedTasks;
use crate::ending::{Completion, Ending};
use crate::error::ClientError;
use crate::failure::TaskFailure;
use crate::retry::{RetryBudget, endless_pauses, pause_after};

/// For how long a settlement that cannot be delivered is kept and tried again: ten minutes.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(600);
/// The first pause before a delivery is tried again.
const FIRST_DELIVERY_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a delivery is tried again.
const LONGEST_DELIVERY_PAUSE: Duration = Duration::from_secs(5);
/// Most attempts in one delivery.
const MAX_OUTCOMES: usize = 1000;

/// Attempts that are delivered in one call.
pub(crate) struct Batch {
    /// Each has a settlement.
    attempts: Vec<FinishedAttempt>,
    /// What the service is told of each, in order.
    outcomes: Vec<Json>,
}

impl Batch {
    /// Takes as many attempts as go into one delivery of up to `max_bytes`. One that is larger by itself goes alone, so that
    /// it is refused alone.
    pub(crate) fn take(finished: &mut Vec<FinishedAttempt>, max_bytes: usize) -> Self {
        let (mut outcomes, mut bytes) = (Vec::new(), 0_usize);
        for attempt in finished.iter().take(MAX_OUTCOMES) {
            let outcome = attempt.settlement.as_ref().and_then(|settlement| settlement.outcome().ok());
            // All endings have a JSON form. Of one that had none, the service would say what it lacks.
            let outcome = outcome.unwrap_or_else(|| Json::known("null".to_owned()));
            bytes += outcome.as_str().len() + 1;
            if bytes > max_bytes && !outcomes.is_empty() {
                break;
            }
            outcomes.push(outcome);
        }
        Self { attempts: finished.drain(..outcomes.len()).collect(), outcomes }
    }

    /// The indexes of their types in the registrations, of those that hold a slot.
    pub(crate) fn type_indexes(&self) -> Vec<usize> {
        self.attempts.iter().filter_map(|attempt| attempt.type_index).collect()
    }

    fn bytes(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.as_str().len() + 1).sum()
    }

    /// Both halves.
    fn halved(mut self) -> [Self; 2] {
        let half = self.attempts.len() / 2;
        let rest = Self { attempts: self.attempts.split_off(half), outcomes: self.outcomes.split_off(half) };
        [self, rest]
    }

    /// The attempts with what was said of each.
    fn answered(
        self,
        answers: impl IntoIterator<Item = Result<Receipt, ClientError>>,
    ) -> impl Iterator<Item = DeliveredAttempt> {
        self.attempts.into_iter().zip(answers).map(|(finished, result)| DeliveredAttempt { finished, result })
    }
}

/// The outcome of a delivery.
pub(crate) struct Delivery {
    /// What was said of each attempt.
    pub(crate) results: Vec<DeliveredAttempt>,
    /// Attempts that could not be delivered.
    pub(crate) unsettled: Vec<FinishedAttempt>,
    /// The claim that went with the delivery, and its claim id.
    pub(crate) plan: Option<(ClaimPlan, Uuid)>,
    /// The tasks that the claim brought.
    pub(crate) next: ClaimedTasks,
    /// A size that may fit, in bytes, after a larger delivery was refused for its size.
    pub(crate) smaller: Option<usize>,
}

/// What was said of one attempt.
pub(crate) struct DeliveredAttempt {
    /// The attempt, with the settlement that was delivered.
    pub(crate) finished: FinishedAttempt,
    /// The service's receipt or refusal; or the refusal of something before the service, of one that is too large for it.
    pub(crate) result: Result<Receipt, ClientError>,
}

/// Delivers a batch, again and again until the service has answered or [`MAX_DELIVERY_TIME`] is over. What is too large for
/// one call goes in halves, down to single attempts.
pub(crate) async fn deliver(settings: Arc<Settings>, batch: Batch, plan: Option<ClaimPlan>) -> Delivery {
    let plan = plan.map(|plan| (plan, Uuid::now_v7()));
    let mut claim = plan.as_ref().map(|(plan, id)| settings.claim(plan, Duration::ZERO, *id));
    let (results, unsettled, next) = (Vec::new(), Vec::new(), ClaimedTasks::none());
    let mut delivery = Delivery { results, unsettled, plan, next, smaller: None };
    let mut pauses = endless_pauses(FIRST_DELIVERY_PAUSE, LONGEST_DELIVERY_PAUSE);
    let (client, started) = (&settings.client_without_retries, Instant::now());
    // The next one is the last.
    let mut waiting = vec![batch];
    while let Some(batch) = waiting.pop() {
        // The claim counts on the slots of all attempts, so it goes with the last of them.
        let with_it = claim.as_ref().filter(|_| waiting.is_empty());
        let error = match client.send_outcomes(&batch.outcomes, with_it).await {
            Ok((answers, next)) => {
                if with_it.is_some() {
                    delivery.next = next;
                }
                let answers = answers.into_iter().map(|answer| answer.map_err(ClientError::Refused));
                delivery.results.extend(batch.answered(answers));
                continue;
            }
            Err(error) => error,
        };
        if error.is_too_large() {
            if batch.attempts.len() == 1 {
                delivery.results.extend(batch.answered([Err(error)]));
            } else {
                tracing::warn!(%error, bytes = batch.bytes(), "results are delivered in halves: together they are too large");
                delivery.smaller = Some(batch.bytes() / 2);
                waiting.extend(batch.halved().into_iter().rev());
            }
            continue;
        }
        if error.is_final() && claim.take().is_some() {
            // The refusal may be of the claim that goes along, so the settlements are tried once more without it.
            waiting.push(batch);
            continue;
        }
        let pause = pauses.next().map(|drawn| pause_after(&error, drawn)).filter(|_| !error.is_final());
        match pause {
            Some(retry_in) if started.elapsed().saturating_add(retry_in) < MAX_DELIVERY_TIME => {
                let attempts = batch.attempts.len();
                settings.events.emit(WorkerEvent::DeliveryFailed { error: &error, attempts, retry_in });
                tokio::time::sleep(retry_in).await;
                waiting.push(batch);
            }
            _ => {
                for finished in &batch.attempts {
                    settings.events.emit(WorkerEvent::Unsettled { task: &finished.task, error: &error });
                }
                delivery.unsettled.extend(batch.attempts);
            }
        }
    }
    delivery
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

/// What to do with a settlement that was refused because of `error`, and deferred first at `deferred_since`.
pub(crate) fn after_refusal(
    error: &ClientError,
    ending: &Ending,
    deferred_since: Option<Instant>,
    now: Instant,
) -> AfterRefusal {
    let has_time = deferred_since.is_none_or(|since| now < since + MAX_DELIVERY_TIME);
    match error.problem() {
        Some(Problem { code: ErrorCode::LeaseLost | ErrorCode::TaskNotFound, .. }) => AfterRefusal::Lost,
        Some(Problem { code: ErrorCode::ValidationFailed | ErrorCode::PayloadTooLarge, detail, .. }) => {
            acceptable(ending, detail).map_or(AfterRefusal::Unsettled, AfterRefusal::DeliverInstead)
        }
        Some(problem) if !problem.retryable => AfterRefusal::Unsettled,
        // Also what a proxy finds too large: its limit may be raised while there is time.
        _ if has_time => AfterRefusal::DeliverLater,
        _ => AfterRefusal::Unsettled,
    }
}

/// What the service may take where it has refused `ending`.
fn acceptable(ending: &Ending, detail: &str) -> Option<Ending> {
    match ending {
        // The fault may be in what goes with the result, which must not cost it.
        Ending::Completed(completion) if completion.usage.is_some() || completion.result_id.is_some() => {
            tracing::warn!(
                detail,
                "the service does not take a result with its usage and its id: both are left out"
            );
            Some(Ending::Completed(Completion { result: completion.result.clone(), ..Completion::default() }))
        }
        Ending::Completed(_) => {
            let message = format!("the service does not take the result: {detail}");
            Some(Ending::Failed(TaskFailure::never(message).with_code("result_refused")))
        }
        Ending::Failed(failure) => {
            let plain = failure.without_details_and_usage();
            (plain != *failure).then_some(Ending::Failed(plain))
        }
        Ending::Released { .. } | Ending::Cancelled => None,
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::UsageReport;

    use super::*;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused(Box::new(Problem::new(code, "too deep", "r")))
    }

    fn answer(code: ErrorCode, ending: &Ending) -> AfterRefusal {
        after_refusal(&refused(code), ending, None, Instant::now())
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
    fn a_result_is_tried_alone_before_its_task_fails() {
        let result = Some(Json::known("7".to_owned()));
        let alone = Ending::Completed(Completion { result: result.clone(), ..Completion::default() });
        for completion in [
            Completion { result_id: Some("r".to_owned()), result: result.clone(), ..Completion::default() },
            Completion { usage: Some(UsageReport::default()), result, ..Completion::default() },
        ] {
            let answer = answer(ErrorCode::ValidationFailed, &Ending::Completed(completion));
            assert_eq!(answer, AfterRefusal::DeliverInstead(alone.clone()));
        }
    }

    #[test]
    fn what_is_too_large_for_a_proxy_is_kept_while_there_is_time() {
        let (body, proxy) = (String::new(), None);
        let error = ClientError::Unexpected { call: "/tasks", status: 413, retry_after: None, body, proxy };
        let (completed, since) = (Ending::Completed(Completion::default()), Instant::now());
        let answer = |now| after_refusal(&error, &completed, Some(since), now);
        assert_eq!(answer(since), AfterRefusal::DeliverLater);
        assert_eq!(answer(since + MAX_DELIVERY_TIME), AfterRefusal::Unsettled);
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
        let problem = refused(ErrorCode::Overloaded);
        let since = Instant::now();
        assert_eq!(
            after_refusal(&problem, &cancelled, Some(since), since + MAX_DELIVERY_TIME),
            AfterRefusal::Unsettled
        );
    }
}
