//! Who used the processor while something was measured.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::machine;

/// The processes that take part, besides this one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    /// Servers; none while the driver alone is measured.
    pub(crate) servers: Vec<u32>,
    /// The database, when it runs on this machine.
    pub(crate) mongod: Option<u32>,
}

/// Processor time used, in seconds. Two busy cores use two seconds a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// By this program, the caller.
    pub(crate) client: f64,
    /// By the servers.
    pub(crate) server: f64,
    /// By the database.
    pub(crate) mongod: f64,
    /// By programs that have nothing to do with it: what they used was missing.
    pub(crate) others: f64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.client += other.client;
        self.server += other.server;
        self.mongod += other.mongod;
        self.others += other.others;
    }
}

/// A running measurement.
pub(crate) struct Meter {
    processes: Processes,
    since: Instant,
    before: Readings,
}

#[derive(Clone, Copy, Default)]
struct Readings {
    client: f64,
    server: f64,
    mongod: f64,
    busy: f64,
}

impl Readings {
    fn take(processes: &Processes) -> Self {
        let seconds = |pid: u32| machine::processor_seconds(pid).unwrap_or(0.0);
        Self {
            client: seconds(std::process::id()),
            server: processes.servers.iter().copied().map(seconds).sum(),
            mongod: processes.mongod.map_or(0.0, seconds),
            busy: machine::busy_seconds().unwrap_or(0.0),
        }
    }
}

impl Meter {
    /// Begins.
    pub(crate) fn start(processes: &Processes) -> Self {
        Self { processes: processes.clone(), before: Readings::take(processes), since: Instant::now() }
    }

    /// Ends: how long it was, and what was used.
    pub(crate) fn stop(self) -> (Duration, Usage) {
        let elapsed = self.since.elapsed();
        let (before, after) = (self.before, Readings::take(&self.processes));
        let used = |reading: fn(&Readings) -> f64| (reading(&after) - reading(&before)).max(0.0);
        let ours = Usage {
            client: used(|it| it.client),
            server: used(|it| it.server),
            mongod: used(|it| it.mongod),
            others: 0.0,
        };
        let others = used(|it| it.busy) - ours.client - ours.server - ours.mongod;
        (elapsed, Usage { others: others.max(0.0), ..ours })
    }
}
