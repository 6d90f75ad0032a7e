//! The query of a list, and which part of which index answers it.

use std::time::Instant;

use bson::{Bson, Document, doc};
use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::order::behind;
use crate::access::Caller;
use crate::store::indexes::{
    NEWEST_BY_TAG, NEWEST_BY_TYPE, NEWEST_BY_USER, NEWEST_OF_ALL, READY, READY_BY_TAG, READY_BY_USER,
};
use crate::task::{Order, Position, Status};

/// The query of a list.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Who asks, and by when the page is there.
    pub caller: Caller,
    /// Only these tasks; `None`: all.
    pub ids: Option<Vec<Uuid>>,
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
    /// Only tasks that became final later.
    pub completed_after: Option<DateTime<Utc>>,
    /// Only tasks that became final earlier.
    pub completed_before: Option<DateTime<Utc>>,
    /// In which order.
    pub order: Order,
    /// Where to go on: behind the last task that the page before looked at.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: usize,
    /// With `request` and `result`.
    pub payload: bool,
}

/// Where the tasks of a list are.
#[derive(Debug)]
pub(super) struct IndexRoute {
    /// The index that has them in order.
    pub(super) index: &'static str,
    /// Conditions that are equalities of that index.
    pub(super) fixed: Document,
    /// The task types of which the index is made up; `None`: it has all, or is not by type.
    pub(super) types: Option<Vec<String>>,
    /// Conditions that the index does not answer.
    pub(super) rest: Vec<Document>,
}

/// Tasks that have not been deleted.
pub(super) fn not_deleted() -> Document {
    doc! { "deleted_at": { "$exists": false } }
}

impl Listing {
    /// Whether what is asked for excludes itself, so that there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        let is_of_two_users = match (self.caller.scope.user.as_deref(), self.user_id.as_deref()) {
            (Some(caller), Some(wanted)) => caller != wanted,
            _ => false,
        };
        let has_an_end = self.completed_after.is_some() || self.completed_before.is_some();
        let is_unfinished = |statuses: &Vec<Status>| !statuses.iter().any(|status| status.is_final());
        is_of_two_users
            || self.allowed_types().is_some_and(|types| types.is_empty())
            || self.ids.as_ref().is_some_and(Vec::is_empty)
            || has_an_end && self.statuses.as_ref().is_some_and(is_unfinished)
    }

    /// By when the page is there.
    pub(super) fn until(&self) -> Instant {
        self.caller.deadline.at()
    }

    fn user(&self) -> Option<&str> {
        self.caller.scope.user.as_deref().or(self.user_id.as_deref())
    }

    /// The task types to list; `None`: all.
    fn allowed_types(&self) -> Option<Vec<String>> {
        if self.task_types.is_empty() {
            return self.caller.scope.task_types.as_ref().map(|types| types.to_vec());
        }
        let mut types: Vec<_> =
            self.task_types.iter().filter(|name| self.caller.scope.may_use(name)).cloned().collect();
        types.sort();
        types.dedup();
        Some(types)
    }

    /// The index that serves the list, and what it does not answer by itself.
    pub(super) fn route(&self) -> IndexRoute {
        let mut fixed = doc! { "tenant": &*self.caller.scope.tenant };
        let types = self.allowed_types();
        // The first tag is the index's; asking for all at once would leave the choice to the database.
        let mut tags = self.tags.iter();
        let mut rest: Vec<Document> = Vec::new();
        let index = match (self.user(), self.order) {
            (Some(user), order) => {
                fixed.insert("user_id", user);
                if order == Order::Claim { READY_BY_USER } else { NEWEST_BY_USER }
            }
            (None, order) => match (tags.next(), order) {
                (Some(first), order) => {
                    fixed.insert("tags", first);
                    if order == Order::Claim { READY_BY_TAG } else { NEWEST_BY_TAG }
                }
                (None, Order::Claim) => READY,
                (None, Order::Newest) if types.is_some() => NEWEST_BY_TYPE,
                (None, Order::Newest) => NEWEST_OF_ALL,
            },
        };
        rest.extend(tags.map(|tag| doc! { "tags": tag }));
        let created = Self::time_range("created_at", self.created_after, self.created_before);
        if self.order == Order::Claim {
            fixed.insert("status", "pending");
            rest.extend(created);
        } else {
            let statuses =
                self.statuses.as_ref().map(|all| all.iter().map(Status::as_str).collect::<Vec<_>>());
            rest.extend(statuses.map(|statuses| doc! { "status": { "$in": statuses } }));
            if let Some(created) = created {
                fixed.insert("$and", vec![created]);
            }
        }
        rest.extend(Self::time_range("completed_at", self.completed_after, self.completed_before));
        if index == READY || index == NEWEST_BY_TYPE {
            return IndexRoute { index, fixed, types, rest };
        }
        rest.extend(types.map(|types| doc! { "task_type": { "$in": types } }));
        IndexRoute { index, fixed, types: None, rest }
    }

    fn time_range(
        field: &str,
        after: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
    ) -> Option<Document> {
        let date = |time| Bson::DateTime(bson::DateTime::from_chrono::<Utc>(time));
        let mut range = Document::new();
        range.extend(after.map(|time| ("$gt".to_owned(), date(time))));
        range.extend(before.map(|time| ("$lt".to_owned(), date(time))));
        (!range.is_empty()).then(|| doc! { field: range })
    }

    /// What lies behind the position, of these types where the index is by type. Each alternative is one range of the index,
    /// and the database merges them in order; with alternatives inside of other conditions it would read all of the index.
    pub(super) fn behind(&self, fixed: &Document, types: Option<&[String]>) -> Document {
        let Some(types) = types else { return alternatives(fixed, self.branches()) };
        if self.after.is_none() {
            let mut filter = fixed.clone();
            filter.insert("task_type", doc! { "$in": types });
            return filter;
        }
        let of_all_types = types.iter().flat_map(|name| {
            self.branches().into_iter().map(move |mut branch| {
                branch.insert("task_type", name);
                branch
            })
        });
        alternatives(fixed, of_all_types.collect())
    }

    /// Tasks behind the position, in parts that are each one range of the index.
    fn branches(&self) -> Vec<Document> {
        self.after.map_or_else(|| vec![doc! {}], |position| behind(self.order, position))
    }

    /// All that must hold for a task of the list that comes behind the position, for reads that go by no order.
    pub(super) fn whole_filter(&self) -> Document {
        let IndexRoute { fixed, types, rest, .. } = self.route();
        let mut all = vec![alternatives(&fixed, self.branches()), not_deleted()];
        all.extend(rest);
        all.extend(types.map(|types| doc! { "task_type": { "$in": types } }));
        doc! { "$and": all }
    }
}

fn alternatives(fixed: &Document, branches: Vec<Document>) -> Document {
    let with_fixed = |branch: Document| {
        let mut filter = fixed.clone();
        filter.extend(branch);
        filter
    };
    let mut filters: Vec<_> = branches.into_iter().map(with_fixed).collect();
    if filters.len() == 1 {
        filters.remove(0)
    } else {
        doc! { "$or": filters }
    }
}
