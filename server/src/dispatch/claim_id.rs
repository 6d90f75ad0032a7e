//! Claim ids: one claim with an id is answered at a time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use task_repo_protocol::Uuid;
use tokio::sync::OwnedMutexGuard;

use crate::access::Scope;

/// A lock for each claim id that is being answered now.
type Locks = Arc<Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>>;

/// The claim ids that this server is answering now.
#[derive(Default)]
pub(super) struct ClaimIdLocks(Locks);

/// While it is held, no other call with the same claim id is answered by this server. The same claim sent twice at once
/// must not take work twice.
pub(super) struct ClaimIdLock {
    id: Vec<u8>,
    locks: Locks,
    guard: Option<OwnedMutexGuard<()>>,
}

impl ClaimIdLocks {
    /// Resolves when no other call with this claim id is being answered.
    pub(super) async fn lock(&self, id: &[u8]) -> ClaimIdLock {
        // Made before the wait, so that a caller that goes away meanwhile leaves no lock behind.
        let mut lock = ClaimIdLock { id: id.to_vec(), locks: Arc::clone(&self.0), guard: None };
        let of_id = Arc::clone(self.0.lock().entry(id.to_vec()).or_default());
        lock.guard = Some(of_id.lock_owned().await);
        lock
    }
}

impl Drop for ClaimIdLock {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = self.locks.lock();
        // Only the map holds it: no caller waits for this id.
        if locks.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.id);
        }
    }
}

/// The stored form of a claim id, which belongs to a tenant and a user.
pub(super) fn claim_hash(scope: &Scope, id: Uuid) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [&*scope.tenant, scope.user.as_deref().unwrap_or_default()] {
        hash.update(part);
        hash.update(b"\0");
    }
    hash.update(id.as_bytes());
    hash.finalize()[..16].to_vec()
}
