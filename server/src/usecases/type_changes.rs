//! Hearing of task types that other servers have changed.

use std::time::{Duration, Instant};

use super::service::TaskService;
use crate::store::{Changes, StoreError};
use crate::task_types::TypeRecord;

/// How often what has changed lately is read though nothing says that it has. A write whose answer was lost may land after
/// its change was counted.
const READ_ANYWAY: Duration = Duration::from_secs(10);
/// How often documents of types without settings and pause are looked for, to be removed.
const CLEAN_UP: Duration = Duration::from_secs(3600);

impl TaskService {
    /// Reads what holds for all task types, for a server that starts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn learn_types(&self) -> Result<(), StoreError> {
        let changes = self.store.changes().await?;
        self.hear_of_types(changes).await
    }

    /// Reads what has changed, if anything has.
    ///
    /// # Errors
    /// When the database does not answer; the next call reads it.
    pub(crate) async fn hear_of_types(&self, changes: Changes) -> Result<(), StoreError> {
        let mut heard = *self.types.heard.lock();
        let is_fresh =
            |(count, at): (i64, Instant)| count == changes.task_types && at.elapsed() < READ_ANYWAY;
        if heard.read.is_some_and(is_fresh) {
            return Ok(());
        }
        let asked = Instant::now();
        for record in self.store.changed_types(heard.newest).await? {
            heard.newest = heard.newest.max(Some(record.changed_at));
            self.note_type(record);
        }
        self.types.forget_removed(self.store.clock().now());
        heard.read = Some((changes.task_types, asked));
        if heard.cleaned_up.is_none_or(|at| at.elapsed() > CLEAN_UP) {
            self.store.forget_removed_types().await?;
            heard.cleaned_up = Some(asked);
        }
        *self.types.heard.lock() = heard;
        Ok(())
    }

    /// Takes note of a type. Where it is not paused any more, callers that wait for its work are looked for again.
    pub(super) fn note_type(&self, record: TypeRecord) {
        let (tenant, task_type) = (record.tenant.clone(), record.task_type.clone());
        if self.types.note(record) {
            self.dispatch.resumed(&tenant, &task_type);
        }
    }
}
