//! A worker at work: what it holds and what is under way.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use task_repo_protocol::Uuid;

use super::attempt::{FinishedAttempt, StopSignals};
use super::claim::ClaimAnswer;
use super::deliver::{Batch, Delivery};
use super::error::WorkerError;
use super::event::WorkerReport;
use super::heartbeat::HeartbeatThread;
use super::settings::Settings;
use super::slots::Slots;

/// A worker at work.
pub(crate) struct WorkerState {
    pub(super) settings: Arc<Settings>,
    pub(super) heartbeats: HeartbeatThread,
    pub(super) stop: StopSignals,
    /// Handlers at work.
    pub(super) attempts: FuturesUnordered<BoxFuture<'static, FinishedAttempt>>,
    pub(super) claims: FuturesUnordered<BoxFuture<'static, ClaimAnswer>>,
    pub(super) deliveries: FuturesUnordered<BoxFuture<'static, Delivery>>,
    /// Reports of tasks that cannot be read.
    pub(super) reports: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Handlers that go on although their attempts are over, each with the index of its type, whose slot it keeps.
    pub(super) stuck: FuturesUnordered<BoxFuture<'static, usize>>,
    /// Attempts whose delivery is deferred, until it is tried again.
    pub(super) deferred: FuturesUnordered<BoxFuture<'static, FinishedAttempt>>,
    /// Parts of deliveries that go by themselves.
    pub(super) parts: VecDeque<Batch>,
    /// Attempts that are over and go into the next delivery.
    pub(super) finished: Vec<FinishedAttempt>,
    pub(super) report: WorkerReport,
    /// How many attempts, one after the other, ended with the task given back.
    pub(super) released_in_a_row: u32,
    /// About how many bytes go into one delivery; less than is set once something has refused that much.
    pub(super) delivery_bytes: usize,
    /// Nothing more is claimed, and tasks that claims under way still bring are released.
    pub(super) is_stopping: bool,
    pub(super) slots: Slots,
    /// The id of a claim that went with a delivery and brought nothing, for the next claim.
    pub(super) spare_claim_id: Option<Uuid>,
}

/// What the worker's loop waits for.
pub(super) enum LoopEvent {
    AttemptEnded(FinishedAttempt),
    ClaimAnswered(ClaimAnswer),
    Delivered(Delivery),
    DeliverAgain(FinishedAttempt),
    Reported,
    /// A handler that could not be aborted has ended, and keeps its slot no longer.
    StuckEnded(usize),
}

impl WorkerState {
    pub(crate) fn new(settings: Arc<Settings>) -> Result<Self, WorkerError> {
        Ok(Self {
            heartbeats: HeartbeatThread::start(&settings.client_without_retries, settings.events.clone())?,
            slots: settings.slots(),
            delivery_bytes: settings.max_delivery_bytes,
            settings,
            stop: StopSignals::default(),
            stuck: FuturesUnordered::new(),
            deferred: FuturesUnordered::new(),
            parts: VecDeque::new(),
            released_in_a_row: 0,
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

    /// Waits for the next event. No event is lost when this future is dropped.
    pub(super) async fn next_event(&mut self) -> LoopEvent {
        tokio::select! {
            Some(finished) = self.attempts.next() => LoopEvent::AttemptEnded(finished),
            Some(answer) = self.claims.next() => LoopEvent::ClaimAnswered(answer),
            Some(delivery) = self.deliveries.next() => LoopEvent::Delivered(delivery),
            Some(finished) = self.deferred.next() => LoopEvent::DeliverAgain(finished),
            Some(()) = self.reports.next() => LoopEvent::Reported,
            Some(type_index) = self.stuck.next() => LoopEvent::StuckEnded(type_index),
            else => std::future::pending().await,
        }
    }

    /// Frees the slot of an attempt that is over, if it has one.
    pub(super) fn free_slot(&mut self, type_index: Option<usize>) {
        if let Some(type_index) = type_index {
            self.slots.free(type_index);
        }
    }
}
