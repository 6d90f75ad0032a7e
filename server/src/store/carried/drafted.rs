//! A task to be created, and why it was not.

use std::sync::Arc;

use bson::RawDocumentBuf;

use crate::store::error::StoreError;
use crate::task::TaskRecord;

/// Why a task was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotInserted {
    /// A task with its idempotency key is there.
    Duplicate,
    /// The database could not do it.
    Store(StoreError),
}

/// A task to be created, and its stored form.
pub(in crate::store) struct Drafted {
    pub(in crate::store) task: Arc<TaskRecord>,
    pub(in crate::store) document: RawDocumentBuf,
}
