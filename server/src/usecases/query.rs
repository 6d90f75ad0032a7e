//! Reading and listing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use task_repo_protocol::{Status as WireStatus, Uuid};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{Listing, TaskQuery};
use crate::task::{Order, Position, Status, TaskRecord};

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Any of these; empty: `pending`, or all where ids or times of the end are given.
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
    /// Only tasks that became final later.
    pub completed_after: Option<DateTime<Utc>>,
    /// Only tasks that became final earlier.
    pub completed_before: Option<DateTime<Utc>>,
    /// Only these tasks, as they were named; empty: all.
    pub ids: Vec<String>,
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

/// Why a cursor does not lead to a page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongCursor {
    /// It is none.
    #[error(
        "it is no cursor: give back a next_cursor exactly as an answer brought it, or leave it out for the first page"
    )]
    Garbage,
    /// It belongs to a list with other filters.
    #[error(
        "it belongs to a list with other filters: send the filters of that list again, or leave it out for the first page"
    )]
    Foreign,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    filters: String,
    priority: i32,
    time: i64,
    id: Uuid,
}

impl ListQuery {
    /// Whether the status is `pending` only because nothing else is asked for.
    pub fn is_pending_by_default(&self) -> bool {
        let has_an_end = self.completed_after.is_some() || self.completed_before.is_some();
        self.statuses.is_empty() && !self.any_status && self.ids.is_empty() && !has_an_end
    }

    /// The statuses to look for; `None`: all.
    fn statuses(&self) -> Option<Vec<WireStatus>> {
        if self.is_pending_by_default() {
            return Some(vec![WireStatus::Pending]);
        }
        let mut statuses = self.statuses.clone();
        statuses.sort();
        statuses.dedup();
        let is_all = self.any_status || statuses.is_empty() || statuses.len() == WireStatus::ALL.len();
        (!is_all).then_some(statuses)
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
        self.completed_after.iter().for_each(|time| filter("completed_after", &time.to_rfc3339()));
        self.completed_before.iter().for_each(|time| filter("completed_before", &time.to_rfc3339()));
        self.ids.iter().for_each(|id| filter("id", id));
        URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
    }

    fn position(&self) -> Result<Option<Position>, WrongCursor> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| WrongCursor::Garbage)?;
        let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| WrongCursor::Garbage)?;
        let time = DateTime::from_timestamp_millis(cursor.time).ok_or(WrongCursor::Garbage)?;
        if cursor.filters != self.fingerprint() {
            return Err(WrongCursor::Foreign);
        }
        Ok(Some(Position { priority: cursor.priority, time, id: cursor.id }))
    }

    fn cursor_at(&self, place: Position) -> Option<String> {
        let cursor = Cursor {
            filters: self.fingerprint(),
            priority: place.priority,
            time: place.time.timestamp_millis(),
            id: place.id,
        };
        Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?))
    }

    /// Checks the cursor before anything is asked of the database.
    ///
    /// # Errors
    /// When the cursor is none, or belongs to a list with other filters.
    pub fn check(&self) -> Result<(), WrongCursor> {
        self.position().map(|_| ())
    }
}

impl TaskService {
    /// Reads a task.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn get(&self, caller: &Caller, id: Uuid) -> Result<TaskRecord, Failure> {
        self.read(caller, id, true).await
    }

    /// What an attempt of it has left for the next one, as JSON text.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn checkpoint(&self, caller: &Caller, task: &TaskRecord) -> Result<Option<String>, Failure> {
        if !task.has_checkpoint || task.status.is_final() {
            return Ok(None);
        }
        Ok(self.store.checkpoints(&[task.id], caller.deadline.at()).await?.remove(&task.id))
    }

    /// Reads a task without its payloads.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn peek(&self, caller: &Caller, id: Uuid) -> Result<TaskRecord, Failure> {
        self.read(caller, id, false).await
    }

    async fn read(&self, caller: &Caller, id: Uuid, payload: bool) -> Result<TaskRecord, Failure> {
        let wants = [TaskQuery { scope: caller.scope.clone(), id }];
        let found = self.store.get(&wants, payload, caller.deadline.at()).await?.pop().unwrap_or(Ok(None))?;
        found.ok_or_else(|| Failure::TaskNotFound(id.to_string()))
    }

    /// The newest task that produced a result.
    ///
    /// # Errors
    /// When there is none.
    pub async fn by_result(&self, caller: &Caller, result_id: &str) -> Result<TaskRecord, Failure> {
        let found = self.store.by_result(caller, result_id).await?;
        found.ok_or_else(|| Failure::no_result(result_id))
    }

    /// A page of a list, which must have been [checked](ListQuery::check).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Page, Failure> {
        let found = self
            .store
            .list(&Listing {
                caller: caller.clone(),
                statuses: query
                    .statuses()
                    .map(|statuses| statuses.into_iter().flat_map(Status::of_wire).copied().collect()),
                task_types: query.task_types.clone(),
                tags: query.tags.clone(),
                user_id: query.user_id.clone(),
                created_after: query.created_after,
                created_before: query.created_before,
                completed_after: query.completed_after,
                completed_before: query.completed_before,
                ids: (!query.ids.is_empty()).then(|| {
                    let mut ids: Vec<_> =
                        query.ids.iter().filter_map(|id| Uuid::try_parse(id).ok()).collect();
                    ids.sort();
                    ids.dedup();
                    ids
                }),
                order: query.order(),
                after: query.position().unwrap_or(None),
                limit: query.limit,
                payload: query.payload,
            })
            .await?;
        let next_cursor = found.next.and_then(|place| query.cursor_at(place));
        Ok(Page { next_cursor, tasks: found.tasks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_0_1_0_goes_on() {
        let time = "2026-01-31T10:00:00Z".parse().expect("a time");
        let query = ListQuery {
            statuses: vec![WireStatus::Failed],
            task_types: vec!["a".to_owned()],
            tags: vec!["k:v".to_owned()],
            user_id: Some("ann".to_owned()),
            created_after: Some(time),
            ..ListQuery::default()
        };
        // Both as a server of 0.1.0 makes them.
        assert_eq!(ListQuery::default().fingerprint(), "XRXSkR28OsPO");
        assert_eq!(query.fingerprint(), "9pxs8qLjmxr4");
        let others = [
            ListQuery { ids: vec![Uuid::nil().to_string()], ..query.clone() },
            ListQuery { completed_after: Some(time), ..query.clone() },
            ListQuery { completed_before: Some(time), ..query.clone() },
        ];
        for other in others {
            assert_ne!(other.fingerprint(), query.fingerprint(), "{other:?}");
        }
    }

    #[test]
    fn only_pending_is_listed_where_nothing_else_is_asked_for() {
        let query = ListQuery::default();
        assert!(query.is_pending_by_default());
        assert_eq!((query.order(), query.statuses()), (Order::Claim, Some(vec![WireStatus::Pending])));
        let time = Some(DateTime::UNIX_EPOCH);
        let others = [
            ListQuery { ids: vec!["none".to_owned()], ..query.clone() },
            ListQuery { completed_after: time, ..query.clone() },
            ListQuery { completed_before: time, ..query.clone() },
            ListQuery { any_status: true, ..query.clone() },
        ];
        for other in others {
            assert!(!other.is_pending_by_default());
            assert_eq!((other.order(), other.statuses()), (Order::Newest, None), "{other:?}");
        }
        let named = ListQuery { statuses: vec![WireStatus::Pending], ..query };
        assert!(!named.is_pending_by_default(), "who asks for it knows it");
        assert_eq!(named.order(), Order::Claim);
    }
}
