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

/// After how many answers that may be about its very body a delivery goes in halves: a firewall may object to one result of
/// many, and a proxy may close the connection instead of saying that the body is too large.
const MAX_DOUBTS: u32 = 2;

/// Attempts that are delivered in one call.
pub(crate) struct Batch {
    /// Each has a settlement.
    attempts: Vec<FinishedAttempt>,
    /// What the service is told of each, in order.
    outcomes: Vec<Json>,
}

impl Batch {
    /// Takes as many attempts as go into one delivery of up to `max_bytes`; `None`: there are none. One that is larger by
    /// itself goes alone, so that it is refused alone.
    pub(crate) fn take(finished: &mut Vec<FinishedAttempt>, max_bytes: usize) -> Option<Self> {
        let (mut outcomes, mut bytes) = (Vec::new(), 0_usize);
        for attempt in finished.iter().take(MAX_OUTCOMES) {
            let outcome = outcome_of(attempt);
            bytes += outcome.as_str().len() + 1;
            if bytes > max_bytes && !outcomes.is_empty() {
                break;
            }
            outcomes.push(outcome);
        }
        let attempts: Vec<_> = finished.drain(..outcomes.len()).collect();
        (!attempts.is_empty()).then_some(Self { attempts, outcomes })
    }

    /// One attempt by itself.
    pub(crate) fn alone(attempt: FinishedAttempt) -> Self {
        Self { outcomes: vec![outcome_of(&attempt)], attempts: vec![attempt] }
    }

    /// The indexes of their types in the registrations, of those that hold a slot.
    pub(crate) fn type_indexes(&self) -> Vec<usize> {
        self.attempts.iter().filter_map(|attempt| attempt.type_index).collect()
    }

    fn is_alone(&self) -> bool {
        self.attempts.len() == 1
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
    ) -> Vec<DeliveredAttempt> {
        let delivered = |(finished, result)| DeliveredAttempt { finished, result };
        self.attempts.into_iter().zip(answers).map(delivered).collect()
    }
}

/// What the service is told of an attempt.
fn outcome_of(attempt: &FinishedAttempt) -> Json {
    let outcome = attempt.settlement.as_ref().and_then(|settlement| settlement.outcome().ok());
    // All endings have a JSON form. Of one that had none, the service would say what it lacks.
    outcome.unwrap_or_else(|| Json::known("{}".to_owned()))
}

/// The outcome of a delivery.
pub(crate) struct Delivery {
    /// What was said of each attempt.
    pub(crate) results: Vec<DeliveredAttempt>,
    /// Attempts that could not be delivered.
    pub(crate) unsettled: Vec<FinishedAttempt>,
    /// Attempts that are to be delivered in parts.
    pub(crate) halves: Vec<Batch>,
    /// A size that may fit, in bytes, after this delivery was refused for its size.
    pub(crate) smaller: Option<usize>,
    /// The claim that went with the delivery, and its claim id.
    pub(crate) plan: Option<(ClaimPlan, Uuid)>,
    /// The tasks that the claim brought.
    pub(crate) next: ClaimedTasks,
}

impl Delivery {
    /// One that brought nothing.
    fn of(plan: Option<(ClaimPlan, Uuid)>) -> Self {
        let (results, unsettled, halves) = (Vec::new(), Vec::new(), Vec::new());
        Self { results, unsettled, halves, smaller: None, plan, next: ClaimedTasks::none() }
    }
}

/// What was said of one attempt.
pub(crate) struct DeliveredAttempt {
    /// The attempt, with the settlement that was delivered.
    pub(crate) finished: FinishedAttempt,
    /// The service's receipt or refusal; or, of an attempt that went alone, what something before the service has answered.
    pub(crate) result: Result<Receipt, ClientError>,
}

/// Delivers a batch, again and again until the service has answered or [`MAX_DELIVERY_TIME`] is over. What is too large for
/// one call, or may be why it failed, is given back in halves, down to single attempts, so that none keeps the others back.
pub(crate) async fn deliver(settings: Arc<Settings>, batch: Batch, plan: Option<ClaimPlan>) -> Delivery {
    let plan = plan.map(|plan| (plan, Uuid::now_v7()));
    let mut claim = plan.as_ref().map(|(plan, id)| settings.claim(plan, Duration::ZERO, *id));
    let mut pauses = endless_pauses(FIRST_DELIVERY_PAUSE, LONGEST_DELIVERY_PAUSE);
    let (client, started, mut doubts) = (&settings.client_without_retries, Instant::now(), 0);
    loop {
        let error = match client.send_outcomes(&batch.outcomes, claim.as_ref()).await {
            Ok((answers, next)) => {
                return Delivery { results: batch.answered(answers), next, ..Delivery::of(plan) };
            }
            Err(error) => error,
        };
        doubts += u32::from(error.may_be_about_the_body());
        if error.is_too_large() || doubts >= MAX_DOUBTS {
            if batch.is_alone() {
                return Delivery { results: batch.answered([Err(error)]), ..Delivery::of(plan) };
            }
            let bytes = batch.bytes();
            tracing::warn!(%error, attempts = batch.attempts.len(), bytes, "results are delivered in halves");
            let smaller = error.is_too_large().then_some(bytes / 2);
            return Delivery { halves: batch.halved().into(), smaller, ..Delivery::of(plan) };
        }
        if error.is_final() && claim.take().is_some() {
            // The refusal may be of the claim that goes along, so the settlements are tried once more without it.
            continue;
        }
        let pause = pauses.next().map(|drawn| pause_after(&error, drawn)).filter(|_| !error.is_final());
        match pause {
            Some(retry_in) if started.elapsed().saturating_add(retry_in) < MAX_DELIVERY_TIME => {
                let attempts = batch.attempts.len();
                settings.events.emit(WorkerEvent::DeliveryFailed { error: &error, attempts, retry_in });
                tokio::time::sleep(retry_in).await;
            }
            _ => {
                for finished in &batch.attempts {
                    settings.events.emit(WorkerEvent::Unsettled { task: &finished.task, error: &error });
                }
                return Delivery { unsettled: batch.attempts, ..Delivery::of(plan) };
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
    let instead =
        |why: &str| acceptable(ending, why).map_or(AfterRefusal::Unsettled, AfterRefusal::DeliverInstead);
    match error.problem() {
        Some(Problem { code: ErrorCode::LeaseLost | ErrorCode::TaskNotFound, .. }) => AfterRefusal::Lost,
        Some(Problem { code: ErrorCode::ValidationFailed | ErrorCode::PayloadTooLarge, detail, .. }) => {
            instead(detail)
        }
        Some(problem) if !problem.retryable => AfterRefusal::Unsettled,
        // Also what something before the service has refused: it may be mended while there is time.
        _ if has_time => AfterRefusal::DeliverLater,
        None if error.is_too_large() => instead("something before the service finds it too large"),
        _ => AfterRefusal::Unsettled,
    }
}

/// What the service may take where `ending` was refused.
fn acceptable(ending: &Ending, why: &str) -> Option<Ending> {
    match ending {
        // The fault may be in what goes with the result, which must not cost it.
        Ending::Completed(completion) if completion.usage.is_some() || completion.result_id.is_some() => {
            Some(Ending::Completed(Completion { result: completion.result.clone(), ..Completion::default() }))
        }
        Ending::Completed(_) => {
            let message = format!("the result is not taken: {why}");
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
        let AfterRefusal::DeliverInstead(Ending::Failed(failure)) = answer(since + MAX_DELIVERY_TIME) else {
            panic!("says why there is no result")
        };
        assert_eq!(failure.code(), Some("result_refused"));
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
