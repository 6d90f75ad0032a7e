//! A model of the protocol by which workers claim, hold and settle tasks: what `server/src/lifecycle/`,
//! `server/src/store/write/guard.rs` and the sweeper do, small enough that every order of steps can be tried.
//!
//! | module | what it holds |
//! |---|---|
//! | `bounds`, `fault` | how much of everything there is, and the faults that can be injected |
//! | [`document`] | a task as the database keeps it, what can be done to it, when, and what that changes |
//! | [`state`] | everything at one moment |
//! | [`protocol`] | the steps of workers, servers and time |
//! | [`properties`] | what must always hold, and what must happen at least once |
//! | `checked` | the protocol as the checker sees it |
//!
//! # What is in it
//!
//! - **Servers** read, decide and write in separate steps, and anything may happen between them. Each has one operation
//!   under way; the sweeper is one of them, on any server. A server may stop at any step.
//! - **Requests** arrive at any server, late, several times or never. A worker that has had no answer sends again, which
//!   is the same as a request that arrives twice. Answers are lost when the server stops before they arrive; one that
//!   arrives late is the same as a worker that is slow.
//! - **Claims with an id** arrive at any server, early and late, also after their worker has had the answer and wants
//!   something else. A server looks the id up first, and looks for work in a later step. If the id has a lease that is still
//!   held, the server records in the lease that the claim was repeated, and answers with it. A server that notices that
//!   its caller has gone takes back only leases without that record.
//! - **Time** is a step: a lease may run out at any moment once it is given. So a worker that goes on after that, a
//!   zombie, is one of the cases.
//! - **The database** does one guarded write at a time, and loses nothing that it has written. A write whose answer was
//!   lost is a server that stops after writing.
//!
//! # What is not in it
//!
//! Cancelling, editing and executing tasks, the wait before a retry, and priorities. A claim that was answered as in doubt
//! and lands only after its server began to take it back: what is said of that rests on the tests and on
//! `cargo xtask chaos`. A server that claims twice at once for the same id: there one waits for the other. What a server remembers of tasks it
//! has leased is not there either: it is a read made long ago, which a slow server has too.
//!
//! # Bounds
//!
//! [`Bounds`] keeps the number of states finite and small: attempts, losses, releases and withdrawals of a task, and whether
//! a settlement may still arrive after its worker has had its answer. [`state`] says which states count as one. Two tasks are
//! tried with two attempts each and a request that is repeated until it is answered; releases, heartbeats and requests
//! that arrive after that are tried with one task. So are claims with ids, with one withdrawal, and there without the rest.
//!
//! A test also injects a fault into the protocol, once for each property, by an [`InjectedFault`]: a property that does not
//! find the fault there would find nothing here either.

mod bounds;
mod checked;
pub mod document;
mod fault;
pub mod properties;
pub mod protocol;
pub mod state;

pub use bounds::Bounds;
pub use fault::InjectedFault;
pub use protocol::Protocol;
