//! Ready work in claim order.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;

use super::order::{behind, sort};
use super::projection::without_past;
use crate::access::Scope;
use crate::store::driver::{MAX_READ_BYTES, Store};
use crate::store::error::StoreError;
use crate::store::ids::stored_id;
use crate::store::indexes::{READY, READY_BY_TAG, READY_BY_USER};
use crate::task::{Order, Position, TaskRecord};

/// How many ready tasks one read for several selections brings.
const MAX_FOR_ANY: usize = 1000;

/// The last bit of a stored id, as MongoDB counts them: from the lowest of the first byte.
const LAST_BIT: i32 = 8 * 15;

/// Ready tasks in claim order.
#[derive(Debug, Default)]
pub struct Ready {
    /// With their payloads.
    pub tasks: Vec<TaskRecord>,
    /// There were more, but too many bytes.
    pub is_cut: bool,
}

/// Where a read of ready work begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyFrom {
    /// At the front.
    Front,
    /// Behind a task; perhaps only those whose id ends in this bit.
    After(Position, Option<bool>),
    /// At the front, and it ends before this priority.
    Above(i32),
}

impl ReadyFrom {
    fn narrow(self, filter: &mut Document) {
        match self {
            Self::Front => {}
            Self::Above(priority) => drop(filter.insert("priority", doc! { "$gt": priority })),
            Self::After(position, bit) => {
                filter.insert("$or", behind(Order::Claim, position));
                if let Some(bit) = bit {
                    let test = if bit { "$bitsAllSet" } else { "$bitsAllClear" };
                    filter.insert("_id", doc! { test: [LAST_BIT] });
                }
            }
        }
    }
}

/// The work that the waiting callers of a tenant wait for.
#[derive(Debug, Clone, Default)]
pub struct Awaited {
    /// Task types of callers that take any of them.
    pub task_types: HashSet<String>,
    /// The selections of callers that take only some of the tasks of their types, each once.
    pub narrow: Vec<Selection>,
}

/// Which tasks a claim may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    /// What the caller can see.
    pub scope: Scope,
    /// The queues, sorted and each once.
    pub task_types: Vec<String>,
    /// Stored tags that a task must all have.
    pub tags: Vec<String>,
}

impl Selection {
    fn filter(&self) -> Document {
        let mut filter = ready_filter(&self.scope.tenant, &self.task_types, &self.tags);
        if let Some(user) = &self.scope.user {
            filter.insert("user_id", &**user);
        }
        filter
    }

    fn index(&self) -> &'static str {
        match (self.scope.user.is_some(), self.tags.is_empty()) {
            (true, _) => READY_BY_USER,
            (false, false) => READY_BY_TAG,
            (false, true) => READY,
        }
    }

    /// Whether its ready tasks are one range of the index, so that a read can begin behind any of them.
    pub fn is_one_queue(&self) -> bool {
        self.takes_any() && self.task_types.len() == 1
    }

    /// Whether any task of its types will do.
    pub fn takes_any(&self) -> bool {
        self.scope.user.is_none() && self.tags.is_empty()
    }

    /// Whether this task will do.
    pub fn takes(&self, ready: &TaskRecord) -> bool {
        self.task_types.contains(&ready.task_type) && self.matches(ready)
    }

    /// Whether a task of one of its types will do.
    pub fn matches(&self, ready: &TaskRecord) -> bool {
        self.scope.user.as_deref().is_none_or(|user| ready.user_id.as_deref() == Some(user))
            && self.tags.iter().all(|tag| ready.tags.contains(tag))
    }
}

fn ready_filter(tenant: &str, task_types: &[String], tags: &[String]) -> Document {
    let mut filter = doc! {
        "tenant": tenant,
        "task_type": match task_types {
            [one] => Bson::from(one.as_str()),
            many => Bson::from(doc! { "$in": many }),
        },
        "status": "pending",
    };
    // The first tag is the index's; asking for all at once would leave the choice to the database.
    if let Some((first, rest)) = tags.split_first() {
        filter.insert("tags", first);
        if !rest.is_empty() {
            filter.insert("$and", rest.iter().map(|tag| doc! { "tags": tag }).collect::<Vec<_>>());
        }
    }
    filter
}

