//! Removing tasks whose retention has ended, and what lies beside them.

use bson::{Bson, DateTime, Document, doc};
use chrono::{DateTime as Time, TimeDelta, Utc};
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::beside::BESIDE;
use super::driver::Store;
use super::error::StoreError;
use super::feed::{Counted, Kind, Removal};
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

/// How far the feed must be beyond the end of a task's retention: the times of a change and of its end may come from
/// several servers.
const FEED_MARGIN: TimeDelta = TimeDelta::seconds(2);

/// A task that is about to be removed, and where it is counted.
fn counted(task: &Document) -> Option<Counted> {
    let text = |field: &str| task.get_str(field).ok().map(str::to_owned);
    let kind = || {
        let status = bson::deserialize_from_bson(task.get("status")?.clone()).ok()?;
        Some(Kind { tenant: text("tenant")?, task_type: text("task_type")?, status })
    };
    let is_counted =
        !task.contains_key("deleted_at") && text("tenant").is_some_and(|name| !name.starts_with('_'));
    Some(Counted { id: task.get("_id")?.clone(), as_one_of: if is_counted { kind() } else { None } })
}

impl Store {
    /// Removes up to `limit` tasks whose time has come, and whose last change the feed has passed. Done twice, or cut off
    /// half-way, it does no harm.
    ///
    /// # Errors
    /// When the database does not answer; some tasks may have been removed.
    pub async fn remove_due(&self, limit: usize) -> Result<Removed, StoreError> {
        if let Some(removal) = self.noted_removal().await? {
            self.remove_noted(&removal).await?;
        }
        let position = self.feed_position(self.step_deadline()).await?;
        let Some(passed) = position.and_then(|position| position.as_of) else {
            return Ok(Removed::default());
        };
        let now = self.clock().now().min(passed - FEED_MARGIN);
        let due = doc! { "remove_at": { "$lte": DateTime::from_chrono(now) } };
        let mut options = self.by_index(REMOVAL);
        options.sort = Some(doc! { "remove_at": 1 });
        options.projection =
            Some(doc! { "remove_at": 1, "tenant": 1, "task_type": 1, "status": 1, "deleted_at": 1 });
        options.limit = i64::try_from(limit).ok();
        let found = self.documents("tasks to remove", self.tasks.name(), due, options).await?;
        let Some(first) = found.first() else { return Ok(Removed::default()) };
        let oldest = first.get_datetime("remove_at").ok().map(|at| at.to_chrono());
        let tasks = found.iter().filter_map(counted).collect();
        let removal = Removal { batch: Uuid::now_v7(), due: now, tasks };
        if !self.note_removal(&removal).await? {
            return Ok(Removed { oldest, ..Removed::default() });
        }
        let tasks = self.remove_noted(&removal).await?;
        // Where nothing could be removed, another server was faster.
        Ok(Removed { tasks, is_full: found.len() >= limit && tasks > 0, oldest })
    }

    /// Removes what was written down, and takes it out of the counts. How many there were.
    async fn remove_noted(&self, removal: &Removal) -> Result<u64, StoreError> {
        let due = DateTime::from_chrono(removal.due);
        // As they are: an operator may have put in what has no id of ours.
        let ids: Vec<_> = removal.tasks.iter().map(|task| task.id.clone()).collect();
        let beside = self.with_something_beside(&ids).await?;
        let (rich, plain): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(|id| beside.contains(id));
        let mut tasks = self.remove(plain, due).await?;
        if !rich.is_empty() {
            self.remove_beside(&rich, due).await?;
            tasks += self.remove(rich, due).await?;
        }
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        let still = doc! { "_id": { "$in": ids } };
        let stayed = self.documents("tasks that stay", self.tasks.name(), still, options).await?;
        let stayed: Vec<_> = stayed.iter().filter_map(|task| task.get("_id").cloned()).collect();
        self.uncount(removal, &stayed).await?;
        Ok(tasks)
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
