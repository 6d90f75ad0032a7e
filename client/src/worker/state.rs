//! A worker at work: what it holds and what is under way.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use task_repo_protocol::Uuid;
use tokio_util::sync::CancellationToken;

use super::attempt::Finished;
use super::claim::Answer;
use super::deliver::Delivery;
use super::error::WorkerError;
use super::event::WorkerReport;
use super::heartbeat::Heartbeats;
use super::settings::Settings;
use super::slots::Slots;

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
    pub(super) spare_claim_id: Option<Uuid>,
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

    /// A task whose slot that was is not held any more.
    pub(super) fn free(&mut self, place: Option<usize>) {
        if let Some(place) = place {
            self.slots.free(place);
        }
    }
}