fn as_array<'a, T: AsRef<str> + ?Sized + 'a>(names: BTreeSet<&'a T>) -> Vec<&'a str> {
    names.into_iter().map(AsRef::as_ref).collect()
}

impl Store {
    /// Up to `limit` ready tasks in claim order, with their payloads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready(
        &self,
        selection: &Selection,
        from: ReadyFrom,
        limit: usize,
    ) -> Result<Ready, StoreError> {
        let mut options = self.by_index(selection.index());
        options.sort = Some(sort(Order::Claim));
        options.limit = i64::try_from(limit).ok();
        options.batch_size = u32::try_from(limit).ok();
        let mut filter = selection.filter();
        from.narrow(&mut filter);
        let passed_by = self.unreadable.passed_by();
        if !passed_by.is_empty() {
            let ids: Vec<_> = passed_by.into_iter().map(stored_id).collect();
            filter.insert("$nor", vec![doc! { "_id": { "$in": ids } }]);
        }
        let reading =
            self.find_within("ready work", filter, options, MAX_READ_BYTES, self.step_deadline()).await?;
        Ok(Ready { tasks: reading.found, is_cut: reading.is_cut })
    }

    /// Whether any task is ready, for those of `task_types` where one is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_types(&self, tenant: &str, task_types: &[String]) -> Result<Vec<String>, StoreError> {
        let filter = doc! { "tenant": tenant, "task_type": { "$in": task_types }, "status": "pending" };
        self.distinct("task_type", filter, self.step_deadline()).await
    }

    /// Since when the oldest ready task of a type has been ready, whatever its priority. The first task of each priority is
    /// looked at, and no other.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn oldest_ready(
        &self,
        tenant: &str,
        task_type: &str,
        until: Instant,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let filter = doc! { "tenant": tenant, "task_type": task_type, "status": "pending" };
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$sort": { "priority": -1, "ready_at": 1, "_id": 1 } },
            doc! { "$group": { "_id": "$priority", "ready_at": { "$first": "$ready_at" } } },
        ];
        let (tasks, options) = (self.tasks.clone_with_type::<Document>(), self.aggregate_by_index(READY));
        let oldest: Vec<Document> = self
            .call("the oldest ready task", until, async move {
                tasks.aggregate(pipeline).with_options(options).await?.try_collect().await
            })
            .await?;
        let times = oldest.iter().filter_map(|first| first.get_datetime("ready_at").ok());
        Ok(times.map(|at| at.to_chrono()).min())
    }

    /// One read of ready tasks that such callers may want, without payloads. They all take only their own user's, or all
    /// take any user's with some tag. For several it goes by the user or one tag of each, so it brings also what none of
    /// them wants; it is cut where it would bring more than 1 000.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_for_any(&self, tenant: &str, wanted: &[&Selection]) -> Result<Ready, StoreError> {
        let Some(first) = wanted.first() else { return Ok(Ready::default()) };
        let mut options = self.by_index(first.index());
        options.projection = Some(without_past());
        let (filter, limit) = if let [lone] = wanted {
            // Any task will do, because the group is woken by one: others are found when that is claimed.
            (lone.filter(), 1)
        } else {
            let task_types: BTreeSet<_> = wanted.iter().flat_map(|wanted| &wanted.task_types).collect();
            let mut filter =
                doc! { "tenant": tenant, "task_type": { "$in": as_array(task_types) }, "status": "pending" };
            let users: BTreeSet<_> =
                wanted.iter().filter_map(|wanted| wanted.scope.user.as_deref()).collect();
            if users.is_empty() {
                let tags: BTreeSet<_> = wanted.iter().filter_map(|wanted| wanted.tags.first()).collect();
                filter.insert("tags", doc! { "$in": as_array(tags) });
            } else {
                filter.insert("user_id", doc! { "$in": as_array(users) });
            }
            (filter, MAX_FOR_ANY)
        };
        options.limit = i64::try_from(limit).ok();
        let tasks = self.find("ready for some", filter, options, self.step_deadline()).await?.found;
        Ok(Ready { is_cut: tasks.len() >= MAX_FOR_ANY, tasks })
    }
}
