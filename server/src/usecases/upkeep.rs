//! The loops that look after the installation: this server's entry in the registry, what all servers must know, and tasks
//! whose retention has ended.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::TaskService;
use crate::store::{SCHEMA, ServerRecord, StoreError, UnreadableDocument};

/// How often this server asks whether something has changed that all servers must know.
pub(super) const ASK: Duration = Duration::from_secs(1);
/// How often this server renews its entry in the registry.
const RENEW: Duration = Duration::from_secs(5);
/// The name of the job that removes tasks.
const RETENTION: &str = "retention";
/// How long that job belongs to a server that says no more. Two that do it at once do no harm.
const LEASE: Duration = Duration::from_secs(30);
/// How many tasks are removed together: few enough that others get their turn in between.
const REMOVED_TOGETHER: usize = 500;

/// This server, as the registry is to know it.
pub(super) struct ThisServer {
    id: Uuid,
    host: String,
    started_at: DateTime<Utc>,
    renewed: std::sync::Mutex<Option<Instant>>,
}

impl ThisServer {
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self { id: Uuid::now_v7(), host: host(), started_at: now, renewed: std::sync::Mutex::default() }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.renewed().is_none_or(|at| now.saturating_duration_since(at) >= RENEW)
    }

    fn renewed(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

impl TaskService {
    /// Asks what has changed that all servers must know, and renews this server's entry when it is time.
    pub(super) async fn keep_up(&self) -> Result<Duration, StoreError> {
        let asked = Instant::now();
        let changes = self.store.changes().await?;
        self.keys.hear(changes, asked);
        let now = self.store.clock().instant();
        if self.server.is_due(now) {
            self.store.renew_server(&self.entry()).await?;
            *self.server.renewed() = Some(now);
        }
        Ok(Duration::ZERO)
    }

    fn entry(&self) -> ServerRecord {
        ServerRecord {
            id: self.server.id,
            host: self.server.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA.to_string(),
            started_at: self.server.started_at,
            renewed_at: self.store.clock().now(),
        }
    }

    /// This server leaves: what it leaves undone runs out by itself.
    pub(super) async fn sign_off(&self) {
        let job = self.store.release_job(RETENTION, self.server.id);
        let _ = tokio::join!(job, self.store.remove_server(self.server.id));
    }

    /// Removes tasks whose retention has ended, batch after batch, while this server has the job; says how late it was for
    /// the first of them.
    pub(super) async fn retain(&self) -> Result<Duration, StoreError> {
        let mut lag = Duration::ZERO;
        if !self.store.lease_job(RETENTION, self.server.id, LEASE).await? {
            return Ok(lag);
        }
        let leased = self.store.clock().instant();
        while self.store.clock().since(leased) < LEASE / 2 && !self.stopping.is_cancelled() {
            let removed = self.store.remove_due(REMOVED_TOGETHER).await?;
            let late = removed.oldest.map(|at| self.store.clock().now() - at);
            lag = lag.max(late.and_then(|late| late.to_std().ok()).unwrap_or_default());
            metrics::counter!("task_repo_tasks_removed_total").increment(removed.tasks);
            if !removed.is_full {
                break;
            }
        }
        Ok(lag)
    }

    /// The servers on this database, as far as it says.
    pub async fn servers(&self) -> Vec<ServerRecord> {
        self.store.servers().await.unwrap_or_default()
    }

    /// The documents that this server has met and could not read.
    pub fn unreadable(&self) -> Vec<UnreadableDocument> {
        self.store.unreadable().list()
    }
}
