//! Issued API keys and their roles.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rules::is_task_type;
use crate::timestamp;
use crate::word::all_known;
use crate::words;

pub use crate::rules::visible_ascii;

words! {
    /// What a key may do. Roles do not contain each other, but every role reads.
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

#[cfg(feature = "openapi")]
crate::word_schema!(Role);

/// Body of `POST /keys`.
#[derive(Debug, Clone, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewKey {
    /// What the key is for, 1–255 characters.
    #[garde(length(chars, min = 1, max = 255))]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub name: String,
    /// At least one.
    #[serde(deserialize_with = "all_known")]
    #[garde(length(min = 1, max = 5))]
    #[cfg_attr(feature = "openapi", schema(schema_with = known_roles))]
    pub roles: Vec<Role>,
    /// The tenant it belongs to; default: the tenant of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_tenant_id)))]
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 128, pattern = "^[\\x21-\\x5e\\x60-\\x7e][\\x21-\\x7e]*$")
    )]
    pub tenant_id: Option<String>,
    /// The only task types the key may create, claim and see; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(min = 1, max = 100), inner(inner(custom(is_task_type))))]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::rules::maybe_task_types_schema))]
    pub task_types: Option<Vec<String>>,
    /// From when on it is refused; default: never.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The schema of the roles of a request.
#[cfg(feature = "openapi")]
fn known_roles() -> utoipa::openapi::schema::Schema {
    let role = utoipa::openapi::RefOr::T(crate::word::known_schema::<Role>());
    utoipa::openapi::ArrayBuilder::new().items(role).min_items(Some(1)).max_items(Some(5)).into()
}

/// Body of `POST /keys/{id}/rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRotation {
    /// How long the old secret stays good, in seconds: 0–31 536 000, default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(range(min = 0, max = 31_536_000))]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_536_000))]
    pub overlap_seconds: Option<i64>,
}

/// A key with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IssuedKey {
    /// Names the key; not secret.
    pub id: Uuid,
    /// The secret. Only its hash is kept.
    pub key: String,
    /// What the key is for.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Whose it is.
    pub tenant_id: String,
    /// The only task types it may touch; `null`: all.
    pub task_types: Option<Vec<String>>,
    /// When it was issued.
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    /// From when on it is refused; `null`: never.
    #[serde(with = "timestamp::option")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedKey").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyInfo {
    /// Names the key.
    pub id: Uuid,
    /// What the key is for.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Whose it is.
    pub tenant_id: String,
    /// The only task types it may touch; `null`: all.
    pub task_types: Option<Vec<String>>,
    /// When it was issued.
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    /// From when on it is refused; `null`: never.
    #[serde(with = "timestamp::option")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute; `null`: never.
    #[serde(with = "timestamp::option")]
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Answer of `GET /keys`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyList {
    /// All keys the caller may see, newest first.
    pub keys: Vec<KeyInfo>,
}

/// 1–128 visible ASCII characters; those that begin with `_` are the service's own.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn is_tenant_id(tenant: &str, _: &()) -> garde::Result {
    if tenant.starts_with('_') {
        return Err(garde::Error::new("tenants that begin with _ are the service's own"));
    }
    visible_ascii(tenant, 128).map_err(garde::Error::new)
}
