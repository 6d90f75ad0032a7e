//! The bound on the bodies that a server holds, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a small body has at most, in bytes.
const SMALL: usize = 4 << 10;

/// Room for the bodies of all requests that are on their way or being answered.
pub(crate) struct BodyRoom {
    held: Arc<AtomicUsize>,
    most: usize,
}

/// What one request's body takes of it, until it is dropped.
#[derive(Default)]
pub(super) struct BodyShare {
    held: Arc<AtomicUsize>,
    most: usize,
    bytes: usize,
}

impl BodyRoom {
    /// Room for that many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// A share without bytes. What a caller only announces takes none.
    pub(super) fn share(&self) -> BodyShare {
        BodyShare { held: Arc::clone(&self.held), most: self.most, bytes: 0 }
    }
}

impl BodyShare {
    /// Adds bytes that have come. `false`: there is no room for them. There always is for a small body: large ones must not
    /// keep heartbeats out.
    #[must_use]
    pub(super) fn add(&mut self, bytes: usize) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.most || self.bytes <= SMALL
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
