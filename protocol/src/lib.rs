//! The wire types of the task repository service: what clients and servers say to each other.
//!
//! No I/O and no async: this crate is the vocabulary, and either side builds on it alone.
//!
//! | module | what it names |
//! |---|---|
//! | [`task`] | a task as answers show it |
//! | [`new_task`], [`edit`] | what creates a task, what changes one |
//! | [`state`] | statuses of tasks and of attempts, and the reasons that go with them |
//! | [`claim`] | asking for work, leases, heartbeats |
//! | [`outcome`] | settling work: complete, fail, release, cancel; receipts and executions |
//! | [`report`] | errors, usage and progress, as workers report them and as answers show them |
//! | [`page`] | lists and batches |
//! | [`key`] | issued API keys and their roles |
//! | [`system`] | health answers |
//! | [`task_type`] | task types: their settings, pauses and figures |
//! | [`unreadable`] | stored tasks that a server cannot read |
//! | [`logs`] | what a worker logs about a task |
//! | [`failures`] | which failures there were |
//! | [`error`] | problems and their stable codes |
//! | [`path`] | every URL, spelled once |
//! | [`json`], [`payload`] | payloads kept exactly as sent, and their rules |
//! | [`priority`], [`tags`], [`timestamp`] | fields that need more than a derive |
//! | [`word`](mod@word) | fixed names, of which a newer version may know more |
//!
//! What comes in is strict: unknown fields and words of a request are refused. What goes out is tolerant: whoever reads an
//! answer ignores fields that it does not know and keeps words that it does not know. So a type is for the one or for the
//! other, and where both have the same fields there are two: [`NewTemplate`] and [`Template`], [`NewRetryPolicy`] and
//! [`RetryPolicy`], [`ErrorReport`] and [`TaskError`], [`UsageReport`] and [`Usage`].
//!
//! Words: a **task** of a **task type** (its queue) carries a **request** and ends with a **result**. A worker
//! **claims** it and gets a **lease** (token and expiry) for one **attempt**; it **heartbeats** while it works, and
//! then **completes**, **fails**, **releases** or acknowledges the **cancellation** of it: together, *settling*.

pub mod claim;
pub mod edit;
pub mod error;
pub mod failures;
mod finite;
pub mod json;
pub mod key;
mod limits;
pub mod logs;
pub mod new_task;
pub mod outcome;
pub mod page;
pub mod path;
pub mod payload;
pub mod priority;
pub mod report;
mod rules;
pub mod state;
pub mod stream;
pub mod system;
pub mod tags;
pub mod task;
pub mod task_type;
pub mod timestamp;
pub mod unreadable;
pub mod word;

pub use chrono::{DateTime, Utc};
pub use failures::{FailureGroup, FailurePage};
pub use logs::{LogLevel, LogLine, LogPage, NewLogLine, NewLogLines};
pub use uuid::Uuid;

pub use claim::{Claim, Claimed, Heartbeat, HeartbeatItem, HeartbeatReceipt, HeartbeatResult};
pub use edit::{Execute, SelfManagedStatus, StatusChange, TaskEdit};
pub use error::{AttemptEnd, ErrorCode, Problem, Violation};
pub use json::{Json, Payload};
pub use key::{IssuedKey, KeyInfo, KeyList, KeyRotation, NewKey, Role};
pub use limits::MAX_DELAY_SECONDS;
pub use new_task::{Backoff, NewRetryPolicy, NewTask, NewTemplate, RetryPolicy};
pub use outcome::{
    Cancel, Complete, Execution, ExecutionList, Fail, Outcome, OutcomeKind, OutcomeResult, Outcomes,
    OutcomesAnswer, Receipt, Release, Retry, Trigger,
};
pub use page::{BatchAnswer, BatchItem, TaskBatch, TaskPage};
pub use priority::Priority;
pub use report::{ErrorReport, Progress, ProgressUpdate, TaskError, Usage, UsageReport};
pub use rules::task_type_is_valid;
pub use state::{ExecutionStatus, Reason, Status};
pub use stream::{
    NewStreamToken, NewTenantStreamToken, StreamEventType, StreamMessage, StreamToken, TaskSnapshot,
};
pub use tags::Tags;
pub use task::{Lease, StatusReport, Task, Template};
pub use task_type::{NewPause, Pause, Resume, TaskType, TaskTypePage, TaskTypeSettings};
pub use unreadable::{UnreadableTask, UnreadableTaskDetail, UnreadableTaskPage};
pub use word::{Known, Word};
