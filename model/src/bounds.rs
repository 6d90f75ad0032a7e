//! What keeps the number of states finite.

/// How much of everything there is. Of tasks, workers and servers, one or two.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Tasks to be done.
    pub tasks: usize,
    /// Workers, each with one task at a time.
    pub workers: usize,
    /// Servers, each with one operation at a time.
    pub servers: usize,
    /// Attempts that a task has.
    pub max_attempts: u8,
    /// Lost leases after which a task fails.
    pub max_losses: u8,
    /// Releases that workers make of a task.
    pub releases: usize,
    /// Whether workers send heartbeats.
    pub heartbeats: bool,
    /// Whether settlements and heartbeats may still arrive after their worker has had its answer.
    pub late_requests: bool,
    /// How often servers take back what they claimed for a caller that has gone; `None`: claims have no ids, and nobody
    /// notices that a caller has gone.
    pub withdrawals: Option<usize>,
}
