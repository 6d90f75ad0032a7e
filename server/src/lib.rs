//! The task repository service: a central task queue server in front of MongoDB.
//!
//! `http → usecases → store → mongodb`; [`access`], [`lifecycle`], [`config`], [`clock`], [`telemetry`], [`task`] and
//! [`events`] are leaves that anybody may use.

pub mod access;
pub mod clock;
pub mod config;
pub mod events;
mod fault_injection;
pub mod http;
pub mod json_value;
pub mod lifecycle;
pub mod server;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod usecases;

pub use config::Settings;
pub use server::{Server, StartError};
