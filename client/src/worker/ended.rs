//! What the worker does with attempts that are over.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use task_repo_protocol::OutcomeKind;

use super::attempt::FinishedAttempt;
use super::deliver::{self, AfterRefusal, Batch, DeliveredAttempt};
use super::event::WorkerEvent;
use super::state::WorkerState;
use crate::ending::Ending;
use crate::retry::{endless_pauses, pause_after};

/// Least time for which a delivery is deferred when the service could not take it.
const REDELIVERY_DELAY: Duration = Duration::from_millis(500);
/// Up to twice this a delivery is deferred.
const LONGEST_REDELIVERY_DELAY: Duration = Duration::from_secs(5);

impl WorkerState {
    /// A handler has ended.
    pub(super) fn attempt_ended(&mut self, mut finished: FinishedAttempt) {
        self.tell_end(&finished);
        if let Some(mut handler) = finished.still_running.take() {
            // The handler keeps the slot, so that no more of them run than the concurrency allows.
            if let Some(type_index) = finished.type_index.take() {
                let ended = async move {
                    let _ = handler.ended().await;
                    type_index
                };
                self.stuck.push(ended.boxed());
            }
        }
        if finished.settlement.is_some() {
            self.finished.push(finished);
        } else {
            self.free_slot(finished.type_index.take());
            self.attempt_lost(&finished);
        }
    }

    /// Tells what an attempt that is just over ended with, where that is no result.
    fn tell_end(&mut self, finished: &FinishedAttempt) {
        let task = &*finished.task;
        match finished.settlement.as_ref().map(|settlement| &settlement.ending) {
            Some(Ending::Released { .. }) => {
                // What a stop gives back says nothing about the worker's tasks.
                self.released_in_a_row = if self.is_stopping { 0 } else { self.released_in_a_row + 1 };
                let why = finished.given_back.as_deref().unwrap_or_default();
                let in_a_row = self.released_in_a_row;
                self.settings.events.emit(WorkerEvent::GivenBack { task, why, in_a_row });
                return;
            }
            Some(Ending::Failed(failure)) => {
                self.settings.events.emit(WorkerEvent::AttemptFailed { task, failure });
            }
            Some(Ending::Completed(_) | Ending::Cancelled) | None => {}
        }
        self.released_in_a_row = 0;
    }

    /// The delay of a deferred delivery is over.
    pub(super) fn deliver_again(&mut self, finished: FinishedAttempt) {
        if finished.goes_alone {
            self.parts.push_back(Batch::alone(finished));
        } else {
            self.finished.push(finished);
        }
    }

    /// The service has answered the delivery of an attempt.
    pub(super) fn delivered(&mut self, DeliveredAttempt { mut finished, result }: DeliveredAttempt) {
        let Some(mut settlement) = finished.settlement.take() else {
            return self.free_slot(finished.type_index);
        };
        let error = match result {
            Ok(receipt) => {
                *match settlement.ending.kind() {
                    OutcomeKind::Completed => &mut self.report.completed,
                    OutcomeKind::Failed => &mut self.report.failed,
                    OutcomeKind::Released => &mut self.report.released,
                    OutcomeKind::Cancelled => &mut self.report.cancelled,
                } += 1;
                // Ends the heartbeats of the lease.
                drop(finished.lease.take());
                self.free_slot(finished.type_index);
                let event = WorkerEvent::Settled { task: &finished.task, receipt: &receipt };
                return self.settings.events.emit(event);
            }
            Err(error) => error,
        };
        let now = Instant::now();
        match deliver::after_refusal(&error, &settlement.ending, finished.deferred_since, now) {
            AfterRefusal::DeliverLater => {
                let since = *finished.deferred_since.get_or_insert(now);
                finished.settlement = Some(settlement);
                // What something before the service objects to must not keep others back.
                finished.goes_alone = error.problem().is_none();
                // As long again as it has been deferred already, so that the pauses double.
                let base = (now - since).clamp(REDELIVERY_DELAY, LONGEST_REDELIVERY_DELAY);
                let drawn = endless_pauses(base, base).next().unwrap_or(base);
                let retry_in = pause_after(&error, drawn);
                let event = WorkerEvent::DeliveryFailed { error: &error, attempts: 1, retry_in };
                self.settings.events.emit(event);
                self.deferred.push(tokio::time::sleep(retry_in).map(|()| finished).boxed());
            }
            AfterRefusal::DeliverInstead(ending) => {
                let task = &*finished.task;
                if let (Ending::Failed(failure), OutcomeKind::Completed) = (&ending, settlement.ending.kind())
                {
                    self.settings.events.emit(WorkerEvent::AttemptFailed { task, failure });
                } else {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(task.id = %task.id, error, "an end is delivered without what goes with it");
                }
                settlement.ending = ending;
                finished.settlement = Some(settlement);
                self.finished.push(finished);
            }
            AfterRefusal::Lost => {
                self.free_slot(finished.type_index);
                self.attempt_lost(&finished);
            }
            AfterRefusal::Unsettled => {
                self.free_slot(finished.type_index);
                self.settings.events.emit(WorkerEvent::Unsettled { task: &finished.task, error: &error });
                self.report.unsettled += 1;
            }
        }
    }

    fn attempt_lost(&mut self, finished: &FinishedAttempt) {
        self.report.lost += 1;
        self.settings.events.emit(WorkerEvent::Lost { task: &finished.task });
    }
}
