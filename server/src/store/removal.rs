//! Removing tasks whose retention has ended, and what lies beside them.

use bson::{Bson, DateTime, Document, doc};
use chrono::{DateTime as Time, Utc};
use mongodb::options::FindOptions;

use super::beside::BESIDE;
use super::driver::Store;
use super::error::StoreError;
use super::indexes::REMOVAL;

/// The result of a round of removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Tasks removed.
    pub tasks: u64,
    /// Whether there may be more.
    pub is_full: bool,
    /// Since when the first of them might have been removed.
    pub oldest: Option<Time<Utc>>,
}

impl Store {
    /// Removes up to `limit` tasks whose time has come. Done twice, or cut off half-way, it does no harm.
    ///
    /// # Errors
    /// When the database does not answer; some tasks may have been removed.
    pub async fn remove_due(&self, limit: usize) -> Result<Removed, StoreError> {
        let now = DateTime::from_chrono(self.clock().now());
        let due = doc! { "remove_at": { "$lte": now } };
        let mut options = self.by_index(REMOVAL);
        options.sort = Some(doc! { "remove_at": 1 });
        options.projection = Some(doc! { "remove_at": 1 });
        options.limit = i64::try_from(limit).ok();
        let found = self.documents("tasks to remove", self.tasks.name(), due, options).await?;
        // As they are: an operator may have put in what has no id of ours.
        let ids: Vec<_> = found.iter().filter_map(|task| task.get("_id").cloned()).collect();
        let oldest =
            found.first().and_then(|task| task.get_datetime("remove_at").ok()).map(|at| at.to_chrono());
        let beside = self.with_something_beside(&ids).await?;
        let (rich, plain): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| beside.contains(id));
        let mut tasks = self.remove(plain, now).await?;
        if !rich.is_empty() {
            self.remove_beside(&rich, now).await?;
            tasks += self.remove(rich, now).await?;
        }
        // Where nothing could be removed, another server was faster.
        Ok(Removed { tasks, is_full: found.len() >= limit && tasks > 0, oldest })
    }

    /// A task that was executed again meanwhile has no such time any more and stays.
    async fn remove(&self, ids: Vec<Bson>, now: DateTime) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let tasks = self.tasks.clone();
        let filter = doc! { "_id": { "$in": ids }, "remove_at": { "$lte": now } };
        self.call("remove tasks", self.step_deadline(), async move {
            tasks.delete_many(filter).await.map(|done| done.deleted_count)
        })
        .await
    }

    /// Removes what lies beside tasks that are about to go. They are hidden first, so that nobody executes one anew and
    /// finds its checkpoint gone.
    async fn remove_beside(&self, ids: &[Bson], now: DateTime) -> Result<(), StoreError> {
        let tasks = self.tasks.clone();
        let visible =
            doc! { "_id": { "$in": ids }, "remove_at": { "$lte": now }, "deleted_at": { "$exists": false } };
        let hide = doc! { "$set": { "deleted_at": now }, "$bit": { "stamp": { "xor": rand::random::<i64>() & !1 } } };
        self.call("hide tasks", self.step_deadline(), async move {
            tasks.update_many(visible, hide).await.map(|_| ())
        })
        .await?;
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        let hidden =
            doc! { "_id": { "$in": ids }, "remove_at": { "$lte": now }, "deleted_at": { "$exists": true } };
        let hidden = self.documents("hidden tasks", self.tasks.name(), hidden, options).await?;
        let hidden: Vec<_> = hidden.iter().filter_map(|task| task.get("_id").cloned()).collect();
        self.remove_what_is_beside(&hidden).await
    }

    /// Removes what lies beside tasks that nobody can execute any more.
    pub(super) async fn remove_what_is_beside(&self, ids: &[Bson]) -> Result<(), StoreError> {
        for name in BESIDE {
            let beside = self.database.collection::<Document>(&self.beside(name));
            let filter = doc! { "task": { "$in": ids } };
            self.call("remove beside", self.step_deadline(), async move {
                beside.delete_many(filter).await.map(|_| ())
            })
            .await?;
        }
        Ok(())
    }

    /// Those of the tasks that have something beside them.
    async fn with_something_beside(&self, ids: &[Bson]) -> Result<Vec<Bson>, StoreError> {
        let mut found = Vec::new();
        if ids.is_empty() {
            return Ok(found);
        }
        for name in BESIDE {
            let beside = self.database.collection::<Document>(&self.beside(name));
            let filter = doc! { "task": { "$in": ids } };
            found.extend(
                self.call(
                    "beside",
                    self.step_deadline(),
                    async move { beside.distinct("task", filter).await },
                )
                .await?,
            );
        }
        Ok(found)
    }
}
