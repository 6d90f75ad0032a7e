//! What the service means: a file per intention, between the HTTP edge and the store.
//!
//! | file | intention |
//! |---|---|
//! | [`create`], [`draft`], [`idempotency`] | new tasks, one or many, and repeats of the same call |
//! | [`claim`] | giving work away, through the one door of [`dispatch`](crate::dispatch) |
//! | [`settle`] | what workers report |
//! | [`operate`] | what owners do: cancel, execute, edit, delete, run their own work |
//! | [`query`] | reading and listing |
//! | [`logs`] | what workers log about their tasks |
//! | [`admission`], [`request_schemas`], [`pending`] | what a task type lets in: requests that fit its schema, and only so many tasks that wait |
//! | [`task_types`], [`type_figures`], [`type_changes`] | settings and pauses of task types, how they are shown, and hearing of those that other servers have changed |
//! | [`failures`] | which failures there were |
//! | [`unreadable`] | what an operator sees of, and removes among, tasks that cannot be read |
//! | [`streams`], [`stream_tokens`] | watching tasks, and tokens that open one stream without a key |
//! | [`wait`], [`end_waits`] | waiting for the end of a task |
//! | [`keys`], [`key_end`] | issuing, rotating and checking API keys, and calls that wait under a key that ends |
//! | [`failure`], [`advice`] | why not, and what would help |
//! | [`service`] | what they work with |

mod admission;
mod advice;
mod claim;
mod create;
mod draft;
mod end_waits;
mod failure;
mod failures;
mod idempotency;
mod key_end;
mod keys;
mod logs;
mod operate;
mod pending;
mod query;
mod request_schemas;
mod service;
mod settle;
mod stream_tokens;
mod streams;
mod task_types;
mod type_changes;
mod type_figures;
mod unreadable;
mod wait;

pub use create::Created;
pub(crate) use end_waits::EndWaits;
pub use failure::{Failure, shortened};
pub use failures::FailuresAsked;
pub use idempotency::IdempotencyKey;
pub use key_end::KeyEnd;
pub use keys::Keys;
pub use logs::LogsAsked;
pub use query::{ListQuery, Page, WrongCursor};
pub use service::TaskService;
pub use settle::Settled;
pub use stream_tokens::{FilterHash, Granted, OneStream, StreamTokens};
pub use streams::{
    Next as NextOfStream, StreamFilter, StreamLimits, Streams, TailState, TaskStream, TenantStream,
};
pub use task_types::IfMatch;
pub use type_figures::type_cursor;
pub use unreadable::{StrayTasks, scan_place};
