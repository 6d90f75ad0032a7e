//! What workers log about their tasks: a document for each call, beside the tasks.
//!
//! The id of a document is the task and the number of its first line, so that no index is needed but that of ids. Each
//! document has the number of lines and the bytes of text of its task up to and with it. So what is too old is known
//! without reading it.

use std::time::Instant;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::options::FindOptions;
use serde::{Deserialize, Serialize};
use serde_with::serde_as;
use task_repo_protocol::Uuid;
use task_repo_protocol::logs::{LogLevel, MAX_KEPT_BYTES, MAX_KEPT_LINES, MAX_LINES};

use super::driver::Store;
use super::error::{DUPLICATE_KEY, StoreError};
use super::ids::stored_id;

/// The collection, by what follows the name of the tasks'.
const LOGS: &str = "logs";
/// Numbers of lines grow by this in a millisecond: that many lines fit into ten calls.
const PER_MILLISECOND: i64 = 1000;
/// How often a number is drawn where another call has just had it.
const TRIES: i64 = 9;

/// Lines that came together.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LoggedCall {
    #[serde(rename = "_id")]
    id: CallId,
    /// The task, once more for whoever removes what belongs to it.
    #[serde_as(as = "Id")]
    task: Uuid,
    /// The number of the attempt that logged them.
    attempt: u32,
    /// Lines of the task up to the last of these.
    total_lines: i64,
    /// Bytes of text of the task up to the last of these.
    total_bytes: i64,
    lines: Vec<LoggedLine>,
}

#[serde_as]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct CallId {
    #[serde_as(as = "Id")]
    task: Uuid,
    seq: i64,
}

/// A line as it is stored.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedLine {
    /// How much it matters.
    pub level: LogLevel,
    /// As it was sent.
    pub message: String,
    /// When it happened.
    #[serde_as(as = "Date")]
    pub at: DateTime<Utc>,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Copy)]
pub struct LogQuery {
    /// Of which task.
    pub task: Uuid,
    /// Of which attempt; `None`: of all.
    pub attempt: Option<u32>,
    /// Only those with a greater number.
    pub after: i64,
    /// How many at most.
    pub limit: usize,
}

impl LoggedCall {
    /// Its lines with their numbers, the oldest first, but for those that are too old where `end` is the latest document.
    fn kept<'a>(&'a self, end: &'a Totals) -> impl Iterator<Item = (i64, &'a LoggedLine)> {
        let first = self.total_lines - count(self.lines.len());
        let mut bytes =
            self.total_bytes - self.lines.iter().map(|line| count(line.message.len())).sum::<i64>();
        (0..).zip(&self.lines).filter_map(move |(n, line)| {
            let before = bytes;
            bytes += count(line.message.len());
            let is_kept =
                first + n >= end.lines - count(MAX_KEPT_LINES) && before >= end.bytes - count(MAX_KEPT_BYTES);
            is_kept.then_some((self.id.seq + n, line))
        })
    }
}

/// What a task has logged in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
struct Totals {
    #[serde(rename = "total_lines")]
    lines: i64,
    #[serde(rename = "total_bytes")]
    bytes: i64,
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

impl Store {
    /// Keeps lines of a task.
    ///
    /// # Errors
    /// When the database does not answer; they may have been kept.
    pub async fn log(
        &self,
        task: Uuid,
        attempt: u32,
        lines: Vec<LoggedLine>,
        until: Instant,
    ) -> Result<(), StoreError> {
        let before = self.log_totals(task, until).await?;
        let bytes = lines.iter().map(|line| count(line.message.len())).sum::<i64>();
        let totals = Totals { lines: before.lines + count(lines.len()), bytes: before.bytes + bytes };
        let seq = self.clock().now().timestamp_millis() * PER_MILLISECOND;
        let mut call = LoggedCall {
            id: CallId { task, seq },
            task,
            attempt,
            total_lines: totals.lines,
            total_bytes: totals.bytes,
            lines,
        };
        let logs = self.task_logs::<LoggedCall>();
        let insert = async move {
            for _ in 0..TRIES {
                match logs.insert_one(&call).await {
                    // Another call of this task came in the same millisecond.
                    Err(error) if is_duplicate(&error.kind) => call.id.seq += count(MAX_LINES),
                    done => return done.map(|_| ()),
                }
            }
            logs.insert_one(&call).await.map(|_| ())
        };
        self.call("log", until, insert).await?;
        // Not with each call: what is too old is not shown.
        let passes = |now: i64, then: i64, step: usize| now / count(step) > then / count(step);
        let is_due = passes(totals.lines, before.lines, MAX_KEPT_LINES / 4)
            || passes(totals.bytes, before.bytes, MAX_KEPT_BYTES / 4);
        if is_due { self.forget_old_lines(task, totals, until).await } else { Ok(()) }
    }

