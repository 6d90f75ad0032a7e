//! actix at the edge: routes, credentials, bodies, problems. A file per resource.

mod docs;
mod edge;
mod examples;
mod keys;
mod near_path;
mod openapi;
mod problems;
mod request;
mod routes;
mod system;
mod tasks;
mod work;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::usecases::TaskService;

pub(crate) use edge::{InFlight, edge};
pub use openapi::document as openapi_document;
pub(crate) use request::body_room::BodyRoom;
pub(crate) use routes::configure;

/// What every request needs.
pub(crate) struct App {
    /// The service behind the edge.
    pub(crate) service: Arc<TaskService>,
    /// The name that health answers show.
    pub(crate) name: String,
    /// How long a body may take.
    pub(crate) body_timeout: Duration,
    /// Room for the bodies of all requests.
    pub(crate) bodies: BodyRoom,
    /// When the server started.
    pub(crate) started: Instant,
    /// Requests that are being answered.
    pub(crate) in_flight: InFlight,
}
