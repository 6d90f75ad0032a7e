//! What all callers agree on: keys, names, times, phases, and their clients.

use std::time::Duration;

use anyhow::Result;
use task_repo_client::{RetryBudget, TaskClient};

/// The key that servers start with; callers have one that was issued.
pub(crate) const API_KEY: &str = "chaos_api_key";
/// Task types, so that several groups of callers wait.
pub(crate) const QUEUES: [&str; 2] = ["chaos.a", "chaos.b"];
/// Tasks that are worked on for long, by workers who say all the time that they are alive.
pub(crate) const STEADY: &str = "chaos.steady";
/// How the names of tasks begin that end their workers.
pub(crate) const POISON: &str = "poison";
/// How the names of tasks begin whose payload is odd.
pub(crate) const ODD: &str = "odd-";
/// How the names of workers begin that vanish.
pub(crate) const VANISHED: &str = "vanished-";
/// How long a lease holds.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// When the client gives a call up, beyond the wait that it asked for. The service answers before.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(30);

/// What callers do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Faults are made: work, and break rules now and then.
    Faults,
    /// Finish what is there.
    Drain,
    /// Stop.
    Over,
}

/// Clients that never repeat anything by themselves: each call is one line of the history.
pub(crate) fn clients(urls: &[String], key: &str) -> Result<Vec<TaskClient>> {
    let client = |url: &String| {
        Ok(TaskClient::builder(url)
            .api_key(key)
            .retry(RetryBudget::none())
            .connect_timeout(Duration::from_secs(1))
            .timeout(CALL_LIMIT)
            .build()?)
    };
    urls.iter().map(client).collect()
}
