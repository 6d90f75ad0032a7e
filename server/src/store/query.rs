//! Reading: by id, by result, lists.

use std::collections::{HashMap, HashSet};

use bson::{Document, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use mongodb::options::FindOptions;
use task_repo_protocol::Uuid;

use super::indexes::{NEWEST, NEWEST_BY_TAG, NEWEST_BY_USER, READY, READY_BY_TAG, READY_BY_USER, RESULTS};
use super::{Store, StoreError, stored_id};
use crate::scope::Scope;
use crate::task::{Status, TaskRecord};

/// Most bytes of payload on one page; the first task comes whatever its size.
const MAX_PAGE_BYTES: usize = 16 << 20;
/// MongoDB merges up to 200 ordered index ranges; beyond, it would sort in memory.
const MAX_MERGED_TYPES: usize = 100;

/// A task to be read.
#[derive(Debug, Clone)]
pub struct Want {
    /// What the caller can see.
    pub scope: Scope,
    /// The task.
    pub id: Uuid,
}

/// In which order a list comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Priority, then age: what is claimed next comes first. Only for `pending` alone.
    Claim,
    /// By creation.
    Newest,
}

/// The last task of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its priority; counts in claim order.
    pub priority: i32,
    /// `ready_at` in claim order, else `created_at`.
    pub time: DateTime<Utc>,
    /// Its id.
    pub id: Uuid,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct Listing {
    /// What the caller can see.
    pub scope: Scope,
    /// Any of these statuses; `None`: all, those too that only a newer version knows.
    pub statuses: Option<Vec<Status>>,
    /// Any of these task types; empty: all.
    pub task_types: Vec<String>,
    /// All of these stored tags.
    pub tags: Vec<String>,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only tasks created later.
    pub created_after: Option<DateTime<Utc>>,
    /// Only tasks created earlier.
    pub created_before: Option<DateTime<Utc>>,
    /// In which order.
    pub order: Order,
    /// Where to go on.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: usize,
    /// With `request` and `result`.
    pub payload: bool,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Found {
    /// In order.
    pub tasks: Vec<TaskRecord>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The last task before one that was left out for its size.
    cut: Option<(i32, DateTime<Utc>, Uuid)>,
}

impl Store {
    /// Reads tasks by id; each has its own answer, `None` where there is none for that caller.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get(
        &self,
        wants: &[Want],
        payload: bool,
    ) -> Result<Vec<Result<Option<TaskRecord>, StoreError>>, StoreError> {
        let ids: Vec<_> = wants.iter().map(|want| stored_id(want.id)).collect();
        let options = FindOptions::builder().max_time(self.timeout);
        let options = if payload { options.build() } else { options.projection(without_payload()).build() };
        let reading = self.find("by id", doc! { "_id": { "$in": ids } }, options).await?;
        let unreadable: HashMap<_, _> = reading.unreadable.into_iter().collect();
        let found: HashMap<_, _> = reading.found.into_iter().map(|task| (task.id, task)).collect();
        let read = |want: &Want| match unreadable.get(&want.id) {
            // Whose it is must be known, or it does not exist for that caller.
            Some(Some(tenant)) if **tenant == *want.scope.tenant => Err(StoreError::Unreadable),
            _ => Ok(found.get(&want.id).filter(|task| want.scope.sees(task)).cloned()),
        };
        Ok(wants.iter().map(read).collect())
    }

    /// Which of these tasks are not final and not deleted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unfinished(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        // What only a newer version knows is not over.
        let is_over = Status::ALL.iter().filter(|status| status.is_final()).map(Status::as_str);
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        let filter = doc! { "_id": { "$in": ids }, "status": { "$nin": is_over.collect::<Vec<_>>() } };
        let tasks = self.tasks.clone_with_type::<Document>();
        let find =
            async move { tasks.find(filter).with_options(options).await?.try_collect::<Vec<_>>().await };
        let found = self.call("unfinished", find).await?;
        Ok(found.iter().filter_map(|found| found.get("_id").and_then(super::read_id)).collect())
    }

    /// The newest task that produced this result.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn by_result(&self, scope: &Scope, result_id: &str) -> Result<Option<TaskRecord>, StoreError> {
        let mut filter = doc! {
            "tenant": &*scope.tenant,
            "result_id": { "$eq": result_id, "$exists": true },
            "deleted_at": { "$exists": false },
        };
        if let Some(user) = &scope.user {
            filter.insert("user_id", &**user);
        }
        if let Some(task_types) = &scope.task_types {
            filter.insert("task_type", doc! { "$in": &**task_types });
        }
        let mut options = self.by_index(RESULTS);
        options.sort = Some(doc! { "created_at": -1, "_id": -1 });
        options.limit = Some(1);
        Ok(self.find("by result", filter, options).await?.found.pop())
    }

    /// A page of a list.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, listing: &Listing) -> Result<Found, StoreError> {
        let Some(user) = listing.one_user() else { return Ok(Found::default()) };
        let allowed = listing.allowed_types();
        if allowed.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Found::default());
        }
        let mut filter = listing.filter();
        if listing.order == Order::Newest {
            match &listing.statuses {
                Some(statuses) => {
                    let statuses: Vec<_> = statuses.iter().map(Status::as_str).collect();
                    filter.insert("status", doc! { "$in": statuses });
                }
                // The index of all tasks has the status before the time: each status is one range of it.
                None if user.is_none() && listing.tags.is_empty() => {
                    filter.insert("status", doc! { "$in": self.statuses(&listing.scope.tenant).await? });
                }
                None => {}
            }
        }
        if let Some(user) = &user {
            filter.insert("user_id", &**user);
        }
        let index = listing.index(user.is_some());
        let mut found = Found::default();
        if index == READY {
            let task_types = match allowed {
                Some(task_types) => task_types,
                None => self.pending_types(&listing.scope.tenant).await?,
            };
            for types in task_types.chunks(MAX_MERGED_TYPES) {
                filter.insert("task_type", doc! { "$in": types });
                self.read_page(listing, &filter, index, &mut found).await?;
            }
            found.tasks.sort_by_key(claim_order);
            if let Some(cut) = found.cut {
                found.tasks.retain(|task| claim_order(task) <= cut);
            }
        } else {
            if let Some(task_types) = allowed {
                filter.insert("task_type", doc! { "$in": task_types });
            }
            self.read_page(listing, &filter, index, &mut found).await?;
        }
        found.more |= found.tasks.len() > listing.limit;
        found.tasks.truncate(listing.limit);
        Ok(found)
    }

    /// Adds up to one task more than the page holds, so as to know whether there are more.
    async fn read_page(
        &self,
        listing: &Listing,
        filter: &Document,
        index: &'static str,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let wanted = listing.limit + 1;
        let before = found.tasks.len();
        let mut is_cut = false;
        for (branch, sort) in listing.branches() {
            let missing = wanted.saturating_sub(found.tasks.len() - before);
            if missing == 0 || is_cut {
                break;
            }
            let filter = doc! { "$and": [filter.clone(), branch] };
            let mut options = self.by_index(index);
            options.sort = Some(sort);
            options.limit = i64::try_from(missing).ok();
            let mut left_out = doc! { "attempts": 0, "claim_ids": 0, "moved": 0 };
            if !listing.payload {
                left_out.extend(doc! { "request": 0, "result": 0 });
            }
            options.projection = Some(left_out);
            let reading = self.find_within("a list", filter, options, MAX_PAGE_BYTES).await?;
            let (tasks, more) = (reading.found, reading.is_cut);
            is_cut = more;
            if more {
                // What comes behind this one was not looked at, whatever is found for other task types.
                let last = tasks.last().map(claim_order);
                found.cut = [found.cut, last].into_iter().flatten().min();
            }
            found.tasks.extend(tasks);
            found.more |= more;
        }
        Ok(())
    }

    /// The task types that have ready work.
    async fn pending_types(&self, tenant: &str) -> Result<Vec<String>, StoreError> {
        self.distinct("task_type", doc! { "tenant": tenant, "status": "pending" }).await
    }

    /// The statuses that the tenant's tasks have.
    async fn statuses(&self, tenant: &str) -> Result<Vec<String>, StoreError> {
        self.distinct("status", doc! { "tenant": tenant }).await
    }
}

