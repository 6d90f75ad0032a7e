//! Reading the change stream of the tasks.
//!
//! The driver's iterator waits at the end of each batch and keeps the stream warm all the time. Here each read is one
//! `getMore` that waits for nothing, made at the pace of the reader: at that pace the stream costs the database about half.

use std::time::{Duration, Instant};

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::{Bson, Document, Timestamp, doc};
use chrono::{DateTime, Utc};
use mongodb::ClientSession;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::FindOptions;
use serde::Deserialize;
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::position::ClusterTime;
use crate::kept::Kept;
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::{read_id, stored_id};
use crate::store::read::without_payload;
use crate::task::{LeaseRecord, ProgressRecord, Reason, Status, TaskRecord};

/// Most changes that one read brings.
pub(in crate::store) const BATCH: i32 = 1000;
/// The position is not in the database's history any more: `CappedPositionLost`, `ChangeStreamFatalError`,
/// `ChangeStreamHistoryLost`. Or it is none: `FailedToParse`, `Overflow`, `InvalidResumeToken`, and numbers of the same kind.
const LOST: [i32; 9] = [136, 280, 286, 9, 15, 260, 40_647, 40_649, 50_811];

/// An open change stream.
pub struct ChangeStream {
    session: ClientSession,
    cursor: i64,
    /// The position behind everything that was read.
    pub token: Document,
}

/// A change that the reader asked for.
#[derive(Debug)]
pub struct TaskChange {
    /// The task.
    pub id: Uuid,
    /// When the database made it.
    pub at: ClusterTime,
    /// What it was.
    pub what: Changed,
}

/// What was changed.
#[derive(Debug)]
pub enum Changed {
    /// The whole task was written, without payloads here.
    Whole(Box<TaskRecord>),
    /// These fields, among others.
    Fields(Box<UpdatedFields>),
}

/// Of the fields that an update has set, those that the reader looks at. A field of which only a part has changed is absent.
#[serde_as]
#[derive(Debug, Deserialize)]
pub struct UpdatedFields {
    /// What was done: JSON text.
    pub moved: String,
    /// Where the task went.
    pub status: Option<Status>,
    /// Why.
    pub reason: Option<Reason>,
    /// When it may run.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// The number of its attempt.
    pub attempt: Option<u32>,
    /// The lease that a claim has given.
    pub lease: Option<Kept<LeaseRecord>>,
    /// What its worker has reported.
    pub progress: Option<Kept<ProgressRecord>>,
}

/// From where on changes are read.
#[derive(Debug, Clone)]
pub enum ReadFrom {
    /// Behind what was read before.
    Behind(Document),
    /// From when this server began to use the database, before it has answered anybody.
    Start,
    /// From now on.
    Now,
}

/// What a read has brought.
#[derive(Debug, Default)]
pub struct Changes {
    /// In their order.
    pub changes: Vec<TaskChange>,
    /// Whether there was no more when the database answered.
    pub is_all: bool,
    /// Changes that could not be read.
    pub unreadable: usize,
}

/// Why a position cannot be read on from; the feed begins anew there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionLost(pub String);

type Answer = Result<Document, PositionLost>;

impl Store {
    /// Opens the change stream.
    ///
    /// # Errors
    /// When the database does not answer. Inside: the position is lost.
    pub async fn open_changes(
        &self,
        from: ReadFrom,
    ) -> Result<Result<ChangeStream, PositionLost>, StoreError> {
        let stream = match (from, self.connected_at) {
            (ReadFrom::Behind(token), _) => doc! { "resumeAfter": token },
            (ReadFrom::Start, Some(at)) => doc! { "startAtOperationTime": at },
            (ReadFrom::Start, None) | (ReadFrom::Now, _) => doc! {},
        };
        let command = doc! {
            "aggregate": self.tasks.name(),
            "pipeline": [{ "$changeStream": stream }, { "$match": wanted() }, { "$project": left_out() }],
            "cursor": { "batchSize": 0 },
            "readConcern": { "level": "majority" },
        };
        let (client, database) = (self.client.clone(), self.database.clone());
        let opened = self.call("open changes", self.step_deadline(), async move {
            let mut session = client.start_session().await?;
            let answer = answer(database.run_command(command).session(&mut session).await)?;
            Ok((session, answer))
        });
        let (session, answer) = opened.await?;
        Ok(answer.map(|answer| {
            let cursor = answer.get_document("cursor").cloned().unwrap_or_default();
            ChangeStream {
                session,
                cursor: cursor.get_i64("id").unwrap_or_default(),
                token: cursor.get_document("postBatchResumeToken").cloned().unwrap_or_default(),
            }
        }))
    }

