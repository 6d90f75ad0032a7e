//! A queue that the callers of one measurement share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// First in, first out; clones are the same queue.
pub(super) struct SharedQueue<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Clone for SharedQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> SharedQueue<T> {
    pub(super) fn of(things: impl IntoIterator<Item = T>) -> Self {
        Self(Arc::new(Mutex::new(things.into_iter().collect())))
    }

    pub(super) fn push(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(thing);
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
