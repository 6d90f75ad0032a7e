//! Finds what other servers did, for the calls that wait here: ready work, and tasks that ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rand::seq::IndexedRandom as _;

use super::runner::{Job, JobRound, Steps};
use crate::dispatch::Dispatch;
use crate::store::{Awaited, Selection, Store, StoreError};
use crate::usecases::EndWaits;

/// How many tenants are read for at once.
const PARALLEL_TENANTS: usize = 8;
/// How many task types one read is for.
const TYPES_TOGETHER: usize = 100;
/// How many selections that take only some of the work one read is for.
const SELECTIONS_TOGETHER: usize = 500;
/// How many more reads a tenant gets for selections whose work may be hidden by tasks that nobody takes.
const SINGLE_READS: usize = 16;
/// How many tasks whose end is awaited one read is for.
const ENDS_TOGETHER: usize = 1000;

/// The job.
pub(super) struct Waker {
    store: Store,
    dispatch: Arc<Dispatch>,
    end_waits: Arc<EndWaits>,
    pause: Duration,
}

impl Job for Waker {
    const NAME: &'static str = "waker";

    /// One read for all calls that wait here, whatever their number.
    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let awaited = self.dispatch.awaited().into_iter();
        let reads = awaited.map(|(tenant, awaited)| self.wake_claims(tenant, awaited, steps));
        let reads: Vec<_> = stream::iter(reads).buffer_unordered(PARALLEL_TENANTS).collect().await;
        let awaited = self.end_waits.awaited();
        for ids in awaited.chunks(ENDS_TOGETHER) {
            let unfinished = self.store.unfinished(ids).await?;
            ids.iter().filter(|id| !unfinished.contains(id)).for_each(|id| self.end_waits.finished(*id));
            steps.step();
        }
        let waiting = u32::try_from(self.dispatch.waiting()).unwrap_or(u32::MAX);
        metrics::gauge!("task_repo_waiting_claims").set(waiting);
        // Checked last, because a read that failed is one tenant's.
        reads.into_iter().collect::<Result<(), _>>()?;
        Ok(JobRound::done(self.pause))
    }
}

impl Waker {
    pub(super) fn new(
        store: &Store,
        dispatch: &Arc<Dispatch>,
        end_waits: &Arc<EndWaits>,
        pause: Duration,
    ) -> Self {
        let (dispatch, end_waits) = (Arc::clone(dispatch), Arc::clone(end_waits));
        Self { store: store.clone(), dispatch, end_waits, pause }
    }

    /// Reads what is ready of a tenant's work that a claim waits for.
    async fn wake_claims(&self, tenant: Arc<str>, awaited: Awaited, steps: &Steps) -> Result<(), StoreError> {
        let task_types: Vec<_> = awaited.task_types.iter().cloned().collect();
        for types in task_types.chunks(TYPES_TOGETHER) {
            for ready in self.store.ready_types(&tenant, types).await? {
                self.dispatch.wake_type(&tenant, &ready);
            }
            steps.step();
        }
        let (own, tagged): (Vec<_>, Vec<_>) =
            awaited.narrow.iter().partition(|wanted| wanted.scope.user.is_some());
        let mut hidden = Vec::new();
        for wanted in own.chunks(SELECTIONS_TOGETHER).chain(tagged.chunks(SELECTIONS_TOGETHER)) {
            let ready = self.store.ready_for_any(&tenant, wanted).await?;
            if ready.is_cut {
                let found = |wanted: &Selection| ready.tasks.iter().any(|task| wanted.takes(task));
                hidden.extend(wanted.iter().filter(|wanted| !found(wanted)));
            }
            ready.tasks.iter().for_each(|task| self.dispatch.wake_for(task));
            steps.step();
        }
        // Tasks that nobody here takes filled the answer, and may hide work of other selections: some get a read of
        // their own.
        let some: Vec<_> = hidden.sample(&mut rand::rng(), SINGLE_READS).copied().collect();
        for wanted in some {
            let ready = self.store.ready_for_any(&tenant, &[wanted]).await?;
            ready.tasks.iter().for_each(|task| self.dispatch.wake_for(task));
            steps.step();
        }
        Ok(())
    }
}
