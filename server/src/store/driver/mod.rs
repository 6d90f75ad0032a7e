//! Connections, calls within their deadline, write commands, reads document by document, and group commit.

mod arriving;
pub(super) mod command;
mod connect;
mod find;
mod group_commit;
mod schema_check;
mod store;

pub(super) use find::Reading;
pub(super) use group_commit::GroupCommit;
pub(super) use store::MAX_READ_BYTES;
pub use store::Store;
