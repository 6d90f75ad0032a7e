//! Issued API keys. Only the SHA-256 of a secret is kept: random keys need no slow hash.

use bson::doc;
use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use chrono::{DateTime, Utc};
use mongodb::options::FindOptions;
use serde::{Deserialize, Serialize};
use serde_with::{Bytes, serde_as, skip_serializing_none};
use subtle::ConstantTimeEq as _;
use task_repo_protocol::Uuid;

use super::driver::Reading;
use super::driver::Store;
use super::error::StoreError;
use super::ids::{stored_bytes, stored_id};
use crate::task::{Kept, Role};

/// An issued key.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Names the key.
    #[serde(rename = "_id")]
    #[serde_as(as = "Id")]
    pub id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// The only task types it may touch; absent: all.
    pub task_types: Option<Vec<String>>,
    /// When it was issued.
    #[serde_as(as = "Date")]
    pub created_at: DateTime<Utc>,
    /// From when on it is refused.
    #[serde_as(as = "Option<Date>")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    #[serde_as(as = "Option<Date>")]
    pub last_used_at: Option<DateTime<Utc>>,
    /// Its secrets: the current one, and replaced ones while they overlap.
    pub hashes: Vec<Kept<SecretHash>>,
    /// Grows with every change of its secrets.
    #[serde(default)]
    pub version: i64,
}

/// The hash of a secret. It has no `==` on purpose: that takes the longer the more of two hashes is the same.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretHash {
    /// SHA-256.
    #[serde_as(as = "Bytes")]
    hash: Vec<u8>,
    /// Until when it is good; absent: as long as the key.
    #[serde_as(as = "Option<Date>")]
    pub until: Option<DateTime<Utc>>,
}

impl SecretHash {
    /// That of a secret which is good as long as its key.
    pub fn new(hash: [u8; 32]) -> Self {
        Self { hash: hash.into(), until: None }
    }

    /// The same, good until then at most.
    #[must_use]
    pub fn until(&self, end: DateTime<Utc>) -> Self {
        Self { hash: self.hash.clone(), until: Some(self.until.map_or(end, |until| until.min(end))) }
    }

    /// Whether it is this hash, in constant time.
    pub fn is(&self, hash: &[u8; 32]) -> bool {
        self.hash[..].ct_eq(&hash[..]).into()
    }
}

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
    pub async fn insert_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        let key = bson::serialize_to_raw_document_buf(&key).map_err(|_| StoreError::Unavailable)?;
        let keys = self.keys.clone();
        self.key_write("insert a key", async move { keys.insert_one(key).await.map(|_| ()) }).await
    }

    /// All keys, newest first, of one tenant or of all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_keys(&self, tenant: Option<&str>) -> Result<Vec<KeyRecord>, StoreError> {
        let filter = tenant.map_or_else(|| doc! {}, |tenant| doc! { "tenant": tenant });
        let sort = doc! { "created_at": -1, "_id": -1 };
        let options = FindOptions::builder().sort(sort).max_time(self.timeout).build();
        Ok(self.find_readable("list keys", &self.keys, filter, options).await?.found)
    }

    /// The key that has this secret.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key_by_hash(&self, hash: &[u8]) -> Result<Option<KeyRecord>, StoreError> {
        let filter = doc! { "hashes.hash": stored_bytes(hash) };
        only(self.find_readable("a key by its hash", &self.keys, filter, FindOptions::default()).await?)
    }

    /// The key with this id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn key_by_id(&self, id: Uuid) -> Result<Option<KeyRecord>, StoreError> {
        only(self.find_readable("a key by its id", &self.keys, id_filter(id), FindOptions::default()).await?)
    }

    /// Gives a key these secrets instead of the ones it was read with; `false` when it has changed since.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replace_secrets(
        &self,
        key: &KeyRecord,
        hashes: &[Kept<SecretHash>],
    ) -> Result<bool, StoreError> {
        let hashes = bson::serialize_to_bson(hashes).map_err(|_| StoreError::Unavailable)?;
        let mut filter = id_filter(key.id);
        filter.insert("version", key.version);
        let update = doc! { "$set": { "hashes": hashes }, "$inc": { "version": 1_i64 } };
        let keys = self.keys.clone();
        self.key_write("replace a key's secret", async move {
            keys.update_one(filter, update).await.map(|done| done.matched_count == 1)
        })
        .await
    }

    /// Removes a key; `false` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_key(&self, id: Uuid) -> Result<bool, StoreError> {
        let keys = self.keys.clone();
        self.key_write("delete a key", async move {
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
        self.key_write("touch a key", async move { keys.update_one(id_filter(id), update).await.map(|_| ()) })
            .await
    }

    /// A write of a key: as durable as one of a task, and not known to be applied when it fails.
    async fn key_write<T, F>(&self, what: &'static str, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
    {
        self.call(what, call).await.map_err(|error| match error {
            StoreError::Overloaded => error,
            _ => StoreError::OutcomeUnknown,
        })
    }
}
