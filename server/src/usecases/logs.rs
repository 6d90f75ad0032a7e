//! What workers log about their tasks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use task_repo_protocol::Uuid;
use task_repo_protocol::logs::{LogLine, LogPage, NewLogLines};

use super::failure::Failure;
use super::query::WrongCursor;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{LogQuery, LoggedLine};
use crate::task::{TaskRecord, token};

/// How long the token of an attempt that has ended still takes lines.
const AFTERWARDS: TimeDelta = TimeDelta::seconds(60);

/// Which lines are asked for.
#[derive(Debug, Clone)]
pub struct LogsAsked {
    /// Of one attempt only.
    pub attempt: Option<u32>,
    /// Only those with a greater number.
    pub after: Option<i64>,
    /// How many at most.
    pub limit: usize,
    /// From the page before.
    pub cursor: Option<String>,
}

/// Where the next page begins, and of which list.
#[derive(Serialize, Deserialize)]
struct Cursor {
    attempt: Option<u32>,
    after: Option<i64>,
    seq: i64,
}

impl TaskService {
    /// Keeps lines that a worker has logged.
    ///
    /// # Errors
    /// When there is no such task, or the token never held it or did so too long ago.
    pub async fn log(&self, caller: &Caller, id: Uuid, body: NewLogLines) -> Result<(), Failure> {
        let task = self.peek(caller, id).await?;
        let now = self.now();
        let attempt = attempt_of(&task, token::stored(id, &body.lease_token), now)?;
        let stored = |line: task_repo_protocol::logs::NewLogLine| LoggedLine {
            level: line.level.unwrap_or_default(),
            message: line.message,
            at: line.at.unwrap_or(now),
        };
        let lines = body.lines.into_iter().map(stored).collect();
        Ok(self.store.log(id, attempt, lines, caller.deadline.at()).await?)
    }

    /// What was logged about a task, the oldest first. Inside: the cursor is none, or of another list.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn logs(
        &self,
        caller: &Caller,
        id: Uuid,
        asked: LogsAsked,
    ) -> Result<Result<LogPage, WrongCursor>, Failure> {
        let after = match place(&asked) {
            Ok(place) => place.or(asked.after).unwrap_or(0),
            Err(wrong) => return Ok(Err(wrong)),
        };
        self.peek(caller, id).await?;
        let query = LogQuery { task: id, attempt: asked.attempt, after, limit: asked.limit };
        let (lines, has_more) = self.store.logged(query, caller.deadline.at()).await?;
        let last = lines.last().map(|(seq, ..)| *seq).filter(|_| has_more);
        let next = last.map(|seq| Cursor { attempt: asked.attempt, after: asked.after, seq });
        let next_cursor =
            next.and_then(|next| serde_json::to_vec(&next).ok()).map(|json| URL_SAFE_NO_PAD.encode(json));
        let shown = |(seq, attempt, line): (i64, u32, LoggedLine)| LogLine {
            seq: seq.unsigned_abs(),
            attempt,
            level: line.level,
            message: line.message,
            at: line.at,
        };
        Ok(Ok(LogPage { lines: lines.into_iter().map(shown).collect(), next_cursor }))
    }
}

/// The attempt for which a token may log.
fn attempt_of(task: &TaskRecord, token: Uuid, now: DateTime<Utc>) -> Result<u32, Failure> {
    let of_token = task.attempts.iter().rev().find(|attempt| attempt.token == Some(token));
    let is_open = |ended: Option<DateTime<Utc>>| ended.is_none_or(|at| now - at <= AFTERWARDS);
    match of_token {
        Some(attempt) if is_open(attempt.ended_at) => Ok(attempt.number),
        of_token => Err(Failure::LeaseLost {
            id: task.id,
            status: task.status.into(),
            attempt: task.attempt,
            ended: of_token.and_then(|attempt| attempt.ended()),
        }),
    }
}

fn place(asked: &LogsAsked) -> Result<Option<i64>, WrongCursor> {
    let Some(cursor) = &asked.cursor else { return Ok(None) };
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| WrongCursor::Garbage)?;
    let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| WrongCursor::Garbage)?;
    let is_same = cursor.attempt == asked.attempt && cursor.after == asked.after;
    if is_same { Ok(Some(cursor.seq)) } else { Err(WrongCursor::Foreign) }
}
