//! What the use cases work with.

use std::sync::Arc;

use task_repo_protocol::{DateTime, Utc, Uuid};

use super::end_waits::EndWaits;
use super::failure::Failure;
use super::pending::PendingCounts;
use super::request_schemas::RequestSchemas;
use crate::access::Caller;
use crate::background::Background;
use crate::dispatch::Dispatch;
use crate::lifecycle::Intent;
use crate::store::{Applied, Change, NotApplied, Store, StoreError};
use crate::task_types::KnownTypes;

/// The use cases of tasks. One for a server, shared by all its requests.
pub struct TaskService {
    pub(super) store: Store,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) end_waits: Arc<EndWaits>,
    pub(super) background: Background,
    pub(super) types: Arc<KnownTypes>,
    pub(super) schemas: RequestSchemas,
    pub(super) pending: Arc<PendingCounts>,
}

impl TaskService {
    /// The use cases on that database.
    pub fn new(
        store: Store,
        types: Arc<KnownTypes>,
        dispatch: Arc<Dispatch>,
        background: Background,
    ) -> Arc<Self> {
        store.hub().subscribe(|event| {
            if event.before.is_none() {
                metrics::counter!("task_repo_tasks_created_total").increment(1);
            }
        });
        let end_waits = EndWaits::new(store.hub());
        let (schemas, pending) = (RequestSchemas::default(), PendingCounts::hearing(store.hub()));
        Arc::new(Self { store, dispatch, end_waits, background, types, schemas, pending })
    }

    /// The service's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.store.clock().now()
    }

    /// What is known of task types.
    pub(crate) fn types(&self) -> &Arc<KnownTypes> {
        &self.types
    }

    /// The calls that wait for the end of a task.
    pub(crate) fn end_waits(&self) -> &Arc<EndWaits> {
        &self.end_waits
    }

    /// Makes one change.
    pub(super) async fn change(&self, caller: &Caller, id: Uuid, intent: Intent) -> Result<Applied, Failure> {
        let verb = intent.verb();
        let change = Change { scope: caller.scope.clone(), id, intent };
        let mut results = self.store.apply(vec![change], caller.deadline.at()).await;
        let result = results.pop().unwrap_or(Err(NotApplied::Store(StoreError::OutcomeUnknown)));
        result.map_err(|refused| Failure::of(id, verb, &refused))
    }
}