/// What only a repeated create needs, and what nothing reads.
pub(super) fn without_idempotency() -> Document {
    doc! {
        "idempotency_key": 0, "idempotency_body": 0, "idempotency_request": 0, "idempotency_limits": 0, "moved": 0
    }
}

/// The task as it was created: without what came after that.
pub(super) fn as_created() -> Document {
    doc! { "result": 0, "error": 0, "attempts": 0, "claim_ids": 0, "progress": 0, "cancel_receipt": 0, "moved": 0 }
}

/// What says whom a ready task is for.
pub(super) fn without_past() -> Document {
    let mut left_out = without_payload();
    left_out.extend(doc! { "attempts": 0, "claim_ids": 0, "error": 0, "idempotency_request": 0 });
    left_out
}

pub(super) fn without_payload() -> Document {
    doc! { "request": 0, "result": 0, "template": 0, "metadata": 0, "moved": 0 }
}

fn claim_order(task: &TaskRecord) -> (i32, DateTime<Utc>, Uuid) {
    (-task.priority, task.ready_at, task.id)
}

impl Listing {
    /// The user to list: `Some(None)` is any, `None` is nobody, where two users are asked for.
    #[allow(clippy::option_option, reason = "any user, one user, and two that exclude each other")]
    fn one_user(&self) -> Option<Option<String>> {
        match (self.scope.user.as_deref(), self.user_id.as_deref()) {
            (Some(caller), Some(wanted)) if caller != wanted => None,
            (caller, wanted) => Some(caller.or(wanted).map(str::to_owned)),
        }
    }

