//! Writing tasks. Every move of a task is one guarded write.
//!
//! | file | what it does |
//! |---|---|
//! | [`insert`] | new tasks |
//! | [`change`] | changing a task: reading it, applying the lifecycle, writing what has changed |
//! | [`claim`] | leasing ready tasks |
//! | [`guard`], [`statements`] | THE guarded write, and the statements that carry it |

mod change;
mod claim;
mod guard;
mod insert;
mod statements;

pub use change::{Applied, Change, NotApplied};
pub use claim::ClaimWrite;
