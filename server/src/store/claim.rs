//! Ready work in claim order, and taking it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::guarded_write::{Fate, Mark, Staging};
use super::indexes::{CLAIMS, READY, READY_BY_TAG, READY_BY_USER};
use super::{MAX_READ_BYTES, Store, StoreError, stored_bytes, stored_id};
use crate::lifecycle::{self, Effect, Grant, Intent};
use crate::scope::Scope;
use crate::task::TaskRecord;

/// How many ready tasks one look for other servers' work reads.
const MAX_LOOK: usize = 1000;

/// The last bit of a stored id, as MongoDB counts them: from the lowest of the first byte.
const LAST_BIT: i32 = 8 * 15;

/// Tenant, and hash of a claim id.
pub(super) type ClaimId = (Arc<str>, Vec<u8>);

/// Ready tasks in claim order.
#[derive(Debug, Default)]
pub struct Ready {
    /// With their payloads.
    pub tasks: Vec<TaskRecord>,
    /// There were more, but too many bytes.
    pub is_cut: bool,
}

/// A task's place in claim order: by priority, the highest first, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimOrder {
    priority: Reverse<i32>,
    ready_at: DateTime<Utc>,
    id: Uuid,
}

impl TaskRecord {
    /// Its place in claim order.
    pub fn claim_order(&self) -> ClaimOrder {
        ClaimOrder { priority: Reverse(self.priority), ready_at: self.ready_at, id: self.id }
    }
}

/// Where a look for ready work begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the front.
    Front,
    /// Behind a task; perhaps only those whose id ends in this bit.
    After(ClaimOrder, Option<bool>),
    /// At the front, and it ends before this priority.
    Above(i32),
}

impl From {
    fn narrow(self, filter: &mut Document) {
        match self {
            Self::Front => {}
            Self::Above(priority) => drop(filter.insert("priority", doc! { "$gt": priority })),
            Self::After(ClaimOrder { priority: Reverse(priority), ready_at, id }, bit) => {
                let ready_at = bson::DateTime::from_chrono(ready_at);
                // Each a range of the index; MongoDB merges them.
                let behind = [
                    doc! { "priority": priority, "ready_at": ready_at, "_id": { "$gt": stored_id(id) } },
                    doc! { "priority": priority, "ready_at": { "$gt": ready_at } },
                    doc! { "priority": { "$lt": priority } },
                ];
                filter.insert("$or", behind.to_vec());
                if let Some(bit) = bit {
                    let test = if bit { "$bitsAllSet" } else { "$bitsAllClear" };
                    filter.insert("_id", doc! { test: [LAST_BIT] });
                }
            }
        }
    }
}

/// What came of an attempt to lease tasks.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Leased, with their payloads.
    pub tasks: Vec<TaskRecord>,
    /// Perhaps leased: the database did not say.
    pub in_doubt: Vec<TaskRecord>,
}

/// What the waiting callers of a tenant wait for.
#[derive(Debug, Clone, Default)]
pub struct Awaited {
    /// Task types of callers that take any of them.
    pub task_types: HashSet<String>,
    /// What callers want that take only some of the tasks of their types, each once.
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

    /// Whether its ready tasks are one range of the index, so that a look can begin behind any of them.
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
    pub async fn ready(&self, selection: &Selection, from: From, limit: usize) -> Result<Ready, StoreError> {
        let mut options = self.by_index(selection.index());
        options.sort = Some(doc! { "priority": -1, "ready_at": 1, "_id": 1 });
        options.limit = i64::try_from(limit).ok();
        options.batch_size = u32::try_from(limit).ok();
        let mut filter = selection.filter();
        from.narrow(&mut filter);
        let passed_by = self.unreadable.passed_by();
        if !passed_by.is_empty() {
            let ids: Vec<_> = passed_by.into_iter().map(stored_id).collect();
            filter.insert("$nor", vec![doc! { "_id": { "$in": ids } }]);
        }
        let reading = self.find_within("ready work", filter, options, MAX_READ_BYTES).await?;
        Ok(Ready { tasks: reading.found, is_cut: reading.is_cut })
    }

