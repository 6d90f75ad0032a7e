//! How many bytes of documents are on their way from the database into this server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of documents that all reads together may have brought and not yet handed on.
const MAX_ARRIVING: usize = 96 << 20;

/// Bytes of documents that all reads of a server have brought and not yet handed on.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Arriving(Arc<AtomicUsize>);

/// The part of one read. It counts until it is dropped.
#[derive(Debug, Default)]
pub(in crate::store) struct Arrived {
    of_all: Arriving,
    bytes: usize,
}

impl Arriving {
    pub(super) fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_ARRIVING / 2
    }

    /// Nothing yet.
    pub(super) fn begin(&self) -> Arrived {
        Arrived { of_all: self.clone(), bytes: 0 }
    }
}

impl Arrived {
    /// Adds a document. `false`: with it there is too much.
    pub(super) fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.of_all.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_ARRIVING
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.of_all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_counts_until_it_is_handed_on() {
        let all = Arriving::default();
        let (mut one, mut other) = (all.begin(), all.begin());
        assert!(one.add(MAX_ARRIVING / 2) && !all.is_high());
        assert!(other.add(MAX_ARRIVING / 2) && all.is_high());
        assert!(!other.add(1), "together they are too much");
        drop(one);
        assert!(other.add(1));
        drop(other);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
