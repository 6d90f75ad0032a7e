//! What one command carries for many callers, and what becomes of each item.

mod drafted;
mod staged;
mod wanted;

pub(super) use drafted::Drafted;
pub use drafted::NotInserted;
pub use staged::new_stamp;
#[cfg(test)]
pub(super) use staged::tests::write as staged_for_tests;
pub(super) use staged::{PendingEvent, Staged, Staging, WriteNonce, WriteOutcome};
pub(super) use wanted::{ClaimId, ReadKind, ReadOutcome, ReadRequest};
