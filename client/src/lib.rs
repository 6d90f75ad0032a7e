//! Typed client and worker runtime for the task repository service.
//!
//! | module | what it is for |
//! |---|---|
//! | [`client`] | [`TaskClient`]: one method per endpoint; how it is set up |
//! | [`tasks`], [`list`], [`claiming`], [`keys`], [`task_types`], [`logs`], [`stream_tokens`], [`failures`], [`unreadable_tasks`], [`system`] | those methods, by what they are about |
//! | [`claimed`] | [`ClaimedTask`]: the only thing that can complete, fail, release or heartbeat a task |
//! | [`settle`] | how work ends ([`Ending`]), and settling many tasks in one call |
//! | [`failure`] | [`TaskFailure`]: why there is no result, and whether to try again |
//! | [`error`] | [`ClientError`]: why a call did not succeed, and whether a repetition helps |
//! | [`retry`] | [`RetryBudget`]: how long the client tries by itself |
//! | [`worker`] | [`Worker`]: typed handlers, concurrency, heartbeats, graceful stop |
//!
//! The wire types are those of [`protocol`]; the usual ones are exported here as well. What is sent has types of its own
//! ([`NewTemplate`], [`NewRetryPolicy`], [`ErrorReport`], [`UsageReport`]), beside those that answers are read into
//! ([`Template`], [`RetryPolicy`], [`TaskError`], [`Usage`]).
//!
//! ```no_run
//! use task_repo_client::{Json, NewTask, TaskClient, TaskFailure};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = TaskClient::new("http://127.0.0.1:8503", "dev_api_key")?;
//! let task = client
//!     .create_task(&NewTask { request: Some(Json::of("hello")?), ..NewTask::new("greeting") })
//!     .await?;
//!
//! let claimed = client.claim_task(task.id, "worker-1").await?;
//! match claimed.request::<String>() {
//!     Ok(greeting) => claimed.complete(&greeting.to_uppercase()).await?,
//!     Err(error) => claimed.fail(TaskFailure::never(error.to_string())).await?,
//! };
//! # Ok(())
//! # }
//! ```
//!
//! # A worker
//!
//! A handler is an async function of a [`TaskContext`] and a request. What handlers share, such as a database pool, is moved
//! into them: each attempt has a clone. [`worker`] says what the runtime promises.
//!
//! ```no_run
//! use task_repo_client::{TaskClient, TaskContext, TaskFailure, Worker};
//!
//! /// What it returns is the task's result. `?` turns any error into a failure that is tried again while attempts are left;
//! /// `never` and `for_good` say that no attempt will succeed.
//! async fn count_words(ctx: TaskContext, path: String) -> Result<usize, TaskFailure> {
//!     if path.is_empty() {
//!         return Err(TaskFailure::never("there is no path").with_code("empty_path"));
//!     }
//!     ctx.send_progress_text("reading");
//!     let text = tokio::fs::read_to_string(&path).await?;
//!     Ok(text.split_whitespace().count())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Without a subscriber nobody sees failed attempts, lost leases or why a worker stopped.
//!     tracing_subscriber::fmt().init();
//!     let client = TaskClient::new("http://127.0.0.1:8503", "dev_api_key")?;
//!     // Stands for a database pool, or anything else that handlers share.
//!     let prefix = std::sync::Arc::new(String::from("> "));
//!     let report = Worker::builder(&client)
//!         .concurrency(8)
//!         .register("count-words", count_words)
//!         // What is shared is moved into the handler: each attempt has a clone of it.
//!         .register("shout", async move |_, text: String| Ok(format!("{prefix}{}", text.to_uppercase())))
//!         .build()?
//!         // SIGTERM or Ctrl-C.
//!         .run_until_signal()
//!         .await?;
//!     println!("{report:?}");
//!     Ok(())
//! }
//! ```
//!
//! # What is repeated, and what is not
//!
//! A call that failed on the way, or that the service could not take just then, is repeated with growing, jittered
//! pauses, within the [`RetryBudget`], and never earlier than the service said. Creates repeat their idempotency key,
//! claims their claim id and settlements their lease token, so a repetition never does a thing twice. A call that has
//! no such name (claiming one known task, `execute`, a conditional edit, `PUT /status`, issuing keys) is repeated only
//! after an error that rules out that it was applied. A settlement is repeated after anything but a refusal by the
//! service itself, because finished work must not be lost to what a proxy answers.

pub mod claimed;
pub mod claiming;
pub mod client;
mod decode;
mod ending;
pub mod error;
pub mod failure;
pub mod failures;
pub mod keys;
pub mod list;
pub mod logs;
mod request;
pub mod retry;
pub mod settle;
pub mod stream_tokens;
pub mod system;
pub mod task_types;
pub mod tasks;
mod transport;
pub mod unreadable_tasks;
mod waits;
pub mod worker;

#[doc(no_inline)]
pub use task_repo_protocol as protocol;
#[doc(no_inline)]
pub use task_repo_protocol::{
    AttemptEnd, Backoff, Claim, DateTime, ErrorCode, ErrorReport, Execute, Execution, ExecutionStatus,
    FailureGroup, FailurePage, HeartbeatItem, HeartbeatReceipt, HeartbeatResult, IssuedKey, Json, KeyInfo,
    KeyRotation, LogLevel, LogLine, LogPage, NewKey, NewLogLine, NewPause, NewRetryPolicy, NewTask,
    NewTemplate, Pause, Payload, Priority, Problem, Progress, ProgressUpdate, Reason, Receipt, RetryPolicy,
    Role, SelfManagedStatus, Status, StatusChange, StatusReport, Tags, Task, TaskEdit, TaskError, TaskPage,
    TaskType, TaskTypePage, TaskTypeSettings, Template, Trigger, Usage, UsageReport, Utc, Uuid, Word,
};

pub use claimed::{ClaimedTask, SettleError, Settlement};
pub use client::{TaskClient, TaskClientBuilder};
pub use ending::{Completion, Ending};
pub use error::{ClientError, TransportError};
pub use failure::TaskFailure;
pub use failures::ListFailures;
pub use list::ListTasks;
pub use logs::ListLogs;
pub use retry::RetryBudget;
pub use settle::{RefusedSettlement, Settled, UnsettledError};
pub use tasks::Created;
pub use worker::{
    CancelReason, HandlerOptions, HandlerResult, TaskContext, Worker, WorkerBuilder, WorkerError,
    WorkerEvent, WorkerHandle, WorkerReport, stop_signal,
};
