//! Issued API keys.

use std::time::Instant;

use bson::doc;
use chrono::{DateTime, Utc};
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::driver::{Reading, Store};
use super::error::StoreError;
use super::ids::{stored_bytes, stored_id};
use crate::access::{KeyRecord, SecretHash};
use crate::kept::Kept;

/// The first of them; `Unreadable` where there is one that this server cannot read.
fn only(reading: Reading<KeyRecord>) -> Result<Option<KeyRecord>, StoreError> {
    match reading.found.into_iter().next() {
        None if reading.seen > 0 => Err(StoreError::Unreadable),
        found => Ok(found),
    }
}

fn id_filter(id: Uuid) -> bson::Document {
    doc! { "_id": stored_id(id) }
}

impl Store {
    /// Keeps a new key.
    ///
    /// # Errors
    /// When the database does not answer; a retry makes another key.
    pub async fn insert_key(&self, key: KeyRecord, until: Instant) -> Result<(), StoreError> {
        let key = bson::serialize_to_raw_document_buf(&key).map_err(|_| StoreError::Unavailable)?;
        let keys = self.keys.clone();
        self.key_write("insert a key", until, async move { keys.insert_one(key).await.map(|_| ()) }).await
    }

    /// All keys, newest first, of one tenant or of all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_keys(
        &self,
        tenant: Option<&str>,
        until: Instant,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let filter = tenant.map_or_else(|| doc! {}, |tenant| doc! { "tenant": tenant });
        let sort = doc! { "created_at": -1, "_id": -1 };
        let options = FindOptions::builder().sort(sort).max_time(self.timeout).build();
        Ok(self.find_readable("list keys", &self.keys, filter, options, until).await?.found)
    }

    /// The key that has this secret.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key_by_hash(&self, hash: &[u8], until: Instant) -> Result<Option<KeyRecord>, StoreError> {
        let filter = doc! { "hashes.hash": stored_bytes(hash) };
        only(
            self.find_readable("a key by its hash", &self.keys, filter, FindOptions::default(), until)
                .await?,
        )
    }

    /// The key with this id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key_by_id(&self, id: Uuid, until: Instant) -> Result<Option<KeyRecord>, StoreError> {
        only(
            self.find_readable("a key by its id", &self.keys, id_filter(id), FindOptions::default(), until)
                .await?,
        )
    }

    /// Gives a key these secrets instead of the ones it was read with; `false` when it has changed since.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replace_secrets(
        &self,
        key: &KeyRecord,
        hashes: &[Kept<SecretHash>],
        until: Instant,
    ) -> Result<bool, StoreError> {
        let hashes = bson::serialize_to_bson(hashes).map_err(|_| StoreError::Unavailable)?;
        let mut filter = id_filter(key.id);
        filter.insert("version", key.version);
        let update = doc! { "$set": { "hashes": hashes }, "$inc": { "version": 1_i64 } };
        let keys = self.keys.clone();
        self.key_write("replace a key's secret", until, async move {
            keys.update_one(filter, update).await.map(|done| done.matched_count == 1)
        })
        .await
    }

    /// Removes a key; `false` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_key(&self, id: Uuid, until: Instant) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.key_write("delete a key", until, async move {
            keys.delete_one(id_filter(id)).await.map(|done| done.deleted_count == 1)
        })
        .await
    }

    /// Notes that a key was used.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn touch_key(&self, id: Uuid, at: DateTime<Utc>) -> Result<(), StoreError> {
        let keys = self.keys.clone();
        let update = doc! { "$set": { "last_used_at": bson::DateTime::from_chrono(at) } };
        self.key_write("touch a key", self.step_deadline(), async move {
            keys.update_one(id_filter(id), update).await.map(|_| ())
        })
        .await
    }

    /// A write of a key: as durable as one of a task, and not known to be applied when it fails.
    async fn key_write<T, F>(&self, what: &'static str, until: Instant, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
    {
        self.call(what, until, call).await.map_err(|error| match error {
            StoreError::Overloaded => error,
            _ => StoreError::OutcomeUnknown,
        })
    }
}
