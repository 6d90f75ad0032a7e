//! Everything that is said of a worker before it runs.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use task_repo_protocol::{Claim, Tags, Uuid};

use super::event::Events;
use super::handler::Registration;
use super::slots::{ClaimPlan, Slots};
use super::wait_counts::WaitCounts;
use crate::client::TaskClient;

/// Everything that is said of a worker before it runs.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The client as it was given, for handlers.
    pub(crate) client: TaskClient,
    /// The same without repetitions, because the worker's loops repeat calls themselves.
    pub(crate) client_without_retries: TaskClient,
    pub(crate) worker_id: String,
    pub(crate) concurrency: usize,
    pub(crate) lease_seconds: Option<i64>,
    pub(crate) wait: Duration,
    pub(crate) grace: Duration,
    pub(crate) stop_patience: Duration,
    pub(crate) max_delivery_bytes: usize,
    pub(crate) tags: Option<Tags>,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) events: Events,
    /// How many handlers wait for other tasks.
    pub(crate) waits: WaitCounts,
    /// How many handlers could not be aborted.
    pub(crate) stuck: AtomicU64,
}

impl Settings {
    /// All slots, free.
    pub(crate) fn slots(&self) -> Slots {
        Slots::new(
            self.concurrency,
            (0..self.registrations.len()).map(|type_index| self.concurrency_of(type_index)),
        )
    }

    /// How many tasks of a type run at once at most.
    pub(crate) fn concurrency_of(&self, type_index: usize) -> usize {
        self.registrations[type_index].options.concurrency.unwrap_or(self.concurrency)
    }

    /// The claim for a plan. By its id the service takes it for one claim, however often it is repeated.
    pub(crate) fn claim(&self, plan: &ClaimPlan, wait: Duration, claim_id: Uuid) -> Claim {
        Claim {
            task_types: plan
                .types
                .iter()
                .map(|type_index| self.registrations[*type_index].task_type.clone())
                .collect(),
            limit: u32::try_from(plan.limit).ok(),
            worker_id: self.worker_id.clone(),
            lease_seconds: self.lease_seconds,
            wait_ms: u64::try_from(wait.as_millis()).ok(),
            claim_id: Some(claim_id),
            tags: self.tags.clone(),
        }
    }

    /// Which registration a task belongs to.
    pub(crate) fn type_index_of(&self, task_type: &str) -> Option<usize> {
        self.registrations.iter().position(|registration| registration.task_type == task_type)
    }
}
