//! Issuing, rotating and checking API keys.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use rand::RngExt as _;
use sha2::{Digest, Sha256};
use task_repo_protocol::{IssuedKey, KeyInfo, KeyRotation, NewKey, Uuid};
use tokio::time::timeout_at;

use super::failure::Failure;
use crate::access::{Caller, Identity, KeyCache, KeyRecord, SecretHash, Seen};
use crate::background::Background;
use crate::store::{Changes, Store, StoreError};

/// How long a replaced secret stays good where nobody says otherwise, in seconds.
const OVERLAP_SECONDS: i64 = 3600;
/// What every issued secret begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "trk_";

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A secret of 256 random bits.
fn new_secret() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The use cases of API keys. One for a server, shared by all its requests.
pub struct Keys {
    pub(super) store: Store,
    pub(super) cache: KeyCache,
    pub(super) background: Background,
}

impl Keys {
    /// Those in that database, and the bootstrap keys: the present one, and the one before that if it is still good.
    pub fn new(store: Store, bootstrap_keys: &[&str], background: Background) -> Arc<Self> {
        let bootstrap = bootstrap_keys.iter().filter(|key| !key.is_empty());
        let cache = KeyCache::new(bootstrap.map(|key| SecretHash::new(hash(key))).collect());
        Arc::new(Self { store, cache, background })
    }

    /// Takes note of how often keys had changed when that was asked.
    pub(crate) fn hear(&self, changes: Changes, asked: Instant) {
        self.cache.hear(changes.keys, asked);
    }

