//! The bound on the bodies that a server holds, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of a small body.
const SMALL: usize = 4 << 10;

/// Room for the bodies of all requests that are on their way or being answered.
pub(crate) struct BodyRoom {
    held: Arc<AtomicUsize>,
    most: usize,
}

/// The share of one request's body, until it is dropped.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_finds_room_where_there_is_none_for_others() {
        let room = BodyRoom::new(2 * SMALL);
        let mut large = room.share();
        assert!(large.add(2 * SMALL));
        let mut small = room.share();
        assert!(small.add(SMALL));
        assert!(!small.add(1), "it is not small any more");
        drop((large, small));
        assert!(room.share().add(2 * SMALL), "they have given it back");
    }
}
