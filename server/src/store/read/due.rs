//! The tasks that the background jobs look for, of all tenants.

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::{read_id, stored_id};
use crate::store::indexes::{DUE, LEASES};

/// A task that something is to be done to, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTask {
    /// Whose it is.
    pub tenant: String,
    /// The queue it belongs to.
    pub task_type: String,
    /// The task.
    pub id: Uuid,
    /// The time that has come.
    pub at: DateTime<Utc>,
    /// How long a heartbeat renews its lease, in seconds; 0 without one.
    pub lease_seconds: u32,
    /// 0–100, higher first.
    pub priority: i32,
}

/// A page of due tasks.
#[derive(Debug, Default)]
pub struct DueTasks {
    /// The earliest first.
    pub tasks: Vec<DueTask>,
    /// There may be more behind them.
    pub is_full: bool,
    /// The times of documents that have no id of ours: nothing can be done to them.
    pub strange: Vec<DateTime<Utc>>,
    /// The time of the last document, and what has no id of ours and that time.
    last: Option<(DateTime<Utc>, Vec<Bson>)>,
}

/// Where a page of a job begins: at the time of the last document of the page before, without those of that time that
/// could not be moved. What a job cannot move must not keep it from what comes behind.
#[derive(Debug, Clone, Default)]
pub struct DuePage {
    from: Option<DateTime<Utc>>,
    /// All that there was at that time has been read.
    is_after: bool,
    stuck: Vec<Bson>,
}

impl DuePage {
    /// The page behind `found`, with which everything was read that was due: what has become due since.
    #[must_use]
    pub fn after(self, found: &DueTasks) -> Self {
        let Some((last, _)) = &found.last else { return self };
        Self { from: Some(*last), is_after: true, stuck: Vec::new() }
    }

    /// The page behind `found`, of which those are still where they were of which `is_stuck` says so.
    #[must_use]
    pub fn behind(self, found: &DueTasks, is_stuck: impl Fn(Uuid) -> bool) -> Self {
        let Some((last, strange)) = &found.last else { return self };
        let at_last = found.tasks.iter().filter(|task| task.at == *last && is_stuck(task.id));
        let now_stuck = at_last.map(|task| Bson::Binary(stored_id(task.id))).chain(strange.iter().cloned());
        let before = if self.from == Some(*last) { self.stuck } else { Vec::new() };
        let stuck = before.into_iter().chain(now_stuck).collect();
        Self { from: Some(*last), is_after: false, stuck }
    }
}

impl Store {
    /// Scheduled tasks that are due by `until`, the earliest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn scheduled(
        &self,
        until: DateTime<Utc>,
        page: &DuePage,
        limit: usize,
    ) -> Result<DueTasks, StoreError> {
        self.earliest("run_at", "scheduled", DUE, Some(until), page, limit).await
    }

    /// Tasks whose lease or attempt has run out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn expired(&self, page: &DuePage, limit: usize) -> Result<DueTasks, StoreError> {
        let now = self.clock().now();
        self.earliest("lease_until", "processing", LEASES, Some(now), page, limit).await
    }

    /// Whether any task is leased.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn any_lease(&self) -> Result<bool, StoreError> {
        Ok(!self
            .earliest("lease_until", "processing", LEASES, None, &DuePage::default(), 1)
            .await?
            .tasks
            .is_empty())
    }

    async fn earliest(
        &self,
        field: &'static str,
        status: &str,
        index: &str,
        until: Option<DateTime<Utc>>,
        page: &DuePage,
        limit: usize,
    ) -> Result<DueTasks, StoreError> {
        // Any date, and nothing but dates.
        let begins = if page.is_after { "$gt" } else { "$gte" };
        let mut times = doc! { begins: page.from.map_or(bson::DateTime::MIN, bson::DateTime::from_chrono) };
        if let Some(until) = until {
            times.insert("$lte", bson::DateTime::from_chrono(until));
        }
        let mut filter = doc! { "status": status, field: times };
        if !page.stuck.is_empty() {
            filter.insert("_id", doc! { "$nin": &page.stuck });
        }
        let mut options = self.by_index(index);
        options.sort = Some(doc! { field: 1 });
        options.projection =
            Some(doc! { "tenant": 1, "task_type": 1, field: 1, "lease.seconds": 1, "priority": 1 });
        options.limit = i64::try_from(limit).ok();
        let found = self.documents("due work", self.tasks.name(), filter, options).await?;
        let time = |document: &Document| document.get_datetime(field).ok().map(|at| at.to_chrono());
        let mut due = DueTasks { is_full: found.len() >= limit, ..DueTasks::default() };
        if let Some(last) = found.last().and_then(time) {
            let strange = found.iter().filter(|it| time(it) == Some(last)).filter_map(|it| it.get("_id"));
            let strange = strange.filter(|id| read_id(id).is_none()).cloned().collect();
            due.last = Some((last, strange));
        }
        for document in &found {
            let Some(at) = time(document) else { continue };
            if let Some(task) = due_task(document, at) {
                due.tasks.push(task);
            } else {
                due.strange.push(at);
                self.unreadable.note_strange(self.tasks.name(), document.get("_id"));
            }
        }
        Ok(due)
    }
}

