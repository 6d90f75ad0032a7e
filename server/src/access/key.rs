//! An issued API key as it is kept. Only the SHA-256 of a secret is kept: random keys need no slow hash.

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{Bytes, serde_as, skip_serializing_none};
use subtle::ConstantTimeEq as _;
use task_repo_protocol as wire;
use task_repo_protocol::{Uuid, words};

use crate::kept::Kept;
use crate::same_words::same_words;

words! {
    /// A right of a key.
    pub enum Role {
        /// Creates, edits, cancels and deletes tasks.
        Producer = "producer",
        /// Claims work and reports on it.
        Worker = "worker",
        /// Reads.
        Viewer = "viewer",
        /// Bulk actions, pause and settings.
        Operator = "operator",
        /// Keys and all tenants.
        Admin = "admin",
    }
}

same_words! {
    Role => wire::Role: Producer, Worker, Viewer, Operator, Admin;
    wire::Role => Role: Producer, Worker, Viewer, Operator, Admin;
}

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
    /// A name for people.
    pub name: String,
    /// Its rights.
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

    /// The hash itself. `None`: it is none that this release knows.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        self.hash[..].try_into().ok()
    }

    /// Whether it is this hash, in constant time.
    pub fn is(&self, hash: &[u8; 32]) -> bool {
        self.hash[..].ct_eq(&hash[..]).into()
    }
}
