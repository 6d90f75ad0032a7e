//! The service held to its contract over HTTP: one binary, one intention per file, a server and a database per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod background;
mod batch;
mod bulk;
mod claim_on_creation;
mod claim_repeats;
mod claim_waiting;
mod claiming;
mod contention;
mod database_faults;
mod edit;
mod errors;
mod executing;
mod fail_point;
mod fields;
mod heartbeats;
mod idempotency;
mod isolation;
mod keys;
mod leases;
mod lifecycle_matrix;
mod list;
mod malformed;
mod outcomes;
mod parameters;
mod payload;
mod plans;
mod profiler;
mod refusals;
mod results;
mod retention;
mod retrying;
mod roles;
mod self_managed;
mod settling;
mod shutdown;
mod stall;
mod starting;
mod system;
mod times;
mod two_servers;
mod verbs;
mod waiting_cost;
mod worker;
