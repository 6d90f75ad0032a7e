//! What the worker does about an event: begins claimed tasks, delivers finished attempts, claims for free slots.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use task_repo_protocol::Uuid;

use super::attempt::{self, FinishedAttempt};
use super::claim::{self, ClaimAnswer};
use super::deliver::{self, Batch, Delivery};
use super::event::WorkerEvent;
use super::state::{LoopEvent, WorkerState};
use crate::claimed::ClaimedTask;
use crate::decode::{ClaimedTasks, UndecodableTask};
use crate::error::ClientError;

/// How many deliveries are under way at most; attempts that end meanwhile go together into the next one.
const MAX_DELIVERIES: usize = 2;
/// To how many bytes refusals for size bring deliveries down at most. What is still too large goes in halves each time.
const LEAST_DELIVERY_BYTES: usize = 64 << 10;

impl WorkerState {
    /// Does what an event asks for.
    ///
    /// # Errors
    /// When the service refuses this worker for good.
    pub(super) fn apply(&mut self, event: LoopEvent) -> Result<(), ClientError> {
        match event {
            LoopEvent::AttemptEnded(finished) => {
                self.attempt_ended(finished);
                // Attempts that ended at the same time go into the same delivery.
                while let Some(Some(finished)) = self.attempts.next().now_or_never() {
                    self.attempt_ended(finished);
                }
            }
            LoopEvent::ClaimAnswered(ClaimAnswer { plan, tasks, is_repeated }) => {
                self.slots.answered(&plan);
                self.begin_claimed(tasks?, is_repeated);
            }
            LoopEvent::DeliverAgain(finished) => self.deliver_again(finished),
            LoopEvent::Delivered(Delivery { results, unsettled, halves, smaller, plan, next }) => {
                self.parts.extend(halves);
                if let Some(bytes) = smaller {
                    self.delivery_bytes = self.delivery_bytes.min(bytes).max(LEAST_DELIVERY_BYTES);
                }
                if let Some((plan, claim_id)) = plan {
                    self.slots.answered(&plan);
                    // An answer without tasks may belong to a repetition, after an answer with tasks was lost. The next
                    // claim has the same id, so that the service answers it with those tasks.
                    self.spare_claim_id = Some(claim_id).filter(|_| next.is_empty());
                }
                for finished in unsettled {
                    self.report.unsettled += 1;
                    self.free_slot(finished.type_index);
                }
                for delivered in results {
                    self.delivered(delivered);
                }
                self.begin_claimed(next, false);
            }
            LoopEvent::Reported => {}
            LoopEvent::StuckEnded(type_index) => {
                tracing::info!(
                    task.r#type = self.settings.registrations[type_index].task_type,
                    "a handler that could not be aborted has ended",
                );
                self.slots.free(type_index);
            }
        }
        Ok(())
    }

    /// Claims for the free slots, waiting for work at the service.
    pub(super) fn claim_for_free_slots(&mut self) {
        while let Some(plan) = self.slots.plan() {
            let claim_id = self.spare_claim_id.take().unwrap_or_else(Uuid::now_v7);
            self.claims.push(claim::claim(Arc::clone(&self.settings), plan, claim_id).boxed());
        }
    }

    /// Delivers what is finished, asking for the next work in the same call.
    pub(super) fn deliver_finished(&mut self) {
        while self.deliveries.len() < MAX_DELIVERIES {
            let next = self.parts.pop_front();
            let Some(batch) = next.or_else(|| Batch::take(&mut self.finished, self.delivery_bytes)) else {
                return;
            };
            // The service settles before it claims, so the claim may count on the slots of the settled attempts.
            let plan = if self.is_stopping { None } else { self.slots.plan_after(&batch.type_indexes()) };
            self.deliveries.push(deliver::deliver(Arc::clone(&self.settings), batch, plan).boxed());
        }
    }

    /// Begins the tasks that a claim brought. A task that cannot be read holds no slot, because no handler works on it.
    fn begin_claimed(&mut self, ClaimedTasks { claimed, undecodable }: ClaimedTasks, is_late: bool) {
        for claimed in claimed {
            self.begin_attempt(claimed, is_late);
        }
        for undecodable in undecodable {
            self.report.undecodable += 1;
            let UndecodableTask { id, error, .. } = &undecodable;
            self.settings.events.emit(WorkerEvent::Undecodable { id: *id, error });
            let client = self.settings.client_without_retries.with_retry(deliver::retry_budget());
            self.reports.push(async move { undecodable.report(&client).await }.boxed());
        }
    }

    /// Starts the handler of a claimed task.
    fn begin_attempt(&mut self, claimed: ClaimedTask, is_late: bool) {
        self.report.claimed += 1;
        let type_index = match self.settings.type_index_of(&claimed.task().task_type) {
            Some(type_index) if !self.is_stopping => type_index,
            known => {
                let why = if known.is_some() { "the worker stops" } else { "it has no handler here" };
                return self.attempt_ended(FinishedAttempt::released(claimed, why));
            }
        };
        self.slots.take(type_index);
        self.settings.events.emit(WorkerEvent::Claimed { task: claimed.task() });
        let guard = self.heartbeats.hold(&claimed, is_late.then(Instant::now));
        let (settings, stop) = (Arc::clone(&self.settings), self.stop.clone());
        self.attempts.push(attempt::run(settings, type_index, claimed, guard, stop).boxed());
    }
}
