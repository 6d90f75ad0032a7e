//! Issuing, rotating and checking API keys.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use moka::future::Cache;
use rand::RngExt as _;
use sha2::{Digest, Sha256};
use task_repo_protocol::{IssuedKey, KeyInfo, KeyRotation, NewKey, Role, Uuid};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::{Failure, TaskService};
use crate::store::{Changes, KeyRecord, SecretHash, StoreError};

/// How long looked-up keys are believed after it was known for the last time that no key has changed. A revoked key is
/// refused everywhere within that time.
const BELIEVED: Duration = Duration::from_secs(3);
/// How long a looked-up key is remembered at most, whatever is known of changes.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a replaced secret stays good where nobody says otherwise, in seconds.
const OVERLAP_SECONDS: i64 = 3600;
/// What every issued secret begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "trk_";

/// Who calls.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Nobody in particular, on a route that needs no key.
    Anonymous,
    /// The bootstrap key: all tenants, all roles.
    Bootstrap,
    /// An issued key, and the hash of its secret that the caller has.
    Issued(Arc<KeyRecord>, [u8; 32]),
}

impl Identity {
    /// Whether the caller has one of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Bootstrap => true,
            Self::Issued(key, _) => key.roles.iter().any(|role| roles.contains(&(*role).into())),
        }
    }

    /// Whether the caller may name any tenant.
    pub fn reaches_all_tenants(&self) -> bool {
        self.has_any(&[Role::Admin])
    }
}

/// The keys this server has seen.
pub(super) struct KeyRing {
    bootstrap: SecretHash,
    seen: Cache<[u8; 32], Seen>,
    touched: Cache<Uuid, ()>,
    known: Mutex<Known>,
    /// Told when a key may have changed.
    changed: watch::Sender<()>,
}

/// What a look-up has found.
#[derive(Clone)]
struct Seen {
    key: Option<Arc<KeyRecord>>,
    /// When it began, counted in changes of keys.
    epoch: u64,
}

/// What is known of changes of keys.
#[derive(Default)]
struct Known {
    /// Grows with each change that this server hears of. A look-up that began in an earlier epoch counts no more.
    epoch: u64,
    /// What all servers had counted, and when they were asked.
    counted: Option<(i64, Instant)>,
}

impl KeyRing {
    pub(super) fn new(bootstrap: &str) -> Self {
        Self {
            bootstrap: SecretHash::new(hash(bootstrap)),
            seen: Cache::builder().max_capacity(10_000).time_to_live(REMEMBERED).build(),
            touched: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(60)).build(),
            known: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }

    /// Takes note of how often keys had changed when that was asked.
    pub(super) fn hear(&self, changes: Changes, asked: Instant) {
        let mut known = self.known();
        if known.counted.is_none_or(|(before, _)| before != changes.keys) {
            known.epoch += 1;
            self.changed.send_replace(());
        }
        known.counted = Some((changes.keys, asked));
    }

    /// A key has changed here.
    fn forget(&self) {
        self.known().epoch += 1;
        self.changed.send_replace(());
    }

