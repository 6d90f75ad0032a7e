//! The event log: what moved, in order, in numbered documents without a hole.

use std::time::Instant;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::{Document, doc};
use chrono::{DateTime, Utc};
use mongodb::options::FindOptions;
use serde::{Deserialize, Serialize};
use serde_with::{serde_as, skip_serializing_none};

use super::EVENTS;
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::task::TaskMove;

/// How many documents are removed together.
const REMOVED_TOGETHER: i64 = 500;

/// A document of the event log.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogDocument {
    /// One more than that of the document before.
    #[serde(rename = "_id")]
    pub number: i64,
    /// When it was written.
    #[serde_as(as = "Date")]
    pub at: DateTime<Utc>,
    /// What moved, in order; 1 000 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<TaskMove>,
    /// What happened before this document was not seen.
    pub gap: Option<LogGap>,
}

/// A time of which the log knows nothing.
#[serde_as]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// Its beginning.
    #[serde_as(as = "Date")]
    pub from: DateTime<Utc>,
    /// Its end.
    #[serde_as(as = "Date")]
    pub to: DateTime<Utc>,
}

impl Store {
    /// The documents of the log after that number, in order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_after(
        &self,
        number: i64,
        limit: i64,
        until: Instant,
    ) -> Result<Vec<LogDocument>, StoreError> {
        let log = self.of_feed(EVENTS);
        let options =
            FindOptions::builder().sort(doc! { "_id": 1 }).limit(limit).max_time(self.timeout).build();
        let after = doc! { "_id": { "$gt": number } };
        Ok(self.find_readable("the event log", &log, after, options, until).await?.found)
    }

    /// The number of the latest document; 0 without one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_end(&self, until: Instant) -> Result<i64, StoreError> {
        Ok(self.number_at_an_end(-1, until).await?.unwrap_or(0))
    }

    /// The number of the oldest document that is kept.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_begin(&self, until: Instant) -> Result<Option<i64>, StoreError> {
        self.number_at_an_end(1, until).await
    }

    /// How many events there are in the documents after that number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_events_after(&self, number: i64, until: Instant) -> Result<u64, StoreError> {
        let log = self.of_feed::<Document>(EVENTS);
        let count = doc! { "$size": { "$ifNull": ["$moves", []] } };
        let pipeline = [
            doc! { "$match": { "_id": { "$gt": number } } },
            doc! { "$group": { "_id": null, "count": { "$sum": count } } },
        ];
        let sum = async move {
            let mut found = log.aggregate(pipeline).await?;
            let is_any = found.advance().await?;
            Ok(if is_any { Some(found.deserialize_current()?) } else { None })
        };
        let found = self.call("events ahead", until, sum).await?;
        let count =
            found.and_then(|found| found.get_i32("count").map(i64::from).or(found.get_i64("count")).ok());
        Ok(count.unwrap_or_default().unsigned_abs())
    }

    /// When that document was written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_written_at(&self, number: i64) -> Result<Option<DateTime<Utc>>, StoreError> {
        let log = self.of_feed::<Document>(EVENTS);
        let find = async move { log.find_one(doc! { "_id": number }).projection(doc! { "at": 1 }).await };
        let found = self.call("a document of the event log", self.step_deadline(), find).await?;
        Ok(found.and_then(|document| document.get_datetime("at").ok().map(|at| at.to_chrono())))
    }

    async fn number_at_an_end(&self, direction: i32, until: Instant) -> Result<Option<i64>, StoreError> {
        let log = self.of_feed::<Document>(EVENTS);
        let find = async move {
            log.find_one(doc! {}).sort(doc! { "_id": direction }).projection(doc! { "_id": 1 }).await
        };
        let found = self.call("an end of the event log", until, find).await?;
        Ok(found.and_then(|document| document.get_i64("_id").ok()))
    }

    /// Removes documents from before `before`, the oldest first; the latest stays. Returns whether there may be more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn trim_log(&self, before: DateTime<Utc>) -> Result<bool, StoreError> {
        let log = self.of_feed::<Document>(EVENTS);
        let before = bson::DateTime::from_chrono(before);
        let trim = async move {
            let latest = log.find_one(doc! {}).sort(doc! { "_id": -1 }).projection(doc! { "_id": 1 }).await?;
            let Some(latest) = latest.and_then(|latest| latest.get_i64("_id").ok()) else { return Ok(false) };
            let old = doc! { "_id": { "$lt": latest } };
            let oldest =
                log.find(old).sort(doc! { "_id": 1 }).limit(REMOVED_TOGETHER).projection(doc! { "at": 1 });
            let mut cursor = oldest.await?;
            let (mut last, mut count) = (None, 0);
            while cursor.advance().await? {
                let document = cursor.deserialize_current()?;
                if document.get_datetime("at").is_ok_and(|at| *at >= before) {
                    break;
                }
                (last, count) = (document.get_i64("_id").ok(), count + 1);
            }
            let Some(last) = last else { return Ok(false) };
            log.delete_many(doc! { "_id": { "$lte": last } }).await?;
            Ok(count >= REMOVED_TOGETHER)
        };
        self.call("trim the event log", self.step_deadline(), trim).await
    }
}