    /// The identity that has this secret; `None` when no key has it, or not any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identify(&self, secret: &str, until: Instant) -> Result<Option<Identity>, Failure> {
        let hash = hash(secret);
        if self.cache.is_bootstrap(&hash) {
            return Ok(Some(Identity::Bootstrap(hash)));
        }
        let Some(key) = self.good_key(hash, until).await? else { return Ok(None) };
        self.touch(key.id).await;
        Ok(Some(Identity::Issued(key, hash)))
    }

    /// The bootstrap key that `is_it` says yes to.
    pub(super) fn bootstrap_identity(&self, is_it: impl Fn(&[u8; 32]) -> bool) -> Option<Identity> {
        self.cache.bootstrap().find(is_it).map(Identity::Bootstrap)
    }

    /// The identity of that key, with the secret of it that is good for longest. `None`: it is not good any more.
    pub(super) async fn identity_of(&self, id: Uuid, until: Instant) -> Result<Option<Identity>, Failure> {
        let Some(key) = self.store.key_by_id(id, until).await? else { return Ok(None) };
        let now = self.store.clock().now();
        if key.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        let good = key.hashes.iter().filter(|hash| hash.until.is_none_or(|until| until > now));
        let lasting = good.max_by_key(|hash| hash.until.map_or(i64::MAX, |until| until.timestamp_millis()));
        let hash = lasting.and_then(|hash| hash.bytes());
        Ok(hash.map(|hash| Identity::Issued(Arc::new(key), hash)))
    }

    /// The key that has a secret with this hash, if both are still good.
    pub(super) async fn good_key(
        &self,
        hash: [u8; 32],
        until: Instant,
    ) -> Result<Option<Arc<KeyRecord>>, Failure> {
        let (epoch, is_believed) = self.cache.epoch();
        let found = match self.cache.seen.get(&hash).await {
            Some(seen) if is_believed && seen.epoch == epoch => seen.key,
            seen => {
                if seen.is_some() {
                    self.cache.seen.invalidate(&hash).await;
                }
                // Boxed: else the future of each request is as large as this look-up (docs/decisions/0009).
                Box::pin(self.look_up(hash, epoch, until)).await?
            }
        };
        let Some(key) = found else { return Ok(None) };
        let now = self.store.clock().now();
        // The database found it by this hash; comparing again in constant time costs nothing and trusts no index.
        let secret_is_good =
            key.hashes.iter().any(|known| known.is(&hash) && known.until.is_none_or(|until| until > now));
        let is_good = secret_is_good && key.expires_at.is_none_or(|end| end > now);
        Ok(Some(key).filter(|_| is_good))
    }

    async fn look_up(
        &self,
        hash: [u8; 32],
        epoch: u64,
        until: Instant,
    ) -> Result<Option<Arc<KeyRecord>>, Failure> {
        let look_up =
            async { Ok(Seen { key: self.store.key_by_hash(&hash, until).await?.map(Arc::new), epoch }) };
        // The caller that looks up for many may go away; then the next one begins anew.
        let looking = timeout_at(until.into(), self.cache.seen.try_get_with(hash, look_up));
        let found = looking.await.map_err(|_| StoreError::Unavailable)?;
        let seen = found.map_err(|error: Arc<StoreError>| Failure::Store(*error))?;
        if seen.epoch >= epoch {
            return Ok(seen.key);
        }
        // Somebody's look-up, which this one joined, had begun before the latest change.
        self.cache.seen.invalidate(&hash).await;
        Ok(self.store.key_by_hash(&hash, until).await?.map(Arc::new))
    }

    /// Notes the use of a key, once a minute at most and beside the request.
    async fn touch(&self, id: Uuid) {
        if self.cache.touched.entry(id).or_insert(()).await.is_fresh() {
            let (store, now) = (self.store.clone(), self.store.clock().now());
            self.background.spawn(async move {
                // The next use tries again.
                let _ = store.touch_key(id, now).await;
            });
        }
    }

    /// Issues a key for the caller's tenant, or for the tenant that the body names.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn issue_key(&self, caller: &Caller, new: NewKey) -> Result<IssuedKey, Failure> {
        let secret = new_secret();
        let mut roles: Vec<_> = new.roles.into_iter().map(Into::into).collect();
        roles.sort();
        roles.dedup();
        let record = KeyRecord {
            id: Uuid::now_v7(),
            tenant: new.tenant_id.unwrap_or_else(|| caller.scope.tenant.to_string()),
            name: new.name,
            roles,
            task_types: new.task_types,
            created_at: self.store.clock().now(),
            expires_at: new.expires_at,
            last_used_at: None,
            hashes: vec![SecretHash::new(hash(&secret)).into()],
            version: 1,
        };
        self.store.insert_key(record.clone(), caller.deadline.at()).await?;
        self.keys_have_changed(caller).await?;
        Ok(issued(record, secret))
    }

    /// All keys, newest first, of one tenant or of all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_keys(&self, caller: &Caller, tenant: Option<&str>) -> Result<Vec<KeyInfo>, Failure> {
        let keys = self.store.list_keys(tenant, caller.deadline.at()).await?;
        Ok(keys
            .into_iter()
            .map(|key| KeyInfo {
                id: key.id,
                name: key.name,
                roles: key.roles.into_iter().map(Into::into).collect(),
                tenant_id: key.tenant,
                task_types: key.task_types,
                created_at: key.created_at,
                expires_at: key.expires_at,
                last_used_at: key.last_used_at,
            })
            .collect())
    }

    /// Gives a key a new secret; the old one stays good until the overlap ends.
    ///
    /// # Errors
    /// When there is no such key.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        id: Uuid,
        rotation: &KeyRotation,
    ) -> Result<IssuedKey, Failure> {
        let not_found = || Failure::KeyNotFound(id.to_string());
        let overlap = TimeDelta::seconds(rotation.overlap_seconds.unwrap_or(OVERLAP_SECONDS));
        // Two rotations at once: the later one starts from what the earlier one left.
        for _ in 0..10 {
            let key = self.store.key_by_id(id, caller.deadline.at()).await?.ok_or_else(not_found)?;
            let now = self.store.clock().now();
            let secret = new_secret();
            let mut hashes: Vec<_> = key
                .hashes
                .iter()
                .map(|old| old.clone().with(old.until(now + overlap)))
                .filter(|old| old.until.is_some_and(|until| until > now))
                .collect();
            hashes.push(SecretHash::new(hash(&secret)).into());
            let is_replaced = self.store.replace_secrets(&key, &hashes, caller.deadline.at()).await;
            if is_replaced != Ok(false) {
                self.keys_have_changed(caller).await?;
            }
            if is_replaced? {
                return Ok(issued(key, secret));
            }
        }
        Err(Failure::Store(StoreError::Unavailable))
    }

    /// Removes a key; it is refused here at once and everywhere within 5 seconds.
    ///
    /// # Errors
    /// When there is no such key.
    pub async fn revoke_key(&self, caller: &Caller, id: Uuid) -> Result<(), Failure> {
        let is_deleted = self.store.delete_key(id, caller.deadline.at()).await;
        // Counted in any case, because this deletion, or one before it, may have been made though it was not answered.
        self.keys_have_changed(caller).await?;
        if is_deleted? { Ok(()) } else { Err(Failure::KeyNotFound(id.to_string())) }
    }

    /// Has every server look its keys up anew.
    async fn keys_have_changed(&self, caller: &Caller) -> Result<(), Failure> {
        self.cache.forget();
        Ok(self.store.count_key_change(caller.deadline.at()).await?)
    }
}

fn issued(key: KeyRecord, secret: String) -> IssuedKey {
    IssuedKey {
        id: key.id,
        key: secret,
        name: key.name,
        roles: key.roles.into_iter().map(Into::into).collect(),
        tenant_id: key.tenant,
        task_types: key.task_types,
        created_at: key.created_at,
        expires_at: key.expires_at,
    }
}
