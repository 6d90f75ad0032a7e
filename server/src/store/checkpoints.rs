//! What attempts leave for the next one: a document for each task that has any, beside the tasks.
//!
//! It is written before the task is, under the token that the task has just been found to have, so that whoever claims the
//! task next finds it. The fence keeps a late one of an earlier attempt from taking the place of a newer one.

use std::collections::HashMap;
use std::time::Instant;

use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Document, doc};
use mongodb::options::FindOptions;
use serde::Deserialize;
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::carried::Staged;
use super::driver::Store;
use super::error::{DUPLICATE_KEY, StoreError};
use super::ids::stored_id;

/// The collection, by what follows the name of the tasks'.
const CHECKPOINTS: &str = "checkpoints";

#[serde_as]
#[derive(Debug, Deserialize)]
struct StoredCheckpoint {
    #[serde(rename = "_id")]
    #[serde_as(as = "Id")]
    task: Uuid,
    text: String,
}

impl Store {
    /// Keeps the checkpoints that come with these writes.
    pub(super) async fn keep_checkpoints(&self, staged: &[Staged], until: Instant) -> Result<(), StoreError> {
        let statement = |stage: &Staged| {
            let checkpoint = stage.record.checkpoint.as_ref()?;
            let id = stored_id(stage.record.id);
            let older = doc! { "_id": &id, "fence": { "$lte": checkpoint.fence } };
            let change = doc! { "task": id, "fence": checkpoint.fence, "text": &checkpoint.text };
            Some(doc! { "q": older, "u": { "$set": change }, "upsert": true })
        };
        let statements: Vec<_> = staged.iter().filter_map(statement).collect();
        if statements.is_empty() {
            return Ok(());
        }
        let command = doc! {
            "update": self.beside(CHECKPOINTS), "updates": statements, "ordered": false,
            "writeConcern": { "w": "majority", "j": true },
        };
        let database = self.database.clone();
        let write = async move { database.run_command(command).await };
        let reply = self.call("keep checkpoints", until, write).await?;
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        // A newer attempt has left one: its document stands in the way of another.
        let is_late = |error: &Document| error.get_i32("code").ok() == Some(DUPLICATE_KEY);
        let is_kept = !reply.contains_key("writeConcernError")
            && errors.iter().all(|error| error.as_document().is_some_and(is_late));
        if is_kept { Ok(()) } else { Err(StoreError::Unavailable) }
    }

    /// The checkpoints of these tasks, as JSON text.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn checkpoints(
        &self,
        ids: &[Uuid],
        until: Instant,
    ) -> Result<HashMap<Uuid, String>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let stored: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        let checkpoints = self.database.collection(&self.beside(CHECKPOINTS));
        let options = FindOptions::builder().max_time(self.timeout).build();
        let of_tasks = doc! { "_id": { "$in": stored } };
        let reading = self
            .find_readable::<StoredCheckpoint>("checkpoints", &checkpoints, of_tasks, options, until)
            .await?;
        Ok(reading.found.into_iter().map(|checkpoint| (checkpoint.task, checkpoint.text)).collect())
    }
}
