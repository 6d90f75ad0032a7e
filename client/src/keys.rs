//! Issuing, listing, rotating and revoking API keys. All of it takes a key with the role `admin`.

use std::time::Duration;

use task_repo_protocol::{IssuedKey, KeyInfo, KeyList, KeyRotation, NewKey, Uuid, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::failure::whole_seconds;
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// Keys.
impl TaskClient {
    /// Issues a key. Its secret is shown this once.
    ///
    /// Not repeated once it may have been applied: keys have no idempotency key. An unknown one can be found in the
    /// list and revoked.
    ///
    /// # Errors
    /// `forbidden`, `validation_failed`; see [`ClientError`](crate::ClientError).
    pub async fn create_key(&self, key: &NewKey) -> Result<IssuedKey> {
        self.send(ApiRequest::post(path::KEYS, Repeat::Unapplied).json(key)?).await?.json()
    }

    /// The keys that the caller may see, newest first, without their secrets.
    ///
    /// # Errors
    /// `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>> {
        Ok(self.send(ApiRequest::get(path::KEYS)).await?.json::<KeyList>()?.keys)
    }

    /// Gives a key a new secret. The old one stays good for `overlap`, in whole seconds, rounded up; by default an hour.
    ///
    /// Not repeated once it may have been applied: the secret of the first rotation would be lost.
    ///
    /// # Errors
    /// `key_not_found`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn rotate_key(&self, id: Uuid, overlap: Option<Duration>) -> Result<IssuedKey> {
        let body = KeyRotation { overlap_seconds: overlap.map(whole_seconds) };
        let request =
            ApiRequest::post(path::KEY_ROTATE, Repeat::Unapplied).at(&id.to_string())?.json(&body)?;
        self.send(request).await?.json()
    }

    /// Revokes a key: every server refuses it within 5 s.
    ///
    /// # Errors
    /// `key_not_found`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn revoke_key(&self, id: Uuid) -> Result<()> {
        self.send(ApiRequest::delete(path::KEY).at(&id.to_string())?).await.map(drop)
    }
}