    /// Reads on. The stream is used up by a failure.
    ///
    /// # Errors
    /// When the database does not answer, or the stream has ended with its member. Inside: the position is lost.
    pub async fn read_changes(
        &self,
        stream: ChangeStream,
    ) -> Result<Result<(ChangeStream, Changes), PositionLost>, StoreError> {
        let command = doc! { "getMore": stream.cursor, "collection": self.tasks.name(), "batchSize": BATCH, "maxTimeMS": 1 };
        let (database, ChangeStream { mut session, cursor, token }) = (self.database.clone(), stream);
        let read = self.call("read changes", self.step_deadline(), async move {
            let reply = database.run_command(command).session(&mut session).await;
            Ok((session, answer(reply)?))
        });
        let (session, answer) = read.await?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(lost) => return Ok(Err(lost)),
        };
        let found = answer.get_document("cursor").cloned().unwrap_or_default();
        let batch = found.get_array("nextBatch").map(Vec::as_slice).unwrap_or_default();
        let mut changes = Changes { is_all: batch.is_empty(), ..Changes::default() };
        for change in batch.iter().filter_map(Bson::as_document) {
            match change.get_str("operationType") {
                Ok("insert" | "update" | "replace") => match task_change(change) {
                    Some(change) => changes.changes.push(change),
                    None => changes.unreadable += 1,
                },
                _ => {
                    return Ok(Err(PositionLost(
                        "the collection was dropped, renamed or restored".to_owned(),
                    )));
                }
            }
        }
        let token = found.get_document("postBatchResumeToken").cloned().unwrap_or(token);
        Ok(Ok((ChangeStream { session, cursor, token }, changes)))
    }
}

impl Store {
    /// How far the database's own history reaches back. `None`: this service's user may not ask for that.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn oplog_window(&self, until: Instant) -> Result<Option<Duration>, StoreError> {
        let mut status = doc! { "serverStatus": 1, "oplog": 1 };
        // Nothing else of what the command tells by itself is looked at.
        for section in ["repl", "metrics", "locks", "wiredTiger", "tcmalloc", "opLatencies", "mirroredReads"]
        {
            status.insert(section, 0);
        }
        let admin = self.client.database("admin");
        let ask = async move { Ok(admin.run_command(status).await.ok()) };
        let Some(status) = self.call("the oplog's window", until, ask).await? else { return Ok(None) };
        let Ok(oplog) = status.get_document("oplog") else { return Ok(None) };
        let second = |name: &str| oplog.get_timestamp(name).ok().map(|at| at.time);
        // The latest entry may come with its term around it.
        let latest = second("latestOptime")
            .or_else(|| Some(oplog.get_document("latestOptime").ok()?.get_timestamp("ts").ok()?.time));
        let window =
            latest.zip(second("earliestOptime")).map(|(latest, earliest)| latest.saturating_sub(earliest));
        Ok(window.map(|seconds| Duration::from_secs(seconds.into())))
    }

    /// These tasks as they are now, deleted ones too, without payloads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tasks_of_feed(&self, ids: &[Uuid]) -> Result<Vec<TaskRecord>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let stored: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        let mut left_out = without_payload();
        left_out.extend(
            doc! { "claim_ids": 0, "cancel_receipt": 0, "error": 0, "idempotency_request": 0, "tags": 0 },
        );
        options.projection = Some(left_out);
        let until = self.step_deadline();
        Ok(self.find("tasks of the feed", doc! { "_id": { "$in": stored } }, options, until).await?.found)
    }
}

/// Changes that make versions of tasks, and the end of the collection. What retention removes is no event.
fn wanted() -> Document {
    let ends = ["drop", "rename", "dropDatabase", "invalidate"];
    doc! { "$or": [
        { "operationType": { "$in": ["insert", "replace"] } },
        { "operationType": "update", "updateDescription.updatedFields.moved": { "$exists": true } },
        { "operationType": { "$in": ends.as_slice() } },
    ] }
}

/// Payloads, and whatever else is long and not looked at.
fn left_out() -> Document {
    let of_both =
        ["request", "template", "metadata", "result", "claim_ids", "cancel_receipt", "idempotency_request"];
    let mut left_out =
        doc! { "ns": 0, "updateDescription.removedFields": 0, "updateDescription.truncatedArrays": 0 };
    for field in of_both {
        left_out.insert(format!("fullDocument.{field}"), 0);
        left_out.insert(format!("updateDescription.updatedFields.{field}"), 0);
    }
    left_out.insert("updateDescription.updatedFields.attempts", 0);
    left_out.insert("updateDescription.updatedFields.error", 0);
    left_out
}

fn task_change(change: &Document) -> Option<TaskChange> {
    let Timestamp { time, increment } = change.get_timestamp("clusterTime").ok()?;
    let id = read_id(change.get_document("documentKey").ok()?.get("_id")?)?;
    let what = if let Ok(whole) = change.get_document("fullDocument") {
        Changed::Whole(Box::new(read(whole)?))
    } else {
        let fields = change.get_document("updateDescription").ok()?.get_document("updatedFields").ok()?;
        Changed::Fields(Box::new(read(fields)?))
    };
    Some(TaskChange { id, at: ClusterTime::new(time, increment), what })
}

fn read<T: serde::de::DeserializeOwned>(document: &Document) -> Option<T> {
    bson::deserialize_from_document(document.clone()).ok()
}

/// Tells a lost position from any other failure.
fn answer(reply: mongodb::error::Result<Document>) -> mongodb::error::Result<Answer> {
    match reply {
        Ok(reply) => Ok(Ok(reply)),
        Err(error) if is_lost(&error) => Ok(Err(PositionLost(error.to_string()))),
        Err(error) => Err(error),
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if LOST.contains(&command.code))
}