    /// Hears from now on when a key may have changed.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The present epoch, and whether what was found in it is believed without asking again.
    fn epoch(&self) -> (u64, bool) {
        let known = self.known();
        (known.epoch, known.counted.is_some_and(|(_, asked)| asked.elapsed() < BELIEVED))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A secret of 256 random bits.
fn new_secret() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

impl TaskService {
    /// Who has this secret; `None` when nobody does, or not any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identify(&self, secret: &str) -> Result<Option<Identity>, Failure> {
        let hash = hash(secret);
        if self.keys.bootstrap.is(&hash) {
            return Ok(Some(Identity::Bootstrap));
        }
        let Some(key) = self.good_key(hash).await? else { return Ok(None) };
        self.touch(key.id).await;
        Ok(Some(Identity::Issued(key, hash)))
    }

    /// The key that has a secret with this hash, if both are still good.
    pub(super) async fn good_key(&self, hash: [u8; 32]) -> Result<Option<Arc<KeyRecord>>, Failure> {
        let (epoch, is_believed) = self.keys.epoch();
        let found = match self.keys.seen.get(&hash).await {
            Some(seen) if is_believed && seen.epoch == epoch => seen.key,
            seen => {
                if seen.is_some() {
                    self.keys.seen.invalidate(&hash).await;
                }
                // Apart: every request would carry the room that a look into the database takes.
                Box::pin(self.look_up(hash, epoch)).await?
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

    async fn look_up(&self, hash: [u8; 32], epoch: u64) -> Result<Option<Arc<KeyRecord>>, Failure> {
        let look_up = async { Ok(Seen { key: self.store.key_by_hash(&hash).await?.map(Arc::new), epoch }) };
        // Who looks up for many may go away, and the next one begins anew.
        let looking = timeout_at(self.store.deadline().into(), self.keys.seen.try_get_with(hash, look_up));
        let found = looking.await.map_err(|_| StoreError::Unavailable)?;
        let seen = found.map_err(|error: Arc<StoreError>| Failure::Store(*error))?;
        if seen.epoch >= epoch {
            return Ok(seen.key);
        }
        // Somebody's look-up, which this one joined, had begun before the latest change.
        self.keys.seen.invalidate(&hash).await;
        Ok(self.store.key_by_hash(&hash).await?.map(Arc::new))
    }

    /// Notes the use of a key, once a minute at most and beside the request.
    async fn touch(&self, id: Uuid) {
        if self.keys.touched.entry(id).or_insert(()).await.is_fresh() {
            let (store, now) = (self.store.clone(), self.store.clock().now());
            self.background.spawn_on(
                async move {
                    // The next use tries again.
                    let _ = store.touch_key(id, now).await;
                },
                &self.runtime,
            );
        }
    }

    /// Issues a key for `tenant`, or for the tenant that the body names.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn issue_key(&self, tenant: &str, new: NewKey) -> Result<IssuedKey, Failure> {
        let secret = new_secret();
        let mut roles: Vec<_> = new.roles.into_iter().map(Into::into).collect();
        roles.sort();
        roles.dedup();
        let record = KeyRecord {
            id: Uuid::now_v7(),
            tenant: new.tenant_id.unwrap_or_else(|| tenant.to_owned()),
            name: new.name,
            roles,
            task_types: new.task_types,
            created_at: self.store.clock().now(),
            expires_at: new.expires_at,
            last_used_at: None,
            hashes: vec![SecretHash::new(hash(&secret)).into()],
            version: 1,
        };
        self.store.insert_key(record.clone()).await?;
        self.keys_have_changed().await?;
        Ok(issued(record, secret))
    }

    /// All keys, newest first, of one tenant or of all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_keys(&self, tenant: Option<&str>) -> Result<Vec<KeyInfo>, Failure> {
        let keys = self.store.list_keys(tenant).await?;
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
    pub async fn rotate_key(&self, id: Uuid, rotation: &KeyRotation) -> Result<IssuedKey, Failure> {
        let not_found = || Failure::KeyNotFound(id.to_string());
        let overlap = TimeDelta::seconds(rotation.overlap_seconds.unwrap_or(OVERLAP_SECONDS));
        // Two rotations at once: the later one starts from what the earlier one left.
        for _ in 0..10 {
            let key = self.store.key_by_id(id).await?.ok_or_else(not_found)?;
            let now = self.store.clock().now();
            let secret = new_secret();
            let mut hashes: Vec<_> = key
                .hashes
                .iter()
                .map(|old| old.clone().with(old.until(now + overlap)))
                .filter(|old| old.until.is_some_and(|until| until > now))
                .collect();
            hashes.push(SecretHash::new(hash(&secret)).into());
            let is_replaced = self.store.replace_secrets(&key, &hashes).await;
            if is_replaced != Ok(false) {
                self.keys_have_changed().await?;
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
    pub async fn revoke_key(&self, id: Uuid) -> Result<(), Failure> {
        let is_deleted = self.store.delete_key(id).await;
        // Whatever came of it: this deletion may have been made without an answer, or one before it.
        self.keys_have_changed().await?;
        if is_deleted? { Ok(()) } else { Err(Failure::KeyNotFound(id.to_string())) }
    }

    /// Has every server look its keys up anew.
    async fn keys_have_changed(&self) -> Result<(), Failure> {
        self.keys.forget();
        Ok(self.store.count_key_change().await?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_believed_until_a_key_changes_or_nothing_is_heard() {
        let ring = KeyRing::new("k");
        assert!(!ring.epoch().1, "nothing is known yet");
        let now = Instant::now();
        ring.hear(Changes { keys: 3 }, now);
        let (first, is_believed) = ring.epoch();
        assert!(is_believed);
        ring.hear(Changes { keys: 3 }, now);
        assert_eq!(ring.epoch(), (first, true), "nothing has changed");
        ring.hear(Changes { keys: 4 }, now);
        assert_ne!(ring.epoch().0, first, "another server has changed a key");
        let second = ring.epoch().0;
        ring.forget();
        assert_ne!(ring.epoch().0, second, "this server has");
        ring.hear(Changes { keys: 4 }, now.checked_sub(BELIEVED).unwrap());
        assert!(!ring.epoch().1, "it was too long ago that anybody was asked");
    }
}
