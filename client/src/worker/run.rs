//! The loop: claims for the free slots, runs attempts, delivers how they ended.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use task_repo_protocol::{ErrorCode, Uuid};
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Finished};
use super::builder::Settings;
use super::deliver::{self, Delivery};
use super::event::{WorkerEvent, WorkerReport};
use super::heartbeat::Heartbeats;
use super::slots::{Plan, Slots};
use super::{WorkerError, stop};
use crate::claimed::ClaimedTask;
use crate::error::ClientError;
use crate::retry::{endless_pauses, pause_after};
use crate::taken::{Taken, Undecodable};

/// The first pause after a claim failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after a claim failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How many deliveries are under way at most; attempts that end meanwhile go together into the next one.
const MAX_DELIVERIES: usize = 2;

/// A worker at work.
pub(crate) struct Run {
    pub(super) settings: Arc<Settings>,
    pub(super) heartbeats: Heartbeats,
    pub(super) abort: CancellationToken,
    /// Handlers at work, and deliveries put off.
    pub(super) attempts: FuturesUnordered<BoxFuture<'static, Finished>>,
    pub(super) claims: FuturesUnordered<BoxFuture<'static, Answer>>,
    pub(super) deliveries: FuturesUnordered<BoxFuture<'static, Delivery>>,
    /// Reports of tasks that cannot be read.
    pub(super) reports: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Attempts that are over and go into the next delivery.
    pub(super) finished: Vec<Finished>,
    pub(super) report: WorkerReport,
    /// Nothing more is claimed, and what claims under way still bring is given back.
    pub(super) is_stopping: bool,
    pub(super) slots: Slots,
    /// The id of a claim that came with a delivery and brought nothing.
    spare_claim_id: Option<Uuid>,
}

/// What a claim brought.
pub(crate) struct Answer {
    plan: Plan,
    taken: Result<Taken, ClientError>,
    /// It was sent more than once: the leases may be older than they look.
    is_repeated: bool,
}

/// What the loop waits for.
pub(super) enum Happening {
    Finished(Finished),
    Claimed(Answer),
    Delivered(Delivery),
    Reported,
}

impl Run {
    pub(crate) fn new(settings: Arc<Settings>) -> Result<Self, WorkerError> {
        Ok(Self {
            heartbeats: Heartbeats::start(&settings.once, settings.events.clone())?,
            slots: settings.slots(),
            settings,
            abort: CancellationToken::new(),
            attempts: FuturesUnordered::new(),
            claims: FuturesUnordered::new(),
            deliveries: FuturesUnordered::new(),
            reports: FuturesUnordered::new(),
            finished: Vec::new(),
            report: WorkerReport::default(),
            is_stopping: false,
            spare_claim_id: None,
        })
    }

    /// Works until `stop` is done or the service refuses this worker, then winds down.
    pub(crate) async fn until(mut self, stop: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        let mut stop = std::pin::pin!(stop);
        let refusal = loop {
            self.deliver();
            self.claim();
            let happening = tokio::select! {
                biased;
                () = &mut stop => break None,
                happening = self.next() => happening,
            };
            if let Err(error) = self.apply(happening) {
                break Some(error);
            }
        };
        let report = stop::wind_down(self).await;
        refusal.map_or(Ok(report), |error| Err(WorkerError::Refused(error)))
    }

    /// What happens next. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Happening {
        tokio::select! {
            Some(finished) = self.attempts.next() => Happening::Finished(finished),
            Some(answer) = self.claims.next() => Happening::Claimed(answer),
            Some(delivery) = self.deliveries.next() => Happening::Delivered(delivery),
            Some(()) = self.reports.next() => Happening::Reported,
            else => std::future::pending().await,
        }
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// When the service refuses this worker for good.
    pub(super) fn apply(&mut self, happening: Happening) -> Result<(), ClientError> {
        match happening {
            Happening::Finished(finished) => {
                self.over(finished);
                // Those that ended at the same time go into the same delivery.
                while let Some(Some(finished)) = self.attempts.next().now_or_never() {
                    self.over(finished);
                }
            }
            Happening::Claimed(Answer { plan, taken, is_repeated }) => {
                self.slots.answered(&plan);
                self.taken(taken?, is_repeated);
            }
            Happening::Delivered(Delivery { results, unsettled, plan, next }) => {
                if let Some((plan, claim_id)) = plan {
                    self.slots.answered(&plan);
                    // Empty may also mean that the outcomes were taken and then the claim's answer was lost: asked for
                    // by the same id, what it has claimed comes with the next claim.
                    self.spare_claim_id = Some(claim_id).filter(|_| next.is_empty());
                }
                for finished in unsettled {
                    self.report.unsettled += 1;
                    self.free(finished.place);
                }
                for delivered in results {
                    self.delivered(delivered);
                }
                self.taken(next, false);
            }
            Happening::Reported => {}
        }
        Ok(())
    }

