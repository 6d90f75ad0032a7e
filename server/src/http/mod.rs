//! actix at the edge: routes, credentials, bodies, problems. A file per resource.

mod app;
mod body_room;
mod connections;
mod cors;
mod docs;
mod edge;
mod examples;
mod failures;
mod keys;
mod listener;
mod logs;
mod mounts;
mod near_path;
mod openapi;
mod problems;
mod request;
mod response;
mod route_metrics;
mod routes;
mod streams;
mod system;
mod task_types;
mod tasks;
mod unreadable;
mod work;

pub(crate) use app::{App, InFlight};
pub(crate) use body_room::BodyRoom;
pub(crate) use cors::Cors;
pub(crate) use listener::Listener;
pub use routes::openapi_document;
