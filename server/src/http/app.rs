//! What every request needs.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;

use super::body_room::BodyRoom;
use super::cors::Cors;
use crate::background::Background;
use crate::jobs::Jobs;
use crate::store::Store;
use crate::usecases::{Keys, StreamTokens, Streams, TaskService};

/// What every request needs.
pub(crate) struct App {
    /// The use cases of tasks.
    pub(crate) service: Arc<TaskService>,
    /// The use cases of keys.
    pub(crate) keys: Arc<Keys>,
    /// The streams that are open.
    pub(crate) streams: Arc<Streams>,
    /// The tokens that open them.
    pub(crate) stream_tokens: StreamTokens,
    /// For health answers: whether the database takes writes, and what it knows of servers and documents.
    pub(crate) store: Store,
    /// For health answers: how the jobs are doing.
    pub(crate) jobs: Jobs,
    /// Whether the server is about to stop.
    pub(crate) background: Background,
    /// The name that health answers show.
    pub(crate) name: String,
    /// The OpenAPI document, made when it is first asked for: it takes some megabytes to make.
    pub(crate) document: LazyLock<Bytes>,
    /// How long a body may take.
    pub(crate) body_timeout: Duration,
    /// Room for the bodies of all requests.
    pub(crate) bodies: BodyRoom,
    /// Which pages may call from a browser.
    pub(crate) cors: Cors,
    /// When the server started.
    pub(crate) started: Instant,
    /// Requests that are being answered.
    pub(crate) in_flight: InFlight,
}

/// How many requests are being answered; each holds a share until its answer is written or its caller has gone.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<()>);

impl InFlight {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
