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
//! | `attempt`, `running` | one handler at work: panic, timeout, how it ended |
//! | `handler_waits`, `wait_counts` | handlers that wait for tasks which need their slots |
//! | `deliver` | settles many attempts in one call that also brings the next work |
//! | `ended` | what becomes of attempts that are over |
//! | `heartbeat`, `lease`, `progress` | leases renewed and progress told from a thread of its own |
//! | [`stop`], [`signal`], `shutdown` | how a worker is told to stop, and the graceful stop |
//! | [`event`], `error` | what happens, for hooks and logs, and why a worker does not work |
//!
//! A first program stands on the [crate's page](crate).
//!
//! # What it promises
//!
//! - It never holds more tasks than its concurrency, nor more of one type than that type's limit.
//! - A handler that blocks its thread, or the whole runtime, does not lose its lease: heartbeats have their own thread,
//!   runtime and connections. Handlers that block belong into [`WorkerBuilder::register_blocking`].
//! - A handler ends with its attempt: when the task's or its own timeout is over, or its lease is lost, it is told, and
//!   aborted after the patience that is set. One that blocks its thread cannot be aborted: it keeps its slot until it
//!   returns, which is told in an event, in the log and in the report.
//! - Every attempt is settled once: results are delivered again and again with the same token until the service says
//!   what became of them, for up to ten minutes. Only a refusal by the service itself ends that sooner, not what a proxy,
//!   a login page or another server answers. What is too large for one call goes in several.
//! - A stop tells handlers at once, lets them finish for 15 seconds, tells them to stop, aborts them 5 seconds later and
//!   gives their tasks back: at most 26 seconds in all, within the 30 that Kubernetes gives. No task is given back while
//!   its handler still runs.
//! - A claimed task that cannot be read costs no other one its lease: it is reported as failed with the code
//!   `invalid_answer`, so that a newer worker may try again.
//! - While the service is away, it goes on with what it has, and asks again with growing, jittered pauses.
//! - It does not end without a word: every failed attempt, lost lease and refusal is logged with its reason, and is an
//!   event for [`WorkerBuilder::on_event`].

mod attempt;
pub mod builder;
mod claim;
pub mod context;
mod deliver;
mod ended;
mod error;
pub mod event;
pub mod handler;
mod handler_waits;
mod heartbeat;
mod lease;
mod progress;
mod run;
mod running;
mod settings;
mod shutdown;
pub mod signal;
mod slots;
mod state;
mod step;
pub mod stop;
mod wait_counts;

pub use builder::WorkerBuilder;
pub use context::TaskContext;
pub use error::WorkerError;
pub use event::{WorkerEvent, WorkerReport};
pub use handler::{HandlerOptions, HandlerResult};
pub use lease::CancelReason;
pub use run::Worker;
pub use signal::stop_signal;
pub use stop::WorkerHandle;
