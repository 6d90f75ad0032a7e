//! What the worker does with attempts that are over.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use task_repo_protocol::OutcomeKind;

use super::attempt::FinishedAttempt;
use super::deliver::{self, AfterRefusal, DeliveredAttempt};
use super::event::WorkerEvent;
use super::state::WorkerState;
use crate::error::ClientError;
use crate::retry::{endless_pauses, pause_after};

/// Least time for which a delivery is deferred when the service could not take it.
const REDELIVERY_DELAY: Duration = Duration::from_millis(500);

impl WorkerState {
    /// A handler has ended, or the delay of a deferred delivery is over.
    pub(super) fn attempt_ended(&mut self, mut finished: FinishedAttempt) {
        if finished.settlement.is_some() {
            self.finished.push(finished);
        } else {
            self.free_slot(finished.type_index.take());
            self.attempt_lost(&finished);
        }
    }

    /// The service has answered the delivery of an attempt.
    pub(super) fn delivered(&mut self, DeliveredAttempt { mut finished, kind, result }: DeliveredAttempt) {
        let (problem, mut settlement) = match (result, finished.settlement.take()) {
            (Err(problem), Some(settlement)) => (problem, settlement),
            (Err(_), None) => return self.free_slot(finished.type_index),
            (Ok(receipt), _) => {
                *match kind {
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
        };
        let now = Instant::now();
        match deliver::after_refusal(&problem, &settlement.ending, finished.deferred_since, now) {
            AfterRefusal::DeliverLater => {
                finished.deferred_since = finished.deferred_since.or(Some(now));
                finished.settlement = Some(settlement);
                let drawn =
                    endless_pauses(REDELIVERY_DELAY, REDELIVERY_DELAY).next().unwrap_or(REDELIVERY_DELAY);
                let pause = pause_after(&ClientError::Refused(problem), drawn);
                self.attempts.push(tokio::time::sleep(pause).map(|()| finished).boxed());
            }
            AfterRefusal::DeliverInstead(ending) => {
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
                let error = ClientError::Refused(problem);
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
