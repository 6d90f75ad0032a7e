//! The harness of the integration tests: a real server on a port of its own, with a database of its own.
//!
//! | module | what it gives |
//! |---|---|
//! | [`server`] | [`TestServer`]: starts, stops, talks |
//! | [`database`] | the database of one test, dropped when the test ends |
//! | [`http`] | raw calls and their answers, with what holds for every answer checked on the way |
//! | [`factory`] | tasks, claims and keys in one line |
//! | [`events`] | server-sent events as a browser reads them |
//! | [`routes`] | every route of the contract, who may call it, and a body it takes |
//! | [`waiting`] | waiting for something that another party does |
//!
//! `cargo xtask test` brings MongoDB; `TEST_MONGODB_URI` names one of your own, or several.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness fails its test by panicking, and its values are used or dropped as the test likes"
)]

pub mod database;
pub mod events;
pub mod factory;
pub mod http;
pub mod routes;
pub mod server;
pub mod waiting;

pub use database::TestDatabase;
pub use events::{EventStream, StreamEvent};
pub use factory::{as_shown_later, in_seconds, unique_type};
pub use http::{API_KEY, HttpAnswer, HttpCall, assert_problem, encode, id_of, raw};
pub use routes::{ROUTES, Route, SYSTEM_ROUTES};
pub use server::TestServer;
pub use waiting::eventually;
