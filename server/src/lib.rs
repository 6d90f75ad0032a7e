//! The task repository service: a central task queue server in front of MongoDB.
//!
//! `http → tasks → store → mongodb`; [`lifecycle`], [`config`], [`clock`], [`telemetry`], [`task`] and [`scope`] are
//! leaves that anybody may use.

pub mod clock;
pub mod config;
pub mod lifecycle;
pub mod scope;
pub mod store;
pub mod task;
pub mod tasks;

pub use config::Settings;
