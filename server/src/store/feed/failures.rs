//! Which failures there were, by task type, code, reason and hour.

use std::time::Instant;

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use bson::{Bson, doc};
use chrono::{DateTime, Utc};
use mongodb::options::FindOptions;
use serde::Deserialize;
use serde_with::serde_as;
use task_repo_protocol::Uuid;

use super::FAILURES;
use crate::events::HourKey;
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::task::Reason;

/// Which failures are asked for.
#[derive(Debug, Clone)]
pub struct FailureQuery {
    /// Whose.
    pub tenant: String,
    /// From the beginning of this hour on.
    pub since: DateTime<Utc>,
    /// Of these types; empty: of all.
    pub task_types: Vec<String>,
}

/// Failures of a type with one code and reason in an hour, or in several of them together.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FailureRow {
    /// The type.
    pub task_type: String,
    /// The code; absent where the worker named none.
    pub code: Option<String>,
    /// The task's reason after that.
    pub reason: Option<Reason>,
    /// How many attempts ended so.
    pub count: i64,
    /// When the first of them did.
    #[serde_as(as = "Option<Date>")]
    pub first_at: Option<DateTime<Utc>>,
    /// When the last of them did.
    #[serde_as(as = "Option<Date>")]
    pub last_at: Option<DateTime<Utc>>,
    /// Some of the tasks, the newest last.
    #[serde_as(as = "Vec<Id>")]
    #[serde(default)]
    pub sample: Vec<Uuid>,
    /// Of the latest error.
    pub message: Option<String>,
}

impl Store {
    /// The failures that are asked for, the most frequent first; those that were taken back are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failures(
        &self,
        query: &FailureQuery,
        until: Instant,
    ) -> Result<Vec<FailureRow>, StoreError> {
        let first = doc! { "tenant": &query.tenant, "hour": bson::DateTime::from_chrono(query.since) };
        let last = doc! { "tenant": &query.tenant, "hour": Bson::MaxKey };
        let mut filter = doc! { "_id": { "$gte": first, "$lt": last } };
        if !query.task_types.is_empty() {
            filter.insert("_id.task_type", doc! { "$in": &query.task_types });
        }
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$group": {
                "_id": { "task_type": "$_id.task_type", "code": "$_id.code", "reason": "$_id.reason" },
                "count": { "$sum": "$count" },
                "first_at": { "$min": "$first_at" },
                "last_at": { "$max": "$last_at" },
                "sample": { "$last": "$sample" },
                "message": { "$last": "$message" },
            } },
            doc! { "$match": { "count": { "$gt": 0 } } },
            doc! { "$project": {
                "_id": 0, "task_type": "$_id.task_type", "code": "$_id.code", "reason": "$_id.reason", "count": 1,
                "first_at": 1, "last_at": 1, "sample": { "$ifNull": ["$sample", []] }, "message": 1,
            } },
            doc! { "$sort": { "count": -1, "task_type": 1, "code": 1, "reason": 1 } },
        ];
        let failures = self.of_feed::<bson::Document>(FAILURES);
        let timeout = self.timeout;
        self.call("failures", until, async move {
            let found = failures.aggregate(pipeline).max_time(timeout).with_type::<FailureRow>();
            let mut cursor = found.await?;
            let mut rows = Vec::new();
            while cursor.advance().await? {
                rows.push(cursor.deserialize_current()?);
            }
            Ok(rows)
        })
        .await
    }

    /// The codes that are counted by themselves in that hour of a type.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn failure_codes(&self, of: &HourKey) -> Result<Vec<String>, StoreError> {
        let hour = bson::DateTime::from_chrono(of.hour);
        let first = doc! { "tenant": &of.tenant, "hour": hour, "task_type": &of.task_type };
        let last =
            doc! { "tenant": &of.tenant, "hour": hour, "task_type": &of.task_type, "code": Bson::MaxKey };
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        let filter = doc! { "_id": { "$gte": first, "$lt": last } };
        let found = self.documents("failure codes", &self.beside(FAILURES), filter, options).await?;
        let code =
            |row: &bson::Document| Some(row.get_document("_id").ok()?.get_str("code").ok()?.to_owned());
        Ok(found.iter().filter_map(code).collect())
    }

    /// Removes what was counted in hours before `before`, the tenants one after the other.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_failures(&self, before: DateTime<Utc>) -> Result<(), StoreError> {
        let failures = self.of_feed::<bson::Document>(FAILURES);
        let old = doc! { "_id.hour": { "$lt": bson::DateTime::from_chrono(before) } };
        self.call("forget failures", self.step_deadline(), async move {
            failures.delete_many(old).await.map(|_| ())
        })
        .await
    }
}
