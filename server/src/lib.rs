//! The task repository service: a central task queue server in front of MongoDB.
//!
//! `http → tasks → store → mongodb`; [`lifecycle`], [`config`], [`clock`], [`telemetry`], [`task`], [`events`] and [`scope`]
//! are leaves that anybody may use.

pub mod clock;
pub mod config;
pub mod events;
pub mod http;
pub mod json_value;
pub mod lifecycle;
mod mistake;
pub mod scope;
pub mod server;
pub mod store;
pub mod task;
pub mod tasks;
pub mod telemetry;

pub use config::Settings;
pub use server::{Server, StartError};
