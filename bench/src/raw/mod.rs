//! Raw limits: the work of a task queue done by the database's driver alone, as well as it can be done that way.
//!
//! The tasks are as long as the service's and have the same two indexes that every task is in. All writes are
//! journaled on a majority. Retryable writes are off, because they cost the database a second write each.

mod batch;
mod document;
mod pipeline;
mod shared_queue;
mod single;
mod tasks;

pub(crate) use batch::{claims as claim_batches, inserts as insert_batches, settlements as settle_batches};
pub(crate) use pipeline::{drain, lives};
pub(crate) use single::{claims, completions, inserts, round_trip};
