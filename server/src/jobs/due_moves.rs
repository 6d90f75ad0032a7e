//! Moving tasks whose time has come, page by page.

use std::collections::HashSet;
use std::time::Duration;

use task_repo_protocol::Uuid;

use crate::access::Scope;
use crate::lifecycle::{Intent, Refusal};
use crate::store::{Change, DuePage, DueTask, DueTasks, NotApplied, Store, StoreError};

/// How many tasks are read and moved together.
pub(super) const PAGE: usize = 500;

/// One round of a job that moves due tasks. A task that cannot be moved does not keep those behind it waiting.
pub(super) struct DueMoves<'a> {
    store: &'a Store,
    page: DuePage,
    lag: Duration,
    failure: Option<StoreError>,
}

impl<'a> DueMoves<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, page: DuePage::default(), lag: Duration::ZERO, failure: None }
    }

    /// Where the next page begins.
    pub(super) fn page(&self) -> &DuePage {
        &self.page
    }

    /// Moves what is due of the page that was found.
    pub(super) async fn make(&mut self, found: &DueTasks, due: &[DueTask], intent: impl Fn() -> Intent) {
        let gone = self.moved(due, intent).await;
        self.page = std::mem::take(&mut self.page).behind(found, |id| !gone.contains(&id));
    }

    /// How late it was for the oldest task that was moved.
    ///
    /// # Errors
    /// Why some could not be moved, if that was the database's doing.
    pub(super) fn end(self) -> Result<Duration, StoreError> {
        self.failure.map_or(Ok(self.lag), Err)
    }

    /// Moves these tasks. Returns those that are not due any more.
    async fn moved(&mut self, due: &[DueTask], intent: impl Fn() -> Intent) -> HashSet<Uuid> {
        let mut gone = HashSet::new();
        if due.is_empty() {
            return gone;
        }
        let began = self.store.clock().now();
        let changes = due
            .iter()
            .map(|task| Change { scope: Scope::tenant(&task.tenant), id: task.id, intent: intent() })
            .collect();
        let results = self.store.apply(changes, self.store.step_deadline()).await;
        for (task, result) in due.iter().zip(results) {
            match result {
                Ok(_) => {
                    self.lag = self.lag.max((began - task.at).to_std().unwrap_or_default());
                    gone.insert(task.id);
                }
                // One that cannot be read would fail for ever, unlike a database that does not answer.
                Err(NotApplied::Store(StoreError::Unreadable) | NotApplied::Task(Refusal::NotDue)) => {}
                Err(NotApplied::Store(error)) => self.failure = Some(error),
                // Another server, its worker or its owner was faster.
                Err(NotApplied::Missing | NotApplied::Task(_)) => drop(gone.insert(task.id)),
            }
        }
        gone
    }
}
