//! The worker runtime: typed handlers, run as many at once as there is room for, kept alive by heartbeats.
//!
//! | part | what it does |
//! |---|---|
//! | [`builder`] | how a worker is set up: handlers, concurrency, lease, grace |
//! | [`handler`] | typed handlers made uniform |
//! | [`context`] | what a handler knows of its task, and its progress and cancellation |
//! | `run` | the loop: claims for the free slots, runs attempts, delivers how they ended |
//! | `slots` | how much may be claimed |
//! | `attempt` | one handler at work: panic, timeout, how it ended |
//! | `deliver` | settles many attempts in one call that also brings the next work |
//! | `ended` | what becomes of attempts that are over |
//! | `heartbeat`, `lease`, `progress` | leases renewed and progress told from a thread of its own |
//! | [`stop`] | the graceful stop |
//! | [`event`] | what happens, for hooks and logs |
//!
//! ```no_run
//! use task_repo_client::{TaskClient, TaskContext, Worker};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = TaskClient::new("http://127.0.0.1:8503", "dev_api_key")?;
//! let worker = Worker::builder(&client)
//!     .concurrency(8)
//!     .register("shout", async |ctx: TaskContext, text: String| {
//!         ctx.send_progress_text("shouting");
//!         Ok(text.to_uppercase())
//!     })
//!     .build()?;
//! worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - It never holds more tasks than its concurrency, nor more of one type than that type's limit.
//! - A handler that blocks its thread, or the whole runtime, does not lose its lease: heartbeats have their own thread,
//!   runtime and connections.
//! - Every attempt is settled once: results are delivered again and again with the same token until the service says
//!   what became of them, for up to ten minutes.
//! - A claimed task that cannot be read costs no other one its lease: it is reported as failed with the code
//!   `invalid_answer`, so that a newer worker may try again.
//! - While the service is away, it goes on with what it has, and asks again with growing, jittered pauses.

mod attempt;
pub mod builder;
pub mod context;
mod deliver;
mod ended;
pub mod event;
pub mod handler;
mod heartbeat;
mod lease;
mod progress;
mod run;
mod slots;
pub mod stop;

use std::future::Future;
use std::sync::Arc;

pub use builder::WorkerBuilder;
pub use context::TaskContext;
pub use event::{WorkerEvent, WorkerReport};
pub use handler::HandlerOptions;
pub use lease::CancelReason;
pub use stop::WorkerHandle;

use crate::client::TaskClient;
use crate::error::ClientError;
use builder::Settings;

/// Claims tasks and runs their handlers.
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    settings: Arc<Settings>,
}

impl Worker {
    /// Sets up a worker that works through `client`; see [`WorkerBuilder`].
    pub fn builder(client: &TaskClient) -> WorkerBuilder {
        WorkerBuilder::new(client.clone())
    }

    /// Works until `stop` is done, then stops gracefully: claims nothing more, lets handlers finish within the grace
    /// period, then tells them to stop, and gives back what is unfinished.
    ///
    /// Dropped midway, handlers are aborted and their leases run out.
    ///
    /// # Errors
    /// [`WorkerError::Refused`] when the service refuses to give this worker any work; what ran was finished before.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        run::Run::new(self.settings)?.until(stop).await
    }

    /// Works until the service refuses it.
    ///
    /// # Errors
    /// As [`Worker::run_until`].
    pub async fn run(self) -> Result<WorkerReport, WorkerError> {
        self.run_until(std::future::pending()).await
    }

    /// Works in the background of the current tokio runtime until it is stopped through the handle.
    pub fn start(self) -> WorkerHandle {
        WorkerHandle::start(self)
    }
}

/// Why a worker does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It was not set up right.
    #[error("{0}")]
    Setup(String),
    /// The thread for heartbeats could not be started.
    #[error("the heartbeat thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The client could not be set up for the heartbeat thread.
    #[error("the heartbeat client could not be set up")]
    Client(#[source] ClientError),
    /// The service refuses to give this worker work, and will go on to: its key or what it asks for is wrong.
    #[error("the service refuses to give work")]
    Refused(#[source] ClientError),
    /// The task that the worker ran on panicked or was aborted.
    #[error("the worker ended unexpectedly")]
    Ended(#[source] tokio::task::JoinError),
}
