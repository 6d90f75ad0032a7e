//! Task types as data: the stored form, and what this server knows of all of them. Pure: `store/task_types.rs` reads and
//! writes them, `usecases/task_types.rs` says what they mean.
//!
//! | file | what it holds |
//! |---|---|
//! | [`record`] | a task type as it is stored |
//! | [`known`] | every type with settings or a pause, in memory |

mod known;
mod record;

pub use known::{Heard, KnownType, KnownTypes};
pub use record::{PauseRecord, SettingsRecord, TypeRecord};
