//! What the background loops look for. These serve all tenants.

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use task_repo_protocol::Uuid;

use super::indexes::{DUE, LEASES};
use super::{Store, StoreError};

/// A task that something is to be done to, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTask {
    /// Whose it is.
    pub tenant: String,
    /// The task.
    pub id: Uuid,
    /// The time that has come.
    pub at: DateTime<Utc>,
    /// How long a heartbeat renews its lease, in seconds; 0 without one.
    pub lease_seconds: u32,
}

impl Store {
    /// Scheduled tasks by due time, the earliest first, whether it has come or not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn scheduled(&self, limit: i64) -> Result<Vec<DueTask>, StoreError> {
        self.earliest("run_at", "scheduled", DUE, self.clock().now() + chrono::TimeDelta::days(3650), limit)
            .await
    }

    /// Tasks whose lease or attempt has run out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expired(&self, limit: i64) -> Result<Vec<DueTask>, StoreError> {
        self.earliest("lease_until", "processing", LEASES, self.clock().now(), limit).await
    }

    async fn earliest(
        &self,
        field: &'static str,
        status: &str,
        index: &str,
        until: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<DueTask>, StoreError> {
        let tasks = self.tasks.clone_with_type::<Document>();
        let filter = doc! { "status": status, field: { "$lte": bson::DateTime::from_chrono(until) } };
        let mut options = self.by_index(index);
        options.sort = Some(doc! { field: 1 });
        options.projection = Some(doc! { "tenant": 1, field: 1, "lease.seconds": 1 });
        options.limit = Some(limit);
        let found: Vec<Document> =
            self.call("due work", async move {
                tasks.find(filter).with_options(options).await?.try_collect().await
            })
            .await?;
        Ok(found
            .iter()
            .filter_map(|found| {
                let id = super::read_id(found.get("_id")?)?;
                let at = found.get_datetime(field).ok()?.to_chrono();
                let lease = found.get_document("lease").ok();
                let seconds = lease.and_then(|lease| match lease.get("seconds")? {
                    Bson::Int32(seconds) => u32::try_from(*seconds).ok(),
                    Bson::Int64(seconds) => u32::try_from(*seconds).ok(),
                    _ => None,
                });
                let tenant = found.get_str("tenant").ok()?.to_owned();
                Some(DueTask { tenant, id, at, lease_seconds: seconds.unwrap_or_default() })
            })
            .collect())
    }
}
