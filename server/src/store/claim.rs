//! Ready work in claim order, and taking it.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::indexes::{CLAIMS, READY, READY_BY_USER};
use super::transition::Staging;
use super::{Store, StoreError, stored_bytes};
use crate::lifecycle::{self, Effect, Grant, Intent};
use crate::scope::Scope;
use crate::task::TaskRecord;

/// Most bytes of payload that one claim hands out; the first task comes whatever its size.
const MAX_HANDOUT_BYTES: usize = 16 << 20;

/// Which tasks a claim may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    /// What the caller can see.
    pub scope: Scope,
    /// The queues, sorted and each once.
    pub task_types: Vec<String>,
    /// Stored tags that a task must all have.
    pub tags: Vec<String>,
}

impl Selection {
    fn filter(&self) -> Document {
        let mut filter = doc! {
            "tenant": &*self.scope.tenant,
            "task_type": match self.task_types.as_slice() {
                [one] => Bson::from(one.as_str()),
                many => Bson::from(doc! { "$in": many }),
            },
            "status": "pending",
        };
        if let Some(user) = &self.scope.user {
            filter.insert("user_id", &**user);
        }
        if !self.tags.is_empty() {
            filter.insert("tags", doc! { "$all": &self.tags });
        }
        filter
    }

    fn index(&self) -> &'static str {
        if self.scope.user.is_some() { READY_BY_USER } else { READY }
    }
}

impl Store {
    /// Up to `limit` ready tasks in claim order, with their payloads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready(&self, selection: &Selection, limit: usize) -> Result<Vec<TaskRecord>, StoreError> {
        let mut options = self.by_index(selection.index());
        options.sort = Some(doc! { "priority": -1, "ready_at": 1, "_id": 1 });
        options.limit = i64::try_from(limit).ok();
        let (tasks, filter) = (self.tasks.clone(), selection.filter());
        self.read("ready work", async move {
            let mut cursor = tasks.find(filter).with_options(options).await?;
            let mut tasks: Vec<TaskRecord> = Vec::new();
            let mut bytes = 0;
            while let Some(task) = cursor.try_next().await? {
                bytes += task.input_bytes as usize;
                if bytes > MAX_HANDOUT_BYTES && !tasks.is_empty() {
                    break;
                }
                tasks.push(task);
            }
            Ok(tasks)
        })
        .await
    }

    /// Whether any task is ready, for those of `task_types` where one is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_types(&self, tenant: &str, task_types: &[String]) -> Result<Vec<String>, StoreError> {
        self.distinct_types(
            doc! { "tenant": tenant, "task_type": { "$in": task_types }, "status": "pending" },
        )
        .await
    }

    /// Leases these tasks; returns those that were still free, with their payloads.
    pub async fn claim(&self, picks: Vec<(TaskRecord, Grant)>) -> Vec<TaskRecord> {
        let now = self.clock().now();
        let mut staged = Vec::with_capacity(picks.len());
        let mut payloads = std::collections::HashMap::with_capacity(picks.len());
        for (mut task, grant) in picks {
            // Payloads do not change; they need not be compared.
            let payload =
                (task.request.take(), task.template.take(), task.metadata.take(), task.result.take());
            let Some(staging) = Staging::of(&task) else { continue };
            if lifecycle::apply(&mut task, &Intent::Claim(grant), now) != Ok(Effect::Changed) {
                continue;
            }
            payloads.insert(task.id, payload);
            staged.extend(staging.finish(task, false));
        }
        let landed: std::collections::HashMap<_, _> = self.write(&staged).await.into_iter().collect();
        staged
            .into_iter()
            .map(|stage| stage.record)
            .filter(|task| landed.get(&task.id) == Some(&true))
            .filter_map(|mut task| {
                (task.request, task.template, task.metadata, task.result) = payloads.remove(&task.id)?;
                Some(task)
            })
            .collect()
    }

    /// The tasks that a claim with this id (hash) has ever taken, with their payloads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claimed_by(&self, scope: &Scope, claim_id: &[u8]) -> Result<Vec<TaskRecord>, StoreError> {
        let filter = doc! { "tenant": &*scope.tenant, "claim_ids": { "$eq": stored_bytes(claim_id), "$exists": true } };
        self.find("claimed by id", filter, self.by_index(CLAIMS)).await
    }
}