    /// Whether any task is ready, for those of `task_types` where one is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_types(&self, tenant: &str, task_types: &[String]) -> Result<Vec<String>, StoreError> {
        let filter = doc! { "tenant": tenant, "task_type": { "$in": task_types }, "status": "pending" };
        self.distinct("task_type", filter).await
    }

    /// One look at ready tasks that such callers may want, without payloads. They all take only their own user's, or all
    /// take any user's with some tag. For several it goes by the user or one tag of each, so it brings also what none of
    /// them wants; it is cut where it would bring more than 1 000.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_for_any(&self, tenant: &str, wanted: &[&Selection]) -> Result<Ready, StoreError> {
        let Some(first) = wanted.first() else { return Ok(Ready::default()) };
        let mut options = self.by_index(first.index());
        options.projection = Some(super::query::without_past());
        let (filter, limit) = if let [lone] = wanted {
            // Whatever is found is wanted: what else there is, is found when that is taken.
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
            (filter, MAX_LOOK)
        };
        options.limit = i64::try_from(limit).ok();
        let tasks = self.find("ready for some", filter, options).await?.found;
        Ok(Ready { is_cut: tasks.len() >= MAX_LOOK, tasks })
    }

    /// Leases these tasks: those that are still free. What is not known by `until` is in doubt.
    ///
    /// # Errors
    /// When too much waits for the database already: nothing was leased.
    pub async fn claim(
        &self,
        picks: Vec<(TaskRecord, Grant)>,
        until: Instant,
    ) -> Result<Claimed, StoreError> {
        let (now, mark) = (self.clock().now(), Mark::new());
        let mut staged = Vec::with_capacity(picks.len());
        let mut taken = Vec::with_capacity(picks.len());
        let mut named = HashSet::with_capacity(picks.len());
        for (mut task, grant) in picks {
            // The stamp tells one write of a task from those of others, not from another of the same call.
            if !named.insert(task.id) {
                continue;
            }
            let (from, version) = (task.status, task.version);
            // Payloads do not change; they need not be compared.
            let payload = task.take_payload();
            let Some(staging) = Staging::of(&task, mark, self.form) else { continue };
            let intent = Intent::Claim(grant);
            if lifecycle::apply(&mut task, &intent, now) != Ok(Effect::Changed) {
                continue;
            }
            let moves = lifecycle::move_of(from, version, &intent, &task).into_iter().collect();
            if let Some(stage) = staging.finish(task, moves) {
                taken.push((Arc::clone(&stage.record), payload));
                staged.push(stage);
            }
        }
        let fates = self.write(staged, until).await;
        let mut claimed = Claimed::default();
        let mut failed = None;
        for ((task, payload), fate) in taken.into_iter().zip(fates) {
            match fate {
                Fate::Landed => {
                    let mut task = Arc::unwrap_or_clone(task);
                    task.put_payload(payload);
                    claimed.tasks.push(task);
                }
                Fate::Unknown => claimed.in_doubt.push(Arc::unwrap_or_clone(task)),
                Fate::Missed => {}
                Fate::Failed(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if claimed.tasks.is_empty() && claimed.in_doubt.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }

    /// The tasks that a claim with this id (hash) has ever taken, without payloads. Questions of callers that arrive
    /// together are one.
    ///
    /// # Errors
    /// When the database does not answer by `until`.
    pub async fn claimed_by(
        &self,
        scope: &Scope,
        claim_id: &[u8],
        until: Instant,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        let question = (Arc::clone(&scope.tenant), claim_id.to_vec());
        let store = self.clone();
        let run = move |questions| {
            let store = store.clone();
            async move { store.claimed_by_now(questions).await }
        };
        let asked = self.groups.claim_ids.submit(vec![question], 0, until, &self.runtime, run).await;
        // Nothing can be in doubt of a question.
        let mut answers = asked.map_err(|error| match error {
            StoreError::OutcomeUnknown => StoreError::Unavailable,
            other => other,
        })?;
        answers.pop().unwrap_or(Err(StoreError::Unavailable))
    }

    async fn claimed_by_now(&self, questions: Vec<ClaimId>) -> Vec<Result<Vec<TaskRecord>, StoreError>> {
        let mut by_tenant: HashMap<&str, Vec<_>> = HashMap::new();
        for (tenant, claim_id) in &questions {
            by_tenant.entry(tenant).or_default().push(stored_bytes(claim_id));
        }
        let mut found = HashMap::with_capacity(by_tenant.len());
        for (tenant, claim_ids) in by_tenant {
            // Not `$exists` as well: on an array MongoDB bounds the index by one condition only, and may take that.
            let filter = doc! { "tenant": tenant, "claim_ids": { "$in": claim_ids } };
            let mut options = self.by_index(CLAIMS);
            options.projection = Some(super::query::without_payload());
            found.insert(tenant, self.find("claimed by id", filter, options).await);
        }
        let answer = |(tenant, claim_id): &ClaimId| {
            let reading =
                found.get(&**tenant).ok_or(StoreError::Unavailable)?.as_ref().map_err(|error| *error)?;
            Ok(reading.found.iter().filter(|task| task.claim_ids.contains(claim_id)).cloned().collect())
        };
        questions.iter().map(answer).collect()
    }
}
