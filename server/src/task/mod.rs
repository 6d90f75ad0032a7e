//! The task as it is kept.
//!
//! One struct is what the lifecycle works on and, through its serde form, what the database stores: a field is
//! named once. Payloads are the JSON text the client sent.
//!
//! A server of a newer version may write to the same database. Fields that only it knows stay where they are: those of
//! the whole task because a change writes only what differs, those of its parts because the parts keep them ([`Kept`]).
//! Words that only it knows are kept too ([`words`]).

mod defaults;
mod history;
mod order;
mod parts;
mod raw_view;
mod record;
mod size;
mod task_move;
pub(crate) mod token;
pub mod view;
pub mod words;

pub use crate::kept::Kept;
pub use order::{Order, Position};
pub use parts::{
    AttemptEnd, AttemptRecord, BeforeClaimRecord, ErrorRecord, LeaseRecord, LimitsRecord, MoveRecord,
    ProgressRecord, ReceiptRecord, RetryRecord, UsageRecord,
};
pub use raw_view::raw_view;
pub use record::{StoredPayload, TaskRecord};
pub use size::input_bytes;
pub use task_move::{AttemptEnding, AttemptStart, Created, Step, TaskMove, ToldError};
pub use words::{AttemptStatus, Backoff, MoveVerb, Reason, Status, Trigger};
