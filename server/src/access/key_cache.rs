//! Keys that were looked up, and for how long they are believed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;
use parking_lot::{Mutex, MutexGuard};
use task_repo_protocol::Uuid;
use tokio::sync::watch;

use super::key::{KeyRecord, SecretHash};

/// How long looked-up keys are believed after it was known for the last time that no key has changed. A revoked key is
/// refused everywhere within that time.
const BELIEVED_FOR: Duration = Duration::from_secs(3);
/// How long a looked-up key is remembered at most, whatever is known of changes.
const MAX_CACHED: Duration = Duration::from_secs(60);

/// The keys this server has seen.
pub(crate) struct KeyCache {
    bootstrap: Vec<SecretHash>,
    pub(crate) seen: Cache<[u8; 32], Seen>,
    pub(crate) touched: Cache<Uuid, ()>,
    known: Mutex<Known>,
    /// Told when a key may have changed.
    changed: watch::Sender<()>,
}

/// The result of a look-up.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) key: Option<Arc<KeyRecord>>,
    /// When it began, counted in changes of keys.
    pub(crate) epoch: u64,
}

/// How often keys have changed, as far as this server knows.
#[derive(Default)]
struct Known {
    /// Grows with each change that this server hears of. A look-up that began in an earlier epoch counts no more.
    epoch: u64,
    /// The count of changes in the database, and when it was read.
    counted: Option<(i64, Instant)>,
}

impl KeyCache {
    pub(crate) fn new(bootstrap: Vec<SecretHash>) -> Self {
        Self {
            bootstrap,
            seen: Cache::builder().max_capacity(10_000).time_to_live(MAX_CACHED).build(),
            touched: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(60)).build(),
            known: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }

    /// Whether a bootstrap key has this hash. All of them are compared, so that the time does not tell which one it is.
    pub(crate) fn is_bootstrap(&self, hash: &[u8; 32]) -> bool {
        self.bootstrap.iter().fold(false, |found, key| key.is(hash) | found)
    }

    /// Takes note of how often keys had changed when that was asked.
    pub(crate) fn hear(&self, changes: i64, asked: Instant) {
        let mut known = self.known();
        if known.counted.is_none_or(|(before, _)| before != changes) {
            known.epoch += 1;
            self.changed.send_replace(());
        }
        known.counted = Some((changes, asked));
    }

    /// A key has changed here.
    pub(crate) fn forget(&self) {
        self.known().epoch += 1;
        self.changed.send_replace(());
    }

    /// Hears from now on when a key may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The hashes of the bootstrap keys.
    pub(crate) fn bootstrap(&self) -> impl Iterator<Item = [u8; 32]> {
        self.bootstrap.iter().filter_map(SecretHash::bytes)
    }

    /// The present epoch, and whether what was found in it is believed without asking again.
    pub(crate) fn epoch(&self) -> (u64, bool) {
        let known = self.known();
        (known.epoch, known.counted.is_some_and(|(_, asked)| asked.elapsed() < BELIEVED_FOR))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_believed_until_a_key_changes_or_nothing_is_heard() {
        let cache = KeyCache::new(vec![SecretHash::new([0; 32])]);
        assert!(!cache.epoch().1, "nothing is known yet");
        let now = Instant::now();
        cache.hear(3, now);
        let (first, is_believed) = cache.epoch();
        assert!(is_believed);
        cache.hear(3, now);
        assert_eq!(cache.epoch(), (first, true), "nothing has changed");
        cache.hear(4, now);
        assert_ne!(cache.epoch().0, first, "another server has changed a key");
        let second = cache.epoch().0;
        cache.forget();
        assert_ne!(cache.epoch().0, second, "this server has");
        cache.hear(4, now.checked_sub(BELIEVED_FOR).unwrap());
        assert!(!cache.epoch().1, "it was too long ago that anybody was asked");
    }
}
