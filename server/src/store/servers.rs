//! Which servers there are, and the one document that counts changes of what all servers must know.

use std::time::Instant;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Document, doc};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::options::FindOptions;
use serde::{Deserialize, Serialize};
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::driver::Store;
use super::error::StoreError;
use super::ids::stored_id;
use super::schema::INSTALLATION;

/// The registry of servers.
const SERVERS: &str = "servers";
/// How long the entry of a server is kept that does not renew it any more.
const KEPT: TimeDelta = TimeDelta::days(1);

/// A server as the registry knows it.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Drawn when it starts.
    #[serde(rename = "_id")]
    #[serde_as(as = "Id")]
    pub id: Uuid,
    /// The machine it runs on, as that calls itself.
    pub host: String,
    /// Its release.
    pub version: String,
    /// The stored form that it writes, `major.minor`.
    pub schema: String,
    /// When it started.
    #[serde_as(as = "Date")]
    pub started_at: DateTime<Utc>,
    /// When it renewed this entry for the last time.
    #[serde_as(as = "Date")]
    pub renewed_at: DateTime<Utc>,
}

/// How often what all servers must know has changed, by kind. What a newer server counts besides is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// API keys.
    pub keys: i64,
    /// Settings and pauses of task types.
    pub task_types: i64,
}

impl Store {
    /// Renews a server's entry, and forgets servers that have been gone for a day.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_server(&self, server: &ServerRecord) -> Result<(), StoreError> {
        let servers = self.database.collection::<Document>(SERVERS);
        let mut fields = bson::serialize_to_document(server).map_err(|_| StoreError::Unavailable)?;
        fields.remove("_id");
        let (entry, update) = (doc! { "_id": stored_id(server.id) }, doc! { "$set": fields });
        let gone = doc! { "renewed_at": { "$lt": bson::DateTime::from_chrono(server.renewed_at - KEPT) } };
        self.call("renew a server", self.step_deadline(), async move {
            servers.update_one(entry, update).upsert(true).await?;
            servers.delete_many(gone).await.map(|_| ())
        })
        .await
    }

    /// Takes a server that stops out of the registry.
    ///
    /// # Errors
    /// When the database does not answer; the entry then ages.
    pub async fn remove_server(&self, id: Uuid) -> Result<(), StoreError> {
        let servers = self.database.collection::<Document>(SERVERS);
        let entry = doc! { "_id": stored_id(id) };
        self.call("remove a server", self.step_deadline(), async move {
            servers.delete_one(entry).await.map(|_| ())
        })
        .await
    }

    /// The servers that are known, the longest running first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn servers(&self, until: Instant) -> Result<Vec<ServerRecord>, StoreError> {
        let servers = self.database.collection(SERVERS);
        let sort = doc! { "started_at": 1, "_id": 1 };
        let options = FindOptions::builder().sort(sort).max_time(self.timeout).build();
        Ok(self.find_readable("the servers", &servers, doc! {}, options, until).await?.found)
    }

    /// How often what all servers must know has changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn changes(&self) -> Result<Changes, StoreError> {
        let documents = self.database.collection::<Document>(INSTALLATION);
        let found = self
            .call("changes", self.step_deadline(), async move {
                documents.find_one(doc! { "_id": "changes" }).await
            })
            .await?
            .unwrap_or_default();
        let count = |kind| found.get_i64(kind).unwrap_or_default();
        Ok(Changes { keys: count("keys"), task_types: count("task_types") })
    }

    /// Counts a change of the keys, so that every server looks them up anew.
    ///
    /// # Errors
    /// When it is not known whether it was counted.
    pub async fn count_key_change(&self, until: Instant) -> Result<(), StoreError> {
        self.count_change("keys", until).await
    }

    /// Counts a change of task types, so that every server reads what has changed.
    ///
    /// # Errors
    /// When it is not known whether it was counted.
    pub async fn count_type_change(&self, until: Instant) -> Result<(), StoreError> {
        self.count_change("task_types", until).await
    }

    async fn count_change(&self, kind: &str, until: Instant) -> Result<(), StoreError> {
        let documents = self.database.collection::<Document>(INSTALLATION);
        let update = doc! { "$inc": { kind: 1_i64 } };
        let count = async move {
            documents.update_one(doc! { "_id": "changes" }, update).upsert(true).await.map(|_| ())
        };
        self.call("count a change", until, count).await.map_err(|error| match error {
            StoreError::Overloaded => error,
            _ => StoreError::OutcomeUnknown,
        })
    }
}