    /// Claims for the free slots, waiting for work at the service.
    fn claim(&mut self) {
        while let Some(plan) = self.slots.plan() {
            let claim_id = self.spare_claim_id.take().unwrap_or_else(Uuid::now_v7);
            self.claims.push(claim(Arc::clone(&self.settings), plan, claim_id).boxed());
        }
    }

    /// Delivers what is finished, asking for the next work in the same call.
    pub(super) fn deliver(&mut self) {
        while !self.finished.is_empty() && self.deliveries.len() < MAX_DELIVERIES {
            let batch = deliver::take_batch(&mut self.finished);
            // The service sees to the outcomes before it claims.
            let places: Vec<_> = batch.iter().filter_map(|finished| finished.place).collect();
            let plan = if self.is_stopping { None } else { self.slots.plan_after(&places) };
            self.deliveries.push(deliver::deliver(Arc::clone(&self.settings), batch, plan).boxed());
        }
    }

    /// Begins what a claim brought. What cannot be read holds no slot: no handler works on it.
    fn taken(&mut self, Taken { claimed, undecodable }: Taken, is_late: bool) {
        for claimed in claimed {
            self.begin(claimed, is_late);
        }
        for undecodable in undecodable {
            self.report.undecodable += 1;
            let Undecodable { id, error, .. } = &undecodable;
            self.settings.events.emit(WorkerEvent::Undecodable { id: *id, error });
            let client = self.settings.once.with_retry(deliver::budget());
            self.reports.push(async move { undecodable.report(&client).await }.boxed());
        }
    }

    /// Starts the handler of a claimed task.
    fn begin(&mut self, claimed: ClaimedTask, is_late: bool) {
        self.report.claimed += 1;
        let place = self.settings.place_of(&claimed.task().task_type).filter(|_| !self.is_stopping);
        let Some(place) = place else {
            self.finished.push(Finished::released(claimed));
            return;
        };
        self.slots.take(place);
        self.settings.events.emit(WorkerEvent::Claimed { task: claimed.task() });
        let guard = self.heartbeats.hold(&claimed, is_late.then(Instant::now));
        let (settings, abort) = (Arc::clone(&self.settings), self.abort.clone());
        self.attempts.push(attempt::run(settings, place, claimed, guard, abort).boxed());
    }
}

/// Claims until an answer comes, whatever it takes; only refusals that would come again and again are errors.
async fn claim(settings: Arc<Settings>, plan: Plan, claim_id: Uuid) -> Answer {
    // One id for all repetitions: what an answer that was lost on its way has claimed comes with the next one.
    let claim = settings.claim(&plan, settings.wait, claim_id);
    let mut pauses = endless_pauses(FIRST_PAUSE, LONGEST_PAUSE);
    let mut is_repeated = false;
    loop {
        let asked = Instant::now();
        let error = match settings.once.take(&claim).await {
            Ok(taken) => {
                // A server that is stopping, or one that cannot wait, answers early: do not ask it in a circle.
                if taken.is_empty() && asked.elapsed() < (settings.wait / 2).max(FIRST_PAUSE) {
                    tokio::time::sleep(pauses.next().unwrap_or(FIRST_PAUSE)).await;
                }
                return Answer { plan, taken: Ok(taken), is_repeated };
            }
            Err(error) if is_final(&error) => return Answer { plan, taken: Err(error), is_repeated },
            Err(error) => error,
        };
        let retry_in = pause_after(&error, pauses.next().unwrap_or(LONGEST_PAUSE));
        settings.events.emit(WorkerEvent::ClaimFailed { error: &error, retry_in });
        tokio::time::sleep(retry_in).await;
        is_repeated = true;
    }
}

/// Whether a claim that was refused so will be refused again, until somebody changes the worker or its key.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::InvalidArgument(_) | ClientError::Encode(_) => true,
        ClientError::Refused(problem) => matches!(
            problem.code,
            ErrorCode::MalformedJson
                | ErrorCode::InvalidParameter
                | ErrorCode::Unauthenticated
                | ErrorCode::Forbidden
                | ErrorCode::NotFound
                | ErrorCode::MethodNotAllowed
                | ErrorCode::UnsupportedMediaType
                | ErrorCode::ValidationFailed
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::{Problem, Word};

    use super::*;

    #[test]
    fn a_worker_gives_up_only_on_what_stays_refused() {
        let refused = |code| ClientError::Refused(Box::new(Problem::new(code, "", "r")));
        assert!(is_final(&refused(ErrorCode::Unauthenticated)));
        assert!(is_final(&refused(ErrorCode::Forbidden)));
        for code in
            [ErrorCode::Internal, ErrorCode::Overloaded, ErrorCode::Unavailable, ErrorCode::LimitExceeded]
        {
            assert!(!is_final(&refused(code)), "{code}");
        }
        let unknown = Word::new("a_code_of_the_future").map(ErrorCode::Other).expect("short enough");
        assert!(!is_final(&refused(unknown)), "it may pass");
    }
}
