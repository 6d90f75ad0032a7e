//! A model of the protocol by which workers claim, hold and settle tasks: what `server/src/lifecycle/`,
//! `server/src/store/guarded_write.rs` and the sweeper do, small enough that every order of steps can be tried.
//!
//! | module | what it holds |
//! |---|---|
//! | [`document`] | a task as the database keeps it, when a call is allowed, what it changes |
//! | [`state`] | everything at one moment |
//! | [`protocol`] | the steps of workers, servers and time |
//! | [`properties`] | what must always hold, and what must happen at least once |
//!
//! # What is in it
//!
//! - **Servers** read, decide and write in separate steps, and anything may happen between them. Each has one operation
//!   under way; the sweeper is one of them, on any server. A server may stop at any step.
//! - **Requests** arrive at any server, late, several times or never. A worker that has had no answer sends again, which
//!   is the same as a request that arrives twice. Answers are lost when the server stops before they arrive; one that
//!   arrives late is the same as a worker that is slow.
//! - **Time** is a step: a lease may run out at any moment once it is given. So a worker that goes on after that, a
//!   zombie, is one of the cases.
//! - **The database** does one guarded write at a time, and loses nothing that it has written. A write whose answer was
//!   lost is a server that stops after writing.
//!
//! # What is not in it
//!
//! Cancelling, editing and executing tasks, the wait before a retry, and priorities. Claim ids, and tasks that go back
//! when a caller has gone away: what is said of those rests on the tests and on `cargo xtask chaos`. What a server remembers of tasks it
//! has leased is not there either: it is a read made long ago, which a slow server has too.
//!
//! # Bounds
//!
//! [`Bounds`] keeps the number of states finite and small: attempts, losses and releases of a task, and whether a
//! request may still arrive after its worker has had its answer. [`state`] says which states count as one. Two tasks are
//! tried with two attempts each and a request that is repeated until it is answered; releases, heartbeats and requests
//! that arrive after that are tried with one task.
//!
//! A test also breaks the protocol on purpose, once for each property, by a [`Variation`]: a property that finds nothing
//! there would find nothing here either.

pub mod document;
pub mod properties;
pub mod protocol;
pub mod state;

pub use protocol::Protocol;

/// How much of everything there is. Of tasks, workers and servers, one or two.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Tasks to be done.
    pub tasks: usize,
    /// Workers, each with one task at a time.
    pub workers: usize,
    /// Servers, each with one operation at a time.
    pub servers: usize,
    /// Attempts that a task has.
    pub max_attempts: u8,
    /// Lost leases after which a task fails.
    pub max_losses: u8,
    /// Releases that workers make of a task.
    pub releases: usize,
    /// Whether workers send heartbeats.
    pub heartbeats: bool,
    /// Whether requests may still arrive after their worker has had its answer.
    pub late_requests: bool,
}

/// The protocol as it is built, or with one mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variation {
    /// No mistake.
    AsBuilt,
    /// A settlement is accepted whoever holds the task.
    SettleWithoutToken,
    /// A claim finds a ready task and then updates it, without looking whether it is still ready.
    ClaimWithoutGuard,
    /// The sweeper finds a lease that ran out and then takes the task back, whatever has happened to it since.
    SweepWithoutGuard,
    /// A completion is acknowledged before its write has landed.
    AnswerBeforeWrite,
    /// A repeated settlement is answered by where the task stands now.
    ReceiptOfToday,
    /// A lost lease does not count as an attempt.
    LossGivesAttemptBack,
    /// Nobody takes lost leases back.
    NoSweeper,
}
