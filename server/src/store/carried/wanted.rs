//! Tasks to be read by id, and tasks to be looked for by the claim that took them.

use std::sync::Arc;

use task_repo_protocol::Uuid;

use crate::task::TaskRecord;

/// Tenant, and hash of a claim id.
pub(in crate::store) type ClaimId = (Arc<str>, Vec<u8>);

/// The result of a read before a change.
#[derive(Clone)]
pub(in crate::store) enum ReadOutcome {
    /// The task.
    Task(Box<TaskRecord>),
    /// None.
    Missing,
    /// One of that tenant that this server cannot read.
    Unreadable(Option<String>),
}

/// A task to be read before it is changed.
#[derive(Clone, Copy)]
pub(in crate::store) struct ReadRequest {
    pub(in crate::store) id: Uuid,
    pub(in crate::store) kind: ReadKind,
}

/// How a task is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct ReadKind {
    /// With its payloads.
    pub(in crate::store) payload: bool,
    /// As of now and for certain, not only as a majority was known to have it.
    pub(in crate::store) certain: bool,
}
