//! Taking tasks out of the counts that retention removes.
//!
//! What is about to be removed is written down first. So whoever finds a removal half done finishes it, and each task is
//! taken out of the counts once. Counting anew and removing keep out of each other's way: each writes down that it has
//! begun, and then looks whether the other has.

use std::collections::BTreeMap;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::advance::{add_standing, type_id};
use super::{COUNTS, FEED};
use crate::events::{Standing, TypeKey};
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::task::Status;

/// The document that says what is about to be removed.
const REMOVAL: &str = "removal";

/// Tasks that are about to be removed.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Removal {
    /// Tells it from any other.
    #[serde_as(as = "Id")]
    pub(in crate::store) batch: Uuid,
    /// Those whose time had come by then.
    #[serde_as(as = "Date")]
    pub(in crate::store) due: DateTime<Utc>,
    /// Their ids as they are stored.
    pub(in crate::store) tasks: Vec<Counted>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Counted {
    #[serde(rename = "_id")]
    pub(in crate::store) id: Bson,
    /// Where it is counted; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) as_one_of: Option<Kind>,
}

/// Where a task is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Kind {
    pub(in crate::store) tenant: String,
    pub(in crate::store) task_type: String,
    pub(in crate::store) status: Status,
}

impl Store {
    /// Writes down what is about to be removed. `false`: it must not be now, since the tasks are being counted anew.
    pub(in crate::store) async fn note_removal(&self, removal: &Removal) -> Result<bool, StoreError> {
        let mut note = bson::serialize_to_document(removal).map_err(|_| StoreError::Unavailable)?;
        note.insert("_id", REMOVAL);
        let feed = self.of_feed::<Document>(FEED);
        self.call(
            "note a removal",
            self.step_deadline(),
            async move { feed.insert_one(note).await.map(|_| ()) },
        )
        .await?;
        let position = self.feed_position(self.step_deadline()).await?;
        let may = position.is_some_and(|position| position.recount.is_none());
        if !may {
            self.forget_removal(removal.batch).await?;
        }
        Ok(may)
    }

    /// What somebody has written down and not finished.
    pub(in crate::store) async fn noted_removal(&self) -> Result<Option<Removal>, StoreError> {
        let feed = self.of_feed::<Removal>(FEED);
        let find = async move { feed.find_one(doc! { "_id": REMOVAL }).await };
        self.call("a noted removal", self.step_deadline(), find).await
    }

    async fn forget_removal(&self, batch: Uuid) -> Result<(), StoreError> {
        let feed = self.of_feed::<Document>(FEED);
        let noted = doc! { "_id": REMOVAL, "batch": crate::store::ids::stored_id(batch) };
        self.call("forget a removal", self.step_deadline(), async move {
            feed.delete_one(noted).await.map(|_| ())
        })
        .await
    }

    /// Takes out of the counts what was removed; `stayed` are the ids of those that were not.
    pub(in crate::store) async fn uncount(
        &self,
        removal: &Removal,
        stayed: &[Bson],
    ) -> Result<(), StoreError> {
        let Some(position) = self.feed_position(self.step_deadline()).await? else {
            return self.forget_removal(removal.batch).await;
        };
        let mut types = BTreeMap::<TypeKey, Standing>::new();
        for task in removal.tasks.iter().filter(|task| !stayed.contains(&task.id)) {
            let Some(Kind { tenant, task_type, status }) = task.as_one_of.clone() else { continue };
            *types.entry(TypeKey { tenant, task_type }).or_default().entry(status).or_default() -= 1;
        }
        let statements = types.iter().map(|(key, standing)| {
            let mut increments = Document::new();
            add_standing(&mut increments, position.counts, standing);
            doc! { "q": { "_id": type_id(&key.tenant, &key.task_type) }, "u": { "$inc": increments } }
        });
        let noted = doc! { "_id": REMOVAL, "batch": crate::store::ids::stored_id(removal.batch) };
        let forget = doc! { "delete": self.beside(FEED), "deletes": [{ "q": noted, "limit": 1 }] };
        let mut commands = vec![forget];
        let statements: Vec<_> = statements.collect();
        if !statements.is_empty() {
            commands.push(super::advance::update(&self.beside(COUNTS), statements));
        }
        // Where somebody else was faster, there is nothing left to do.
        self.in_one_transaction("uncount", commands).await.map(|_| ())
    }
}
