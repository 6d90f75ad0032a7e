//! How far the feed has been read, by whom, and how the counts stand: one document.

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Document, doc};
use chrono::{DateTime, Utc};
use mongodb::error::ErrorKind;
use mongodb::options::ReturnDocument;
use serde::{Deserialize, Serialize};
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::{COUNTS, EVENTS, FAILURES, FEED, HOURS};
use crate::store::driver::Store;
use crate::store::error::StoreError;

/// The document.
pub(super) const POSITION: &str = "position";
/// The code by which MongoDB says that there is such a collection already.
const NAMESPACE_EXISTS: i32 = 48;

/// A moment of the database's own history. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterTime(i64);

impl ClusterTime {
    /// As MongoDB tells it: a second and a number within it.
    pub fn new(time: u32, increment: u32) -> Self {
        Self((i64::from(time) << 32) | i64::from(increment))
    }
}

/// How far the feed has been read, and what is known of it.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedPosition {
    /// Grows with each server that begins to read. Only the latest may write.
    pub reader: i64,
    /// The number of the latest document of the event log; they have no holes.
    #[serde(default)]
    pub number: i64,
    /// Behind what was read; absent: from now on.
    pub token: Option<Document>,
    /// The time up to which everything is counted.
    #[serde_as(as = "Option<Date>")]
    pub as_of: Option<DateTime<Utc>>,
    /// Whether more waited when this was written.
    #[serde(default)]
    pub is_behind: bool,
    /// Which counts are valid; 0: none yet.
    #[serde(default)]
    pub counts: i64,
    /// Counting anew, while it is under way.
    pub recount: Option<Recount>,
    /// When the feed was read without knowing what had happened before: the latest such gaps.
    #[serde(default)]
    pub gaps: Vec<super::LogGap>,
}

/// Counting anew: the tasks are read by id, a piece at a time, each as it was at a moment of its own.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recount {
    /// Which counts are being made.
    pub generation: i64,
    /// The pieces whose moment the feed has not passed yet, by id, and behind them the latest.
    pub pieces: Vec<Piece>,
}

/// Tasks that were read together.
#[serde_as]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The last of them.
    #[serde_as(as = "Id")]
    pub upto: Uuid,
    /// When they were so.
    pub at: ClusterTime,
}

impl Recount {
    /// Whether a change that was made `at` counts for the new counts: its task has been read, before that change.
    pub fn counts(&self, task: Uuid, at: ClusterTime) -> bool {
        self.pieces.iter().find(|piece| task <= piece.upto).is_some_and(|piece| at > piece.at)
    }

    /// The next task to be read comes behind this one.
    pub fn after(&self) -> Option<Uuid> {
        self.pieces.last().map(|piece| piece.upto)
    }

    /// Takes a piece in. Pieces that the feed has passed become one.
    pub(super) fn add(&mut self, piece: Piece, passed: ClusterTime) {
        let settled = self.pieces.iter().take_while(|piece| piece.at < passed).count();
        // The last of them stands for those before it: every change from now on is later than all of their moments.
        self.pieces.drain(..settled.saturating_sub(1));
        self.pieces.push(piece);
    }
}

impl Store {
    /// Makes this server the reader of the feed: whoever was it before can write nothing more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_feed(&self) -> Result<FeedPosition, StoreError> {
        let (database, feed) = (self.database.clone(), self.of_feed::<FeedPosition>(FEED));
        let names = [EVENTS, FEED, COUNTS, HOURS, FAILURES].map(|name| self.beside(name));
        let begin = async move {
            // A transaction that had to make a collection would hold others up.
            for name in names {
                match database.create_collection(name).await {
                    Err(error) if !exists(&error.kind) => return Err(error),
                    _ => {}
                }
            }
            let next = doc! { "$inc": { "reader": 1_i64 } };
            let options = feed.find_one_and_update(doc! { "_id": POSITION }, next).upsert(true);
            options.return_document(ReturnDocument::After).await
        };
        let position = self.call("begin to read the feed", self.step_deadline(), begin).await?;
        let mut position = position.ok_or(StoreError::Unavailable)?;
        // The position is gone and the log is not: numbers go on.
        if position.token.is_none() {
            position.number = position.number.max(self.log_end(self.step_deadline()).await?);
        }
        Ok(position)
    }

    /// How far the feed has been read. `None`: it has never been.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn feed_position(&self, until: std::time::Instant) -> Result<Option<FeedPosition>, StoreError> {
        let feed = self.of_feed::<FeedPosition>(FEED);
        self.call("the feed's position", until, async move { feed.find_one(doc! { "_id": POSITION }).await })
            .await
    }
}

fn exists(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Command(command) if command.code == NAMESPACE_EXISTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_if_its_task_was_read_before_it() {
        let time = |seconds| ClusterTime::new(seconds, 0);
        let piece = |upto, at| Piece { upto: Uuid::from_u128(upto), at: time(at) };
        let mut recount = Recount { generation: 2, pieces: Vec::new() };
        let counts = |recount: &Recount, id, at| recount.counts(Uuid::from_u128(id), time(at));
        assert!(!counts(&recount, 1, 99), "it will be read");
        recount.add(piece(10, 5), time(1));
        recount.add(piece(20, 8), time(1));
        assert_eq!([counts(&recount, 10, 5), counts(&recount, 10, 6)], [false, true]);
        assert_eq!(
            [counts(&recount, 11, 6), counts(&recount, 20, 9), counts(&recount, 21, 9)],
            [false, true, false]
        );
        recount.add(piece(30, 12), time(9));
        assert_eq!(recount.pieces, [piece(20, 8), piece(30, 12)], "both that were passed are one");
        assert_eq!(
            [counts(&recount, 1, 10), counts(&recount, 25, 12), counts(&recount, 25, 13)],
            [true, false, true]
        );
        assert_eq!(recount.after(), Some(Uuid::from_u128(30)));
    }
}
