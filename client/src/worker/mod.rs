//! The worker runtime: typed handlers, run as many at once as there is room for, kept alive by heartbeats.
//!
//! | part | what it does |
//! |---|---|
//! | [`builder`], `settings` | how a worker is set up: handlers, concurrency, lease, grace |
//! | [`handler`] | typed handlers made uniform |
//! | [`context`] | what a handler knows of its task, and its progress and cancellation |
//! | `run` | [`Worker`] and its loop: claims for the free slots, runs attempts, delivers how they ended |
//! | `state`, `step` | a worker at work, and what it does about what happened |
//! | `claim`, `slots` | asks for work, and how much may be claimed |
//! | `attempt` | one handler at work: panic, timeout, how it ended |
//! | `deliver` | settles many attempts in one call that also brings the next work |
//! | `ended` | what becomes of attempts that are over |
//! | `heartbeat`, `lease`, `progress` | leases renewed and progress told from a thread of its own |
//! | [`stop`], `shutdown` | how a worker is told to stop, and the graceful stop |
//! | [`event`], `error` | what happens, for hooks and logs, and why a worker does not work |
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
mod claim;
pub mod context;
mod deliver;
mod ended;
mod error;
pub mod event;
pub mod handler;
mod heartbeat;
mod lease;
mod progress;
mod run;
mod settings;
mod shutdown;
mod slots;
mod state;
mod step;
pub mod stop;

pub use builder::WorkerBuilder;
pub use context::TaskContext;
pub use error::WorkerError;
pub use event::{WorkerEvent, WorkerReport};
pub use handler::HandlerOptions;
pub use lease::CancelReason;
pub use run::Worker;
pub use stop::WorkerHandle;
