//! Asks what has changed that all servers must know, and renews this server's entry in the registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use task_repo_protocol::Uuid;

use super::runner::{Job, JobRound, Steps};
use crate::store::{SCHEMA, ServerRecord, Store, StoreError};
use crate::usecases::{Keys, TaskService};

/// How often this server asks what has changed. A revoked key is refused everywhere within 5 s because of it.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How often this server renews its entry.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// This server, as the registry is to know it.
pub(super) struct ThisServer {
    id: Uuid,
    host: String,
    started_at: DateTime<Utc>,
    renewed_at: Mutex<Option<Instant>>,
}

impl ThisServer {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self { id: Uuid::now_v7(), host: host(), started_at: now, renewed_at: Mutex::new(None) }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    fn is_due(&self, now: Instant) -> bool {
        self.renewed_at.lock().is_none_or(|at| now.saturating_duration_since(at) >= RENEW_INTERVAL)
    }

    fn entry(&self, now: DateTime<Utc>) -> ServerRecord {
        ServerRecord {
            id: self.id,
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA.to_string(),
            started_at: self.started_at,
            renewed_at: now,
        }
    }
}

/// What this machine calls itself.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match told.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// The job.
pub(super) struct ServerRegistry {
    store: Store,
    keys: Arc<Keys>,
    service: Arc<TaskService>,
    server: Arc<ThisServer>,
}

impl ServerRegistry {
    pub(super) fn new(
        store: &Store,
        keys: &Arc<Keys>,
        service: &Arc<TaskService>,
        server: &Arc<ThisServer>,
    ) -> Self {
        let (keys, service, server) = (Arc::clone(keys), Arc::clone(service), Arc::clone(server));
        Self { store: store.clone(), keys, service, server }
    }
}

impl Job for ServerRegistry {
    const NAME: &'static str = "registry";

    async fn round(&self, steps: &Steps) -> Result<JobRound, StoreError> {
        let asked = Instant::now();
        let changes = self.store.changes().await?;
        self.keys.hear(changes, asked);
        steps.step();
        self.service.hear_of_types(changes).await?;
        steps.step();
        let now = self.store.clock().instant();
        if self.server.is_due(now) {
            self.store.renew_server(&self.server.entry(self.store.clock().now())).await?;
            *self.server.renewed_at.lock() = Some(now);
        }
        Ok(JobRound::done(ASK_INTERVAL))
    }
}
