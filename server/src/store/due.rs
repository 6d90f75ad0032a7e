//! What the background loops look for. These serve all tenants.

use bson::{Binary, Bson, doc};
use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::indexes::{DUE, LEASES};
use super::{Store, StoreError, read_id, stored_id};

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

/// Where a look of a loop begins: behind the time of the page before, without the tasks of that time that were on it. What
/// a loop cannot move must not keep it from what comes behind.
#[derive(Debug, Clone, Default)]
pub struct DuePage {
    from: Option<DateTime<Utc>>,
    seen: Vec<Uuid>,
}

impl DuePage {
    /// The page behind `page`, which is not empty.
    #[must_use]
    pub fn after(self, page: &[DueTask]) -> Self {
        let last = page.last().map(|task| task.at);
        let at_last = page.iter().filter(|task| Some(task.at) == last).map(|task| task.id);
        if self.from == last {
            Self { from: last, seen: self.seen.into_iter().chain(at_last).collect() }
        } else {
            Self { from: last, seen: at_last.collect() }
        }
    }
}

impl Store {
    /// Scheduled tasks by due time, the earliest first, whether it has come or not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn scheduled(&self, page: &DuePage, limit: usize) -> Result<Vec<DueTask>, StoreError> {
        self.earliest("run_at", "scheduled", DUE, None, page, limit).await
    }

    /// Tasks whose lease or attempt has run out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expired(&self, page: &DuePage, limit: usize) -> Result<Vec<DueTask>, StoreError> {
        let now = self.clock().now();
        self.earliest("lease_until", "processing", LEASES, Some(now), page, limit).await
    }

    async fn earliest(
        &self,
        field: &'static str,
        status: &str,
        index: &str,
        until: Option<DateTime<Utc>>,
        page: &DuePage,
        limit: usize,
    ) -> Result<Vec<DueTask>, StoreError> {
        // Any date, and nothing but dates.
        let mut times = doc! { "$gte": page.from.map_or(bson::DateTime::MIN, bson::DateTime::from_chrono) };
        if let Some(until) = until {
            times.insert("$lte", bson::DateTime::from_chrono(until));
        }
        let mut filter = doc! { "status": status, field: times };
        if !page.seen.is_empty() {
            let seen: Vec<Binary> = page.seen.iter().map(|id| stored_id(*id)).collect();
            filter.insert("_id", doc! { "$nin": seen });
        }
        let mut options = self.by_index(index);
        options.sort = Some(doc! { field: 1 });
        options.projection = Some(doc! { "tenant": 1, field: 1, "lease.seconds": 1 });
        options.limit = i64::try_from(limit).ok();
        let found = self.documents("due work", self.tasks.name(), filter, options).await?;
        Ok(found
            .iter()
            .filter_map(|found| {
                let id = read_id(found.get("_id")?)?;
                let at = found.get_datetime(field).ok()?.to_chrono();
                let lease = found.get_document("lease").ok();
                let seconds = lease.and_then(|lease| match lease.get("seconds")? {
                    Bson::Int32(seconds) => u32::try_from(*seconds).ok(),
                    Bson::Int64(seconds) => u32::try_from(*seconds).ok(),
                    _ => None,
                });
                // One without a tenant is read when it is to be moved, and is then found to be unreadable.
                let tenant = found.get_str("tenant").unwrap_or_default().to_owned();
                Some(DueTask { tenant, id, at, lease_seconds: seconds.unwrap_or_default() })
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_behind_all_that_were_on_those_before_it() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let task = |id, seconds| DueTask {
            tenant: "t".to_owned(),
            id: Uuid::from_u128(id),
            at: at(seconds),
            lease_seconds: 0,
        };
        let ids = |ids: &[u128]| ids.iter().map(|id| Uuid::from_u128(*id)).collect::<Vec<_>>();
        let second = DuePage::default().after(&[task(1, 1), task(2, 2), task(3, 2)]);
        assert_eq!((second.from, &second.seen), (Some(at(2)), &ids(&[2, 3])));
        let third = second.after(&[task(4, 2), task(5, 2)]);
        assert_eq!((third.from, &third.seen), (Some(at(2)), &ids(&[2, 3, 4, 5])));
        let fourth = third.after(&[task(6, 2), task(7, 3)]);
        assert_eq!((fourth.from, fourth.seen), (Some(at(3)), ids(&[7])));
    }
}
