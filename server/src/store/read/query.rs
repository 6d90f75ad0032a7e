//! Reading: by id, by result.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::projection::without_payload;
use crate::access::{Caller, Scope};
use crate::store::carried::ReadOutcome;
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::{read_id, stored_id};
use crate::store::indexes::RESULTS;
use crate::task::{Status, TaskRecord};

/// A task to be read.
#[derive(Debug, Clone)]
pub struct TaskQuery {
    /// What the caller can see.
    pub scope: Scope,
    /// The task.
    pub id: Uuid,
}

impl Store {
    /// Reads tasks by id; each has its own answer, `None` where there is none for that caller.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get(
        &self,
        wants: &[TaskQuery],
        payload: bool,
        until: Instant,
    ) -> Result<Vec<Result<Option<TaskRecord>, StoreError>>, StoreError> {
        let ids: Vec<_> = wants.iter().map(|want| stored_id(want.id)).collect();
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = (!payload).then(without_payload);
        let reading = self.find("by id", doc! { "_id": { "$in": ids } }, options, until).await?;
        let mut unreadable: HashMap<_, _> = reading.unreadable.into_iter().collect();
        let mut found: HashMap<_, _> = reading.found.into_iter().map(|task| (task.id, task)).collect();
        let is_missing = |id: &Uuid| !unreadable.contains_key(id) && !found.contains_key(id);
        let missing: Vec<_> = wants.iter().map(|want| want.id).filter(is_missing).collect();
        // A new primary may show for a moment less than a majority has.
        for (id, read) in self.read_certainly(&missing, payload, until).await? {
            match read {
                ReadOutcome::Task(task) => drop(found.insert(id, *task)),
                ReadOutcome::Unreadable(tenant) => drop(unreadable.insert(id, tenant)),
                ReadOutcome::Missing => {}
            }
        }
        let read = |want: &TaskQuery| match unreadable.get(&want.id) {
            // Whose it is must be known, or it does not exist for that caller.
            Some(Some(tenant)) if **tenant == *want.scope.tenant => Err(StoreError::Unreadable),
            _ => Ok(found.get(&want.id).filter(|task| task.is_in(&want.scope)).cloned()),
        };
        Ok(wants.iter().map(read).collect())
    }

    /// Which of these tasks are not final and not deleted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unfinished(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        // A status that only a newer version knows counts as unfinished.
        let is_over = Status::ALL.iter().filter(|status| status.is_final()).map(Status::as_str);
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        let filter = doc! { "_id": { "$in": ids }, "status": { "$nin": is_over.collect::<Vec<_>>() } };
        let tasks = self.tasks.clone_with_type::<Document>();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<_>>().await };
        let found = self.call("unfinished", self.step_deadline(), find).await?;
        Ok(found.iter().filter_map(|found| found.get("_id").and_then(read_id)).collect())
    }

    /// The newest task that produced this result.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn by_result(
        &self,
        caller: &Caller,
        result_id: &str,
    ) -> Result<Option<TaskRecord>, StoreError> {
        let Caller { scope, deadline } = caller;
        let mut filter = doc! {
            "tenant": &*scope.tenant,
            "result_id": { "$eq": result_id, "$exists": true },
            "deleted_at": { "$exists": false },
        };
        if let Some(user) = &scope.user {
            filter.insert("user_id", &**user);
        }
        if let Some(task_types) = &scope.task_types {
            filter.insert("task_type", doc! { "$in": &**task_types });
        }
        let mut options = self.by_index(RESULTS);
        options.sort = Some(doc! { "created_at": -1, "_id": -1 });
        options.limit = Some(1);
        Ok(self.find("by result", filter, options, deadline.at()).await?.found.pop())
    }
}