    /// The task types to list; `None`: all.
    fn allowed_types(&self) -> Option<Vec<String>> {
        if self.task_types.is_empty() {
            return self.scope.task_types.as_ref().map(|types| types.to_vec());
        }
        let mut types: Vec<_> =
            self.task_types.iter().filter(|name| self.scope.may_use(name)).cloned().collect();
        types.sort();
        types.dedup();
        Some(types)
    }

    fn index(&self, by_user: bool) -> &'static str {
        match (self.order, by_user, self.tags.is_empty()) {
            (Order::Claim, true, _) => READY_BY_USER,
            (Order::Claim, false, false) => READY_BY_TAG,
            (Order::Claim, false, true) => READY,
            (Order::Newest, true, _) => NEWEST_BY_USER,
            (Order::Newest, false, false) => NEWEST_BY_TAG,
            (Order::Newest, false, true) => NEWEST,
        }
    }

    fn filter(&self) -> Document {
        let mut filter = doc! { "tenant": &*self.scope.tenant, "deleted_at": { "$exists": false } };
        if self.order == Order::Claim {
            filter.insert("status", "pending");
        }
        // The first tag is the index's; asking for all at once would leave the choice to the database.
        let mut all = Vec::new();
        if let Some((first, rest)) = self.tags.split_first() {
            filter.insert("tags", first);
            all.extend(rest.iter().map(|tag| doc! { "tags": tag }));
        }
        let date = |time: DateTime<Utc>| bson::DateTime::from_chrono(time);
        all.extend(self.created_after.map(|time| doc! { "created_at": { "$gt": date(time) } }));
        all.extend(self.created_before.map(|time| doc! { "created_at": { "$lt": date(time) } }));
        if !all.is_empty() {
            filter.insert("$and", all);
        }
        filter
    }

    /// What comes behind the position, in parts that are each one range of the index, in order. Each is sorted by
    /// what is not fixed in it: sorted by more, the database would not see that the index has the order already.
    fn branches(&self) -> Vec<(Document, Document)> {
        let whole = match self.order {
            Order::Claim => doc! { "priority": -1, "ready_at": 1, "_id": 1 },
            Order::Newest => doc! { "created_at": -1, "_id": -1 },
        };
        let Some(Position { priority, time, id }) = self.after else { return vec![(doc! {}, whole)] };
        let time = bson::DateTime::from_chrono(time);
        let id = stored_id(id);
        match self.order {
            Order::Claim => vec![
                (doc! { "priority": priority, "ready_at": time, "_id": { "$gt": id } }, doc! { "_id": 1 }),
                (
                    doc! { "priority": priority, "ready_at": { "$gt": time } },
                    doc! { "ready_at": 1, "_id": 1 },
                ),
                (doc! { "priority": { "$lt": priority } }, whole),
            ],
            Order::Newest => vec![
                (doc! { "created_at": time, "_id": { "$lt": id } }, doc! { "_id": -1 }),
                (doc! { "created_at": { "$lt": time } }, whole),
            ],
        }
    }
}
