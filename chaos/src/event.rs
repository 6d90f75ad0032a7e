//! What callers did and what they were answered, one event each.

use serde::{Deserialize, Serialize};
use task_repo_client::Uuid;

/// What a caller knows of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It was applied, and the service said so.
    Accepted,
    /// It was not applied, and never will be.
    Refused,
    /// It was not applied; another time it may be.
    Postponed,
    /// Nothing, or that it is not known.
    Unknown,
}

/// How an attempt was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verb {
    /// With a result, which is the lease's token.
    Complete,
    /// Without one.
    Fail,
    /// Given back.
    Release,
}

/// A call and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A task was to be created under that name, which is its idempotency key too.
    Created { name: String, said: Said, id: Option<Uuid> },
    /// A worker got a task.
    Claimed { id: Uuid, token: String, attempt: u32, version: u64 },
    /// A worker said so many times that it works on a task. Whether it was never silent for long, and whether it was
    /// told that it had lost the task.
    Held { id: Uuid, heartbeats: u32, was_never_silent: bool, was_taken: bool },
    /// A worker settled a task.
    Settled { id: Uuid, token: String, verb: Verb, said: Said, version: Option<u64> },
    /// Any call has ended: how long it took, and what came instead of the answer that was asked for. In files only.
    Called { call: String, took_ms: u128, error: Option<String> },
    /// A caller vanished, but its answer had come by then.
    Reached { worker_id: String },
    /// A task was read while others worked on it: how often less was read than callers had been told, and whether it was
    /// so to the last.
    Read { id: Uuid, behind: u32, is_forgotten: bool },
    /// A reader's connection ended instead of an answer.
    Broken { error: String },
    /// An answer that the contract does not know.
    Odd { call: String, answer: String },
}