    /// The lines that are asked for, the oldest first, each with its number and that of its attempt, and whether there are
    /// more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn logged(
        &self,
        query: LogQuery,
        until: Instant,
    ) -> Result<(Vec<(i64, u32, LoggedLine)>, bool), StoreError> {
        let totals = self.log_totals(query.task, until).await?;
        // A document whose first line is before it may have lines after it.
        let first = doc! { "task": stored_id(query.task), "seq": query.after - count(MAX_LINES) };
        let last = doc! { "task": stored_id(query.task), "seq": Bson::MaxKey };
        let mut filter = doc! {
            "_id": { "$gt": first, "$lt": last },
            "total_lines": { "$gt": totals.lines - count(MAX_KEPT_LINES) },
            "total_bytes": { "$gt": totals.bytes - count(MAX_KEPT_BYTES) },
        };
        if let Some(attempt) = query.attempt {
            filter.insert("attempt", attempt);
        }
        let options = FindOptions::builder()
            .sort(doc! { "_id": 1 })
            // Each has a line at least, but one may have none behind `after`, and one none that is kept.
            .limit(count(query.limit) + 3)
            .max_time(self.timeout)
            .build();
        let logs = self.task_logs();
        let calls: Vec<LoggedCall> = self.find_readable("logs", &logs, filter, options, until).await?.found;
        let mut lines = Vec::new();
        for call in &calls {
            let kept = call.kept(&totals).filter(|(seq, _)| *seq > query.after);
            lines.extend(kept.map(|(seq, line)| (seq, call.attempt, line.clone())));
        }
        let has_more = lines.len() > query.limit;
        lines.truncate(query.limit);
        Ok((lines, has_more))
    }

    async fn log_totals(&self, task: Uuid, until: Instant) -> Result<Totals, StoreError> {
        let logs = self.task_logs::<Totals>();
        let first = doc! { "task": stored_id(task), "seq": Bson::MinKey };
        let last = doc! { "task": stored_id(task), "seq": Bson::MaxKey };
        let find = async move {
            let latest =
                logs.find_one(doc! { "_id": { "$gt": first, "$lt": last } }).sort(doc! { "_id": -1 });
            latest.projection(doc! { "total_lines": 1, "total_bytes": 1 }).await
        };
        Ok(self.call("totals of logs", until, find).await?.unwrap_or_default())
    }

    async fn forget_old_lines(&self, task: Uuid, end: Totals, until: Instant) -> Result<(), StoreError> {
        let logs = self.task_logs::<Document>();
        let first = doc! { "task": stored_id(task), "seq": Bson::MinKey };
        let last = doc! { "task": stored_id(task), "seq": Bson::MaxKey };
        let old = doc! {
            "_id": { "$gt": first, "$lt": last },
            "$or": [
                { "total_lines": { "$lte": end.lines - count(MAX_KEPT_LINES) } },
                { "total_bytes": { "$lte": end.bytes - count(MAX_KEPT_BYTES) } },
            ],
        };
        self.call("forget old lines", until, async move { logs.delete_many(old).await.map(|_| ()) }).await
    }

    fn task_logs<T: Send + Sync>(&self) -> mongodb::Collection<T> {
        self.database.collection(&self.beside(LOGS))
    }
}

fn is_duplicate(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(totals: Totals, lengths: &[usize]) -> LoggedCall {
        let line = |length: &usize| LoggedLine {
            level: LogLevel::Info,
            message: "x".repeat(*length),
            at: DateTime::default(),
        };
        LoggedCall {
            id: CallId { task: Uuid::nil(), seq: 500 },
            task: Uuid::nil(),
            attempt: 1,
            total_lines: totals.lines,
            total_bytes: totals.bytes,
            lines: lengths.iter().map(line).collect(),
        }
    }

    #[test]
    fn the_newest_thousand_lines_and_mebibyte_are_kept() {
        let kept = |end: Totals, call: &LoggedCall| call.kept(&end).map(|(seq, _)| seq).collect::<Vec<_>>();
        let three = call(Totals { lines: 3, bytes: 30 }, &[10, 10, 10]);
        assert_eq!(kept(Totals { lines: 1000, bytes: 1000 }, &three), [500, 501, 502]);
        assert_eq!(kept(Totals { lines: 1002, bytes: 1000 }, &three), [502]);
        let mebibyte = 1 << 20;
        assert_eq!(kept(Totals { lines: 9, bytes: mebibyte + 10 }, &three), [501, 502]);
        assert_eq!(
            kept(Totals { lines: 9, bytes: mebibyte + 11 }, &three),
            [502],
            "a whole line or none of it"
        );
    }
}
