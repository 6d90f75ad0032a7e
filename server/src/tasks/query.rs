//! Reading and listing, and waiting for the end of a task.

use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use task_repo_protocol::{Status as WireStatus, Uuid};

use super::{Failure, TaskService};
use crate::scope::Scope;
use crate::store::{Listing, Order, Position, Want};
use crate::task::{Status, TaskRecord};

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Any of these; empty: `pending`.
    pub statuses: Vec<WireStatus>,
    /// Whatever the status.
    pub any_status: bool,
    /// Any of these; empty: all.
    pub task_types: Vec<String>,
    /// All of these, each `key:value`.
    pub tags: Vec<String>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only tasks created later.
    pub created_after: Option<DateTime<Utc>>,
    /// Only tasks created earlier.
    pub created_before: Option<DateTime<Utc>>,
    /// How many at most.
    pub limit: usize,
    /// From the page before.
    pub cursor: Option<String>,
    /// With `request` and `result`.
    pub payload: bool,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// In order.
    pub tasks: Vec<TaskRecord>,
    /// Leads to the next page; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A cursor that does not belong to these filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignCursor;

#[derive(Serialize, Deserialize)]
struct Cursor {
    filters: String,
    priority: i32,
    time: i64,
    id: Uuid,
}

impl ListQuery {
    /// The statuses to look for; `None`: all.
    fn statuses(&self) -> Option<Vec<WireStatus>> {
        let mut statuses =
            if self.statuses.is_empty() { vec![WireStatus::Pending] } else { self.statuses.clone() };
        statuses.sort();
        statuses.dedup();
        Some(statuses).filter(|statuses| !self.any_status && statuses.len() < WireStatus::ALL.len())
    }

    fn order(&self) -> Order {
        let is_pending = self.statuses().as_deref() == Some(&[WireStatus::Pending]);
        if is_pending { Order::Claim } else { Order::Newest }
    }

    /// Tells lists with different filters apart; `limit`, `cursor` and `include` may change from page to page. Only filters
    /// that are set count, by name, so that a cursor is good at servers that know more filters.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut filter = |name: &str, value: &str| {
            // Lengths keep one pair from reading like another.
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        };
        for status in self.statuses().into_iter().flatten() {
            filter("status", status.as_str());
        }
        self.task_types.iter().for_each(|name| filter("task_type", name));
        self.tags.iter().for_each(|tag| filter("tag", tag));
        self.user_id.iter().for_each(|user| filter("user_id", user));
        self.created_after.iter().for_each(|time| filter("created_after", &time.to_rfc3339()));
        self.created_before.iter().for_each(|time| filter("created_before", &time.to_rfc3339()));
        URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
    }

    fn position(&self) -> Result<Option<Position>, ForeignCursor> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ForeignCursor)?;
        let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| ForeignCursor)?;
        let time = DateTime::from_timestamp_millis(cursor.time).ok_or(ForeignCursor)?;
        if cursor.filters != self.fingerprint() {
            return Err(ForeignCursor);
        }
        Ok(Some(Position { priority: cursor.priority, time, id: cursor.id }))
    }

    fn cursor_after(&self, task: &TaskRecord) -> Option<String> {
        let time = match self.order() {
            Order::Claim => task.ready_at,
            Order::Newest => task.created_at,
        };
        let cursor = Cursor {
            filters: self.fingerprint(),
            priority: task.priority,
            time: time.timestamp_millis(),
            id: task.id,
        };
        Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?))
    }

    /// Checks the cursor before anything is asked of the database.
    ///
    /// # Errors
    /// When the cursor is none, or belongs to a list with other filters.
    pub fn check(&self) -> Result<(), ForeignCursor> {
        self.position().map(|_| ())
    }
}

impl TaskService {
    /// Reads a task.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn get(&self, scope: &Scope, id: Uuid) -> Result<TaskRecord, Failure> {
        self.read(scope, id, true).await
    }

    /// Reads a task without its payloads.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn peek(&self, scope: &Scope, id: Uuid) -> Result<TaskRecord, Failure> {
        self.read(scope, id, false).await
    }

    async fn read(&self, scope: &Scope, id: Uuid, payload: bool) -> Result<TaskRecord, Failure> {
        let wants = [Want { scope: scope.clone(), id }];
        let found = self.store.get(&wants, payload).await?.pop().unwrap_or(Ok(None))?;
        found.ok_or_else(|| Failure::TaskNotFound(id.to_string()))
    }

    /// Reads a task as soon as it is final, or at the end of the wait.
    ///
    /// # Errors
    /// When there is no such task, or no more.
    pub async fn wait(&self, scope: &Scope, id: Uuid, wait: Duration) -> Result<TaskRecord, Failure> {
        let watcher = self.watch.watch(id);
        let until = self.store.deadline() + wait;
        let mut end = pin!(tokio::time::sleep(wait));
        loop {
            let mut finished = pin!(watcher.finished());
            // Polled once before the read, so that no end between read and wait is missed.
            let _ = futures_util::poll!(&mut finished);
            let task = self.get(scope, id).await?;
            if task.status.is_final() || self.is_draining() || end.deadline() <= tokio::time::Instant::now() {
                return Ok(task);
            }
            tokio::select! {
                () = finished => {}
                () = &mut end => {}
                () = self.draining.cancelled() => {}
            }
            self.store.waited(until);
        }
    }

    /// The newest task that produced a result.
    ///
    /// # Errors
    /// When there is none.
    pub async fn by_result(&self, scope: &Scope, result_id: &str) -> Result<TaskRecord, Failure> {
        let found = self.store.by_result(scope, result_id).await?;
        found.ok_or_else(|| Failure::ResultNotFound(result_id.to_owned()))
    }

    /// A page of a list, which must have been [checked](ListQuery::check).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, scope: &Scope, query: &ListQuery) -> Result<Page, Failure> {
        let found = self
            .store
            .list(&Listing {
                scope: scope.clone(),
                statuses: query
                    .statuses()
                    .map(|statuses| statuses.into_iter().flat_map(Status::of_wire).copied().collect()),
                task_types: query.task_types.clone(),
                tags: query.tags.clone(),
                user_id: query.user_id.clone(),
                created_after: query.created_after,
                created_before: query.created_before,
                order: query.order(),
                after: query.position().unwrap_or(None),
                limit: query.limit,
                payload: query.payload,
            })
            .await?;
        let last = found.tasks.last().filter(|_| found.more);
        Ok(Page { next_cursor: last.and_then(|task| query.cursor_after(task)), tasks: found.tasks })
    }
}
