//! Which failures there were, by type, code and reason. They come from the roll-ups of the feed: no task is read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use task_repo_protocol::{FailureGroup, FailurePage};

use super::failure::Failure;
use super::query::WrongCursor;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{FailureQuery, FailureRow};

/// How far back failures are told of where nobody says otherwise.
const USUAL: TimeDelta = TimeDelta::hours(24);

/// Which failures are asked for.
#[derive(Debug, Clone)]
pub struct FailuresAsked {
    /// From the beginning of its hour on; `None`: a day back.
    pub since: Option<DateTime<Utc>>,
    /// Of these types; empty: of all that the caller may see.
    pub task_types: Vec<String>,
    /// Most groups of a page.
    pub limit: usize,
    /// From the page before.
    pub cursor: Option<String>,
}

/// Where the next page begins, and of which list.
#[derive(Serialize, Deserialize)]
struct Cursor {
    since: i64,
    task_types: Vec<String>,
    after: usize,
}

impl TaskService {
    /// The failures that are asked for, the most frequent first. Inside: the cursor is none, or of another list.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failures(
        &self,
        caller: &Caller,
        asked: FailuresAsked,
    ) -> Result<Result<FailurePage, WrongCursor>, Failure> {
        let (since, skipped) = match place(&asked) {
            Ok(Some(cursor)) => (cursor.since, cursor.after),
            Ok(None) => (beginning(asked.since.unwrap_or_else(|| self.now() - USUAL)), 0),
            Err(wrong) => return Ok(Err(wrong)),
        };
        let scope = &caller.scope;
        let task_types = match &scope.task_types {
            None => asked.task_types.clone(),
            Some(allowed) if asked.task_types.is_empty() => allowed.to_vec(),
            Some(_) => asked.task_types.iter().filter(|name| scope.may_use(name)).cloned().collect(),
        };
        if task_types.is_empty() && scope.task_types.is_some() {
            return Ok(Ok(FailurePage { failures: Vec::new(), next_cursor: None }));
        }
        let at = DateTime::from_timestamp_millis(since).unwrap_or_default();
        let query = FailureQuery { tenant: scope.tenant.to_string(), since: at, task_types };
        let rows = self.store.failures(&query, caller.deadline.at()).await?;
        let end = skipped + asked.limit;
        let next = (rows.len() > end).then_some(Cursor { since, task_types: asked.task_types, after: end });
        let next_cursor =
            next.and_then(|next| serde_json::to_vec(&next).ok()).map(|json| URL_SAFE_NO_PAD.encode(json));
        let failures = rows.into_iter().skip(skipped).take(asked.limit).map(group).collect();
        Ok(Ok(FailurePage { failures, next_cursor }))
    }
}

/// The beginning of the hour, in milliseconds since 1970.
fn beginning(at: DateTime<Utc>) -> i64 {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at).timestamp_millis()
}

fn place(asked: &FailuresAsked) -> Result<Option<Cursor>, WrongCursor> {
    let Some(cursor) = &asked.cursor else { return Ok(None) };
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| WrongCursor::Garbage)?;
    let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| WrongCursor::Garbage)?;
    let is_same = asked.since.is_none_or(|since| beginning(since) == cursor.since)
        && asked.task_types == cursor.task_types;
    if is_same { Ok(Some(cursor)) } else { Err(WrongCursor::Foreign) }
}

fn group(row: FailureRow) -> FailureGroup {
    let first_at = row.first_at.or(row.last_at).unwrap_or_default();
    FailureGroup {
        task_type: row.task_type,
        error_code: row.code,
        reason: row.reason.map(Into::into),
        count: row.count.unsigned_abs(),
        first_at,
        last_at: row.last_at.unwrap_or(first_at),
        sample: row.sample,
        message: row.message,
    }
}
