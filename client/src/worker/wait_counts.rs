//! How many handlers wait for other tasks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many handlers of a worker wait for other tasks, by the index of their type in the registrations.
#[derive(Debug)]
pub(crate) struct WaitCounts(Mutex<Vec<usize>>);

impl WaitCounts {
    /// None, of that many types.
    pub(crate) fn of_types(count: usize) -> Self {
        Self(Mutex::new(vec![0; count]))
    }

    /// The counts.
    pub(crate) fn by_type(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
