//! The results of tasks that have ended, for those who watch them.

use std::collections::HashMap;
use std::time::Instant;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use task_repo_protocol::Uuid;

use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::{read_id, stored_id};

impl Store {
    /// The results of these tasks, JSON text as sent; a task without one is left out. The caller has seen each of them within
    /// its own scope.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn results(&self, ids: &[Uuid], until: Instant) -> Result<HashMap<Uuid, String>, StoreError> {
        let tasks = self.tasks.clone_with_type::<Document>();
        let stored: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        let filter = doc! { "_id": { "$in": stored }, "result": { "$exists": true } };
        let find = async move {
            let found = tasks.find(filter).projection(doc! { "result": 1 }).await?;
            found.try_collect::<Vec<_>>().await
        };
        let found = self.call("results", until, find).await?;
        let result =
            |task: Document| Some((read_id(task.get("_id")?)?, task.get_str("result").ok()?.to_owned()));
        Ok(found.into_iter().filter_map(result).collect())
    }
}
