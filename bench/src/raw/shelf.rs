//! What callers take from each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// What callers take from each other.
pub(super) struct Shelf<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shelf<T> {
    pub(super) fn of(things: impl IntoIterator<Item = T>) -> Self {
        Self(Arc::new(Mutex::new(things.into_iter().collect())))
    }

    pub(super) fn put(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(thing);
    }

    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
