//! The task repository service: a central task queue server in front of MongoDB.
//!
//! `http → jobs → usecases → dispatch → store → mongodb`, started by [`server`]. The other modules are below all of these and
//! use none of them.

pub mod access;
mod background;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod events;
mod fault_injection;
pub mod file_descriptors;
pub mod http;
pub mod jobs;
pub mod json_schema;
pub mod json_value;
mod kept;
pub mod lifecycle;
mod same_words;
pub mod server;
pub mod store;
pub mod task;
pub mod task_types;
pub mod telemetry;
pub mod usecases;

pub use config::Settings;
pub use server::{Server, StartError};
