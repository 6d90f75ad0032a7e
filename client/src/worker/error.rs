//! Why a worker does not work.

use crate::error::ClientError;

/// Why a worker does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It was not set up right.
    #[error("{0}")]
    Setup(String),
    /// The thread for heartbeats could not be started.
    #[error("the heartbeat thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The client could not be set up for the heartbeat thread.
    #[error("the heartbeat client could not be set up")]
    Client(#[source] ClientError),
    /// The service refuses to give this worker work, and will go on to: its key or what it asks for is wrong.
    #[error("the service refuses to give work")]
    Refused(#[source] ClientError),
    /// The task that the worker ran on panicked or was aborted.
    #[error("the worker ended unexpectedly")]
    Ended(#[source] tokio::task::JoinError),
}
