//! What becomes of attempts that are over.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use task_repo_protocol::OutcomeKind;

use super::attempt::Finished;
use super::deliver::{self, Delivered, Refused};
use super::event::WorkerEvent;
use super::state::Run;
use crate::error::ClientError;
use crate::retry::{endless_pauses, pause_after};

/// How long at least a delivery is put off when the service could not take it just then.
const PUT_OFF: Duration = Duration::from_millis(500);

impl Run {
    /// A handler is done, or a delivery was put off for long enough.
    pub(super) fn over(&mut self, mut finished: Finished) {
        if finished.settlement.is_some() {
            self.finished.push(finished);
        } else {
            self.free(finished.place.take());
            self.lost(&finished);
        }
    }

    /// The service said what became of an attempt.
    pub(super) fn delivered(&mut self, Delivered { mut finished, kind, result }: Delivered) {
        let (problem, mut settlement) = match (result, finished.settlement.take()) {
            (Err(problem), Some(settlement)) => (problem, settlement),
            (Err(_), None) => return self.free(finished.place),
            (Ok(receipt), _) => {
                *match kind {
                    OutcomeKind::Completed => &mut self.report.completed,
                    OutcomeKind::Failed => &mut self.report.failed,
                    OutcomeKind::Released => &mut self.report.released,
                    OutcomeKind::Cancelled => &mut self.report.cancelled,
                } += 1;
                // No more heartbeats for what is over.
                drop(finished.lease.take());
                self.free(finished.place);
                let event = WorkerEvent::Settled { task: &finished.task, receipt: &receipt };
                return self.settings.events.emit(event);
            }
        };
        let now = Instant::now();
        match deliver::refused(&problem, &settlement.ending, finished.put_off_since, now) {
            Refused::Later => {
                finished.put_off_since = finished.put_off_since.or(Some(now));
                finished.settlement = Some(settlement);
                let drawn = endless_pauses(PUT_OFF, PUT_OFF).next().unwrap_or(PUT_OFF);
                let pause = pause_after(&ClientError::Refused(problem), drawn);
                self.attempts.push(tokio::time::sleep(pause).map(|()| finished).boxed());
            }
            Refused::Instead(ending) => {
                settlement.ending = ending;
                finished.settlement = Some(settlement);
                self.finished.push(finished);
            }
            Refused::Lost => {
                self.free(finished.place);
                self.lost(&finished);
            }
            Refused::Unsettled => {
                self.free(finished.place);
                let error = ClientError::Refused(problem);
                self.settings.events.emit(WorkerEvent::Unsettled { task: &finished.task, error: &error });
                self.report.unsettled += 1;
            }
        }
    }

    fn lost(&mut self, finished: &Finished) {
        self.report.lost += 1;
        self.settings.events.emit(WorkerEvent::Lost { task: &finished.task });
    }
}
