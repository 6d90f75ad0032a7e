//! Tokens that open one stream without a key: for browsers, whose `EventSource` sends no headers.
//!
//! A token says what it is for, until when, and which key made it, and is signed. Nothing of it is stored.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use task_repo_protocol::{DateTime, Utc, Uuid};
use tokio::sync::OnceCell;

use super::failure::Failure;
use super::keys::Keys;
use crate::access::{Identity, Scope};
use crate::store::Store;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 2048;

/// Signs stream tokens, and knows its own.
pub struct StreamTokens {
    store: Store,
    keys: Arc<Keys>,
    key: OnceCell<Vec<u8>>,
}

/// The one stream that a token opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneStream {
    /// That of a task.
    Task(Uuid),
    /// That of a tenant's tasks, with these filters.
    Tenant(FilterHash),
}

/// What identifies the filters of a stream: they stand in its URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterHash(String);

/// What a token allows.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The key that made it.
    pub identity: Identity,
    /// What it was made for.
    pub scope: Scope,
    /// The stream.
    pub stream: OneStream,
}

/// What a token says. Short names: it stands in a URL.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// The tenant.
    t: String,
    /// The user on whose behalf it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
    /// The stream.
    s: OneStream,
    /// Until when it is good, in milliseconds since 1970.
    e: i64,
    /// The key that made it.
    k: Maker,
}

/// Which key made a token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Maker {
    /// An issued one.
    Issued(Uuid),
    /// A bootstrap key, by a signature of the hash of its secret.
    Bootstrap(String),
}

impl FilterHash {
    /// Of these filters, in whatever order.
    pub fn of(task_types: &[String], user_ids: &[String]) -> Self {
        let mut hash = Sha256::new();
        for list in [task_types, user_ids] {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_unstable();
            list.dedup();
            for one in list {
                hash.update(one.as_bytes());
                hash.update(b"\n");
            }
            hash.update(b"\n");
        }
        Self(URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

impl StreamTokens {
    /// Tokens of that installation, which die with the keys that made them.
    pub fn new(store: Store, keys: Arc<Keys>) -> Self {
        Self { store, keys, key: OnceCell::new() }
    }

    /// A token for that stream, and until when it is good.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make(
        &self,
        identity: &Identity,
        scope: &Scope,
        stream: OneStream,
        seconds: i64,
        until: Instant,
    ) -> Result<(String, DateTime<Utc>), Failure> {
        let key = self.key(until).await?;
        let expires_at = self.store.clock().now() + TimeDelta::seconds(seconds);
        let maker = match identity {
            Identity::Issued(key, _) => Maker::Issued(key.id),
            Identity::Bootstrap(hash) => Maker::Bootstrap(bootstrap_name(key, hash)),
            Identity::Anonymous => return Err(Failure::Defect),
        };
        let claims = Claims {
            t: scope.tenant.to_string(),
            u: scope.user.as_deref().map(str::to_owned),
            s: stream,
            e: expires_at.timestamp_millis(),
            k: maker,
        };
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).map_err(|_| Failure::Defect)?);
        let signature = URL_SAFE_NO_PAD.encode(signed(key, claims.as_bytes()).finalize().into_bytes());
        Ok((format!("{claims}.{signature}"), expires_at))
    }

    /// What that token allows. `None`: it is none of ours, or has expired, or its key is not good any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn granted(&self, token: &str, until: Instant) -> Result<Option<Granted>, Failure> {
        let parts = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN);
        let Some((text, signature)) = parts else { return Ok(None) };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return Ok(None) };
        let key = self.key(until).await?;
        // In constant time.
        if signed(key, text.as_bytes()).verify_slice(&signature).is_err() {
            return Ok(None);
        }
        let claims = URL_SAFE_NO_PAD.decode(text).ok().and_then(|text| serde_json::from_slice(&text).ok());
        // One that a later release has signed may say what this one does not know.
        let Some(Claims { t, u, s, e, k }) = claims else { return Ok(None) };
        if e <= self.store.clock().now().timestamp_millis() {
            return Ok(None);
        }
        let identity = match &k {
            Maker::Issued(id) => self.keys.identity_of(*id, until).await?,
            Maker::Bootstrap(name) => self.keys.bootstrap_identity(|hash| bootstrap_name(key, hash) == *name),
        };
        let Some(identity) = identity else { return Ok(None) };
        let task_types = match &identity {
            Identity::Issued(key, _) if key.tenant != t && !identity.reaches_all_tenants() => {
                return Ok(None);
            }
            Identity::Issued(key, _) => key.task_types.as_deref().map(Into::into),
            _ => None,
        };
        let scope = Scope { tenant: t.into(), user: u.map(Into::into), task_types };
        Ok(Some(Granted { identity, scope, stream: s }))
    }

    async fn key(&self, until: Instant) -> Result<&[u8], Failure> {
        Ok(self.key.get_or_try_init(|| self.store.stream_key(until)).await?)
    }
}

fn signed(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    // A key may have any length.
    let mut signed = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&[0; 64].into()));
    signed.update(text);
    signed
}

/// What a token calls the bootstrap key that made it, whose hash it does not tell.
fn bootstrap_name(key: &[u8], hash: &[u8; 32]) -> String {
    let mut name = signed(key, b"bootstrap ");
    name.update(hash);
    URL_SAFE_NO_PAD.encode(name.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_the_same_in_whatever_order_they_stand() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |types: &[&str], users: &[&str]| FilterHash::of(&list(types), &list(users));
        assert_eq!(of(&["a", "b"], &["u"]), of(&["b", "a", "b"], &["u"]));
        assert_ne!(of(&["a"], &[]), of(&[], &["a"]));
        assert_ne!(of(&["a", "b"], &[]), of(&["a"], &["b"]));
        assert_ne!(of(&[], &[]), of(&["a"], &[]));
    }
}
