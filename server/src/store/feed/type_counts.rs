//! How many tasks of a type there are, and how many moved in the last hour. Nothing here reads a task.

use std::collections::BTreeMap;
use std::time::Instant;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use mongodb::options::FindOptions;
use serde::Deserialize;
use serde_with::serde_as;

use super::COUNTS;
use super::advance::{minute_name, type_id};
use crate::events::Moves;
use crate::store::driver::Store;
use crate::store::error::StoreError;

/// How many tasks of a type there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeCounts {
    /// The type.
    pub task_type: String,
    /// Ready.
    pub pending: i64,
    /// Not ready yet, whatever for.
    pub scheduled: i64,
    /// Under way.
    pub processing: i64,
    /// Done.
    pub completed: i64,
    /// Given up.
    pub failed: i64,
    /// Cancelled.
    pub cancelled: i64,
    /// What moved in the last 60 whole minutes and the running one.
    pub last_hour: Moves,
    /// When something moved for the last time, or it was counted anew.
    pub last_at: Option<DateTime<Utc>>,
}

/// Counts, and the time up to which they are right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CountedTypes {
    /// By name.
    pub types: Vec<TypeCounts>,
    /// `None`: the tasks have not been counted yet.
    pub as_of: Option<DateTime<Utc>>,
}

#[serde_as]
#[derive(Debug, Deserialize)]
struct CountsRecord {
    #[serde(rename = "_id")]
    id: CountsId,
    #[serde(default)]
    counts: BTreeMap<String, BTreeMap<String, i64>>,
    #[serde(default)]
    minutes: BTreeMap<String, Moves>,
    #[serde_as(as = "Option<Date>")]
    last_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
struct CountsId {
    task_type: String,
}

impl Store {
    /// The counts of these types of a tenant. One without any task is left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn counts_of_types(
        &self,
        tenant: &str,
        names: &[String],
        until: Instant,
    ) -> Result<CountedTypes, StoreError> {
        let ids: Vec<_> = names.iter().map(|name| type_id(tenant, name)).collect();
        self.type_counts(doc! { "_id": { "$in": ids } }, None, until).await
    }

    /// The counts of a tenant's types, by name, of up to `limit` types after `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn counts_after(
        &self,
        tenant: &str,
        after: Option<&str>,
        limit: i64,
        until: Instant,
    ) -> Result<CountedTypes, StoreError> {
        let first = type_id(tenant, after.unwrap_or_default());
        let last = doc! { "tenant": tenant, "task_type": Bson::MaxKey };
        self.type_counts(doc! { "_id": { "$gt": first, "$lt": last } }, Some(limit), until).await
    }

    async fn type_counts(
        &self,
        filter: Document,
        limit: Option<i64>,
        until: Instant,
    ) -> Result<CountedTypes, StoreError> {
        // Before the counts, so that they are no older than it says.
        let position = self.feed_position(until).await?;
        let Some(position) = position.filter(|position| position.counts > 0) else {
            return Ok(CountedTypes::default());
        };
        let options =
            FindOptions::builder().sort(doc! { "_id": 1 }).limit(limit).max_time(self.timeout).build();
        let collection = self.of_feed(COUNTS);
        let found: Vec<CountsRecord> =
            self.find_readable("counts", &collection, filter, options, until).await?.found;
        let (generation, now) = (position.counts.to_string(), self.clock().now());
        let types = found.into_iter().map(|record| record.counts_in(&generation, now)).collect();
        Ok(CountedTypes { types, as_of: position.as_of })
    }

    /// Forgets in all types the minutes that belong to no last hour any more, and types without a task that nothing has
    /// happened to for long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_old_minutes(&self, unused_since: DateTime<Utc>) -> Result<(), StoreError> {
        let counts = self.of_feed::<Document>(COUNTS);
        let oldest = minute_name(minute_of(self.clock().now()) - 61);
        let unused = doc! { "last_at": { "$lt": bson::DateTime::from_chrono(unused_since) }, "minutes": {} };
        let keep = doc! { "$gte": ["$$this.k", oldest] };
        let minutes = doc! { "$filter": { "input": { "$objectToArray": { "$ifNull": ["$minutes", {}] } }, "cond": keep } };
        let forget = vec![doc! { "$set": { "minutes": { "$arrayToObject": minutes } } }];
        self.call("forget old minutes", self.step_deadline(), async move {
            counts.update_many(doc! { "minutes": { "$ne": {} } }, forget).await?;
            let mut cursor = counts.find(unused).projection(doc! { "counts": 1 }).await?;
            while cursor.advance().await? {
                let document = cursor.deserialize_current()?;
                if let (Some(id), Some(standing)) = (document.get("_id"), document.get("counts"))
                    && is_nothing(standing)
                {
                    // Guarded by what was read: a task may have come meanwhile.
                    counts.delete_one(doc! { "_id": id, "counts": standing }).await?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Whether no count in it is other than 0.
fn is_nothing(counts: &Bson) -> bool {
    match counts {
        Bson::Document(parts) => parts.values().all(is_nothing),
        Bson::Int32(0) | Bson::Int64(0) => true,
        _ => false,
    }
}

/// Minutes since 1970.
pub(in crate::store) fn minute_of(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

impl CountsRecord {
    fn counts_in(mut self, generation: &str, now: DateTime<Utc>) -> TypeCounts {
        let standing = self.counts.remove(generation).unwrap_or_default();
        // What is counted anew just now may be less than what is taken away; no task is less than none.
        let count = |status: &str| standing.get(status).copied().unwrap_or_default().max(0);
        let first = minute_name(minute_of(now) - 60);
        let last_hour =
            self.minutes.range(first..).map(|(_, moves)| *moves).fold(Moves::default(), Moves::plus);
        TypeCounts {
            task_type: self.id.task_type,
            pending: count("pending"),
            scheduled: count("scheduled") + count("held"),
            processing: count("processing"),
            completed: count("completed"),
            failed: count("failed"),
            cancelled: count("cancelled"),
            last_hour,
            last_at: self.last_at,
        }
    }
}