/// `None`: it has no id of ours.
fn due_task(document: &Document, at: DateTime<Utc>) -> Option<DueTask> {
    let id = read_id(document.get("_id")?)?;
    let seconds = document.get_document("lease").ok().and_then(|lease| whole(lease.get("seconds")?));
    // One without a tenant is read when it is to be moved, and is then found to be unreadable.
    let text = |field| document.get_str(field).unwrap_or_default().to_owned();
    let (tenant, task_type) = (text("tenant"), text("task_type"));
    let lease_seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default();
    let priority = document.get("priority").and_then(whole);
    let priority = priority.and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default();
    Some(DueTask { tenant, task_type, id, at, lease_seconds, priority })
}

fn whole(stored: &Bson) -> Option<i64> {
    match stored {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_behind_what_was_moved_and_leaves_out_what_could_not_be() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let found = |tasks: &[(u128, i64)], strange: &[Bson]| DueTasks {
            tasks: tasks
                .iter()
                .map(|(id, seconds)| DueTask {
                    tenant: "t".to_owned(),
                    task_type: "a".to_owned(),
                    id: Uuid::from_u128(*id),
                    at: at(*seconds),
                    lease_seconds: 0,
                    priority: 50,
                })
                .collect(),
            is_full: true,
            strange: Vec::new(),
            last: tasks.last().map(|(_, seconds)| (at(*seconds), strange.to_vec())),
        };
        let ids = |ids: &[u128]| -> Vec<_> {
            ids.iter().map(|id| Bson::Binary(stored_id(Uuid::from_u128(*id)))).collect()
        };
        let is_odd = |id: Uuid| id.as_u128() % 2 == 1;
        let second = DuePage::default().behind(&found(&[(1, 1), (2, 2), (3, 2)], &[]), is_odd);
        assert_eq!((second.from, &second.stuck), (Some(at(2)), &ids(&[3])), "2 is not there any more");
        let third = second.behind(&found(&[(5, 2), (6, 2)], &[Bson::Int32(7)]), is_odd);
        assert_eq!(third.stuck, [ids(&[3, 5]), vec![Bson::Int32(7)]].concat());
        let fourth = third.behind(&found(&[(9, 2), (11, 3)], &[]), is_odd);
        assert_eq!((fourth.from, &fourth.stuck), (Some(at(3)), &ids(&[11])));
        let rest = fourth.after(&found(&[(13, 4)], &[]));
        assert_eq!((rest.from, rest.is_after, rest.stuck.len()), (Some(at(4)), true, 0));
        assert_eq!(rest.after(&found(&[], &[])).from, Some(at(4)), "nothing new");
    }
}
