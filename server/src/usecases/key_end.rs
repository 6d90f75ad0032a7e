//! A key that ends, or loses a right, ends the calls that wait under it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::keys::Keys;
use crate::access::{Identity, KeyRecord};

/// How long to wait before asking a database again that did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a key is believed at most while this server hears of no change, perhaps because it cannot.
const BELIEVED_UNHEARD: Duration = Duration::from_secs(4);

/// Why a key does not allow any more what it allowed when a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEnd {
    /// It was revoked, or it or the caller's secret has expired.
    Gone,
    /// It has lost a role or a task type.
    Narrowed,
}

impl Keys {
    /// Resolves when the caller's key does not allow any more what `identity` says: within 5 s of its revocation at any
    /// server.
    pub async fn key_ends(self: &Arc<Self>, identity: &Identity) -> KeyEnd {
        let Identity::Issued(key, hash) = identity else { return pending().await };
        let mut changes = self.cache.changes();
        loop {
            // A task of its own with a deadline of its own: a call that is answered meanwhile does not break the look-up off
            // for others that have joined it, and its future does not carry the room of the look-up.
            let (keys, hash) = (Arc::clone(self), *hash);
            let look_up =
                self.background.spawn(async move { keys.good_key(hash, keys.store.step_deadline()).await });
            let again = match look_up.await {
                Ok(Ok(None)) => return KeyEnd::Gone,
                Ok(Ok(Some(now))) if !allows(&now, key) => return KeyEnd::Narrowed,
                Ok(Ok(Some(now))) => {
                    let soon = self.store.clock().now() + BELIEVED_UNHEARD;
                    self.ends_at(&now, hash).map_or(soon, |at| at.min(soon))
                }
                Ok(Err(_)) | Err(_) => self.store.clock().now() + RETRY_PAUSE,
            };
            tokio::select! {
                () = tokio::time::sleep(self.store.clock().until(again)) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// When the key, or its secret with this hash, expires.
    fn ends_at(&self, key: &KeyRecord, hash: [u8; 32]) -> Option<DateTime<Utc>> {
        let secret = key.hashes.iter().filter(|known| known.is(&hash)).filter_map(|known| known.until);
        // A little later than that: the clock counts milliseconds.
        secret
            .chain(key.expires_at)
            .min()
            .map(|at| at.max(self.store.clock().now()) + Duration::from_millis(1))
    }
}

/// Whether a key allows at least what it allowed `before`.
fn allows(key: &KeyRecord, before: &KeyRecord) -> bool {
    let types = match (&key.task_types, &before.task_types) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(now), Some(before)) => before.iter().all(|name| now.contains(name)),
    };
    types && key.tenant == before.tenant && before.roles.iter().all(|role| key.roles.contains(role))
}
