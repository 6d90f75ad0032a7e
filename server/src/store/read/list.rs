//! Lists of tasks, a page at a time.
//!
//! One rule for all, whatever their filters: a page goes by an index that has the order, and looks at no more than
//! 10 000 tasks. What the index does not answer is looked at in three steps, each only if the one before is not enough:
//!
//! 1. A short scan that ends as soon as the page is full.
//! 2. A long scan that brings only ids, and the place where it ended.
//! 3. A read of the tasks that it found.
//!
//! The place of the last task that was looked at is where the next page goes on.

use std::cmp::Ordering;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use task_repo_protocol::Uuid;
use tokio::time::timeout_at;

use super::listing::{IndexRoute, Listing, not_deleted};
use super::order::{fields, read_position, sort};
use super::projection::without_idempotency;
use crate::store::driver::{Reading, Store};
use crate::store::error::StoreError;
use crate::store::ids::stored_id;
use crate::store::indexes::{LEASES, NEWEST_BY_TYPE, NEWEST_OF_ALL, READY};
use crate::task::{Order, Position, Status, TaskRecord};

/// Most bytes of one page; the first task comes whatever its size.
const MAX_PAGE_BYTES: usize = 16 << 20;
/// MongoDB merges up to 200 ordered index ranges; beyond, it would sort in memory.
const MAX_MERGED_TYPES: usize = 100;
/// The same behind a position, where each type is up to three ranges.
const MAX_MERGED_TYPES_BEHIND: usize = 50;
/// Most tasks that a page looks at.
const MAX_SCANNED: usize = 10_000;
/// How many of these a page looks at when more took too long.
const FEW_SCANNED: usize = 100;
/// How many of these the short scan takes.
const SHORT_SCAN: usize = 1_000;
/// How many tasks that somebody works on are sorted. Of these there are few, whatever the number of tasks.
const MAX_SORTED: usize = 5_000;

/// A page of a list.
#[derive(Debug, Default)]
pub struct ListPage {
    /// In order.
    pub tasks: Vec<TaskRecord>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<Position>,
}

/// A page while it is being read.
#[derive(Debug)]
struct PageBuilder {
    order: Order,
    /// One task more than the page may have, so as to know whether there are more.
    wanted: usize,
    tasks: Vec<TaskRecord>,
    /// Tasks behind this position were not read, or not all of them.
    end: Option<Position>,
}

/// A part of an index, with the tasks that are behind the position.
struct Part<'a> {
    index: &'static str,
    range: Document,
    /// Conditions that the index does not answer.
    rest: &'a [Document],
    /// How many of them may be looked at.
    budget: usize,
}

/// The result of a long scan.
#[derive(Debug, Default)]
struct Scan {
    /// The first ones, in order.
    found: Vec<Position>,
    /// As many as the page may have and one more.
    is_full: bool,
    /// As many were looked at as may be: there may be more behind them.
    is_cut: bool,
    /// The last task that was looked at, where there may be more behind it.
    end: Option<Position>,
}

impl PageBuilder {
    fn of(listing: &Listing) -> Self {
        Self { order: listing.order, wanted: listing.limit + 1, tasks: Vec::new(), end: None }
    }

    fn ends_at(&mut self, place: Position) {
        if self.end.is_none_or(|end| self.order.compare(&place, &end) == Ordering::Less) {
            self.end = Some(place);
        }
    }

    /// Adds tasks in whatever order, and keeps those that come first.
    fn add(&mut self, tasks: Vec<TaskRecord>) {
        self.tasks.extend(tasks);
        let order = self.order;
        self.tasks.sort_by(|one, other| order.compare(&order.position(one), &order.position(other)));
        self.tasks.truncate(self.wanted);
        let mut bytes = 0;
        let fitting = self.tasks.iter().take_while(|task| {
            bytes += task.bytes();
            bytes <= MAX_PAGE_BYTES
        });
        let count = fitting.count().max(1);
        if count < self.tasks.len() {
            self.tasks.truncate(count);
            if let Some(last) = self.tasks.last().map(|task| order.position(task)) {
                self.ends_at(last);
            }
        }
    }

    fn finish(mut self) -> ListPage {
        let order = self.order;
        if let Some(end) = self.end {
            self.tasks.retain(|task| order.compare(&order.position(task), &end) != Ordering::Greater);
        }
        let limit = self.wanted - 1;
        let is_full = self.tasks.len() > limit;
        self.tasks.truncate(limit);
        let last = self.tasks.last().map(|task| order.position(task));
        ListPage { next: if is_full { last } else { self.end }, tasks: self.tasks }
    }
}

impl Listing {
    /// Whether only tasks are asked for that somebody works on, behind no index that knows them better.
    fn is_of_processing(&self, index: &str) -> bool {
        self.statuses.as_deref() == Some(&[Status::Processing])
            && [NEWEST_OF_ALL, NEWEST_BY_TYPE].contains(&index)
    }

    /// The fields that the answer does not show.
    fn left_out(&self) -> Document {
        let mut left_out = without_idempotency();
        left_out.extend(doc! { "attempts": 0, "claim_ids": 0, "cancel_receipt": 0, "lease.before": 0 });
        if !self.payload {
            left_out.extend(doc! { "request": 0, "result": 0 });
        }
        left_out
    }
}

impl Store {
    /// A page of a list.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, listing: &Listing) -> Result<ListPage, StoreError> {
        let mut page = PageBuilder::of(listing);
        if listing.is_empty() {
            return Ok(page.finish());
        }
        // The driver holds 16 MiB of a page with payloads before any of it is counted.
        let place = timeout_at(listing.until().into(), self.payload_pages.acquire());
        let _place =
            if listing.payload { Some(place.await.map_err(|_| StoreError::Overloaded)?) } else { None };
        if let Some(ids) = &listing.ids {
            self.read_found(listing, ids, &mut page).await?;
            return Ok(page.finish());
        }
        let IndexRoute { index, fixed, mut types, rest } = listing.route();
        let mut budget = MAX_SCANNED;
        if listing.is_of_processing(index) {
            match self.scan_processing(listing).await {
                Ok(scan) if !scan.is_cut => {
                    self.read_scan(listing, scan, &mut page).await?;
                    return Ok(page.finish());
                }
                // Too many, or too large.
                Ok(_) | Err(StoreError::Unavailable) => budget -= MAX_SORTED,
                Err(error) => return Err(error),
            }
        }
        if index == READY && types.is_none() {
            types = Some(self.pending_types(listing).await?);
        }
        let merged = if listing.after.is_some() { MAX_MERGED_TYPES_BEHIND } else { MAX_MERGED_TYPES };
        let ranges: Vec<_> = match &types {
            Some(types) => types.chunks(merged).map(|types| listing.behind(&fixed, Some(types))).collect(),
            None => vec![listing.behind(&fixed, None)],
        };
        budget = (budget / ranges.len().max(1)).max(1);
        for range in ranges {
            let part = Part { index, range, rest: &rest, budget };
            self.read_part(listing, &part, &mut page).await?;
        }
        Ok(page.finish())
    }

    async fn read_part(
        &self,
        listing: &Listing,
        part: &Part<'_>,
        page: &mut PageBuilder,
    ) -> Result<(), StoreError> {
        let reading = if part.rest.is_empty() {
            self.read_in_order(listing, part).await?
        } else {
            self.scan_short(listing, part).await?
        };
        let last = reading.found.last().map(|task| listing.order.position(task));
        let is_whole = part.rest.is_empty() && reading.found.len() <= listing.limit;
        let (is_cut, mut tasks) = (reading.is_cut, reading.found);
        tasks.retain(|task| task.deleted_at.is_none());
        if is_cut {
            if let Some(last) = last {
                page.ends_at(last);
            }
        } else if !is_whole && tasks.len() <= listing.limit {
            let budget = if part.rest.is_empty() { part.budget } else { part.budget - part.short() };
            // Large tasks may take too long. A page that looks at few of them comes, and the next one goes on behind it.
            let scan = match self.scan_long(listing, part, budget).await {
                Err(StoreError::Unavailable) => {
                    self.scan_long(listing, part, budget.min(FEW_SCANNED)).await?
                }
                scan => scan?,
            };
            return self.read_scan(listing, scan, page).await;
        }
        page.add(tasks);
        Ok(())
    }

    /// The first tasks of a part, deleted ones too.
    async fn read_in_order(
        &self,
        listing: &Listing,
        part: &Part<'_>,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let mut options = self.by_index(part.index);
        options.sort = Some(sort(listing.order));
        options.limit = i64::try_from(listing.limit + 1).ok();
        options.projection = Some(listing.left_out());
        self.find_within("a list", part.range.clone(), options, MAX_PAGE_BYTES, listing.until()).await
    }

    /// The first tasks of a part that are asked for, if they are among its first ones. Ends as soon as the page is full.
    async fn scan_short(
        &self,
        listing: &Listing,
        part: &Part<'_>,
    ) -> Result<Reading<TaskRecord>, StoreError> {
        let pipeline = vec![
            doc! { "$match": &part.range },
            doc! { "$sort": sort(listing.order) },
            doc! { "$limit": count(part.short()) },
            doc! { "$match": part.wanted() },
            doc! { "$limit": count(listing.limit + 1) },
            doc! { "$project": listing.left_out() },
        ];
        self.aggregate_within("a list", pipeline, part.index, MAX_PAGE_BYTES, listing.until()).await
    }

    /// Which tasks of the first ones of a part are asked for.
    async fn scan_long(&self, listing: &Listing, part: &Part<'_>, budget: usize) -> Result<Scan, StoreError> {
        let pipeline = vec![
            doc! { "$match": &part.range },
            doc! { "$sort": sort(listing.order) },
            doc! { "$limit": count(budget) },
            doc! { "$facet": {
                "found": [
                    { "$match": part.wanted() },
                    { "$limit": count(listing.limit + 1) },
                    { "$project": fields(listing.order) },
                ],
                "end": [{ "$skip": count(budget - 1) }, { "$project": fields(listing.order) }],
            } },
        ];
        self.scan(listing, pipeline, part.index).await
    }

    /// Which tasks are asked for of those that somebody works on, if these are not too many to be sorted.
    async fn scan_processing(&self, listing: &Listing) -> Result<Scan, StoreError> {
        let pipeline = vec![
            doc! { "$match": { "status": "processing" } },
            doc! { "$limit": count(MAX_SORTED) },
            doc! { "$facet": {
                "found": [
                    { "$match": listing.whole_filter() },
                    { "$sort": sort(listing.order) },
                    { "$limit": count(listing.limit + 1) },
                    { "$project": fields(listing.order) },
                ],
                "end": [{ "$skip": count(MAX_SORTED - 1) }, { "$project": fields(listing.order) }],
            } },
        ];
        self.scan(listing, pipeline, LEASES).await
    }

    /// Carries out a scan, whose answer is one document with the places of what it found and of its end.
    async fn scan(
        &self,
        listing: &Listing,
        pipeline: Vec<Document>,
        index: &'static str,
    ) -> Result<Scan, StoreError> {
        let tasks = self.tasks.clone();
        let mut options = self.aggregate_by_index(index);
        // One that takes too long leaves time for another way.
        options.max_time = Some(self.timeout / 2);
        let scan = async move {
            let cursor = tasks.aggregate(pipeline).with_options(options).await?;
            cursor.try_collect::<Vec<_>>().await
        };
        let answer = self.call("a scan for a list", listing.until(), scan).await?.pop().unwrap_or_default();
        let places = |name: &str| answer.get_array(name).map(Vec::as_slice).unwrap_or_default();
        let place = |stored: &Bson| read_position(listing.order, stored.as_document()?);
        // A document without a readable place is left out like any that cannot be read.
        let found: Vec<_> = places("found").iter().filter_map(place).collect();
        let is_full = places("found").len() > listing.limit;
        let end = places("end").first();
        let last = if is_full { found.last().copied() } else { end.and_then(place) };
        Ok(Scan { found, is_full, is_cut: end.is_some(), end: last })
    }

    async fn read_scan(
        &self,
        listing: &Listing,
        scan: Scan,
        page: &mut PageBuilder,
    ) -> Result<(), StoreError> {
        if scan.is_full || scan.is_cut {
            // A list must not end at a document that cannot be read.
            page.ends_at(scan.end.ok_or(StoreError::Unreadable)?);
        }
        let ids: Vec<_> = scan.found.iter().map(|place| place.id).collect();
        self.read_found(listing, &ids, page).await
    }

    /// Reads tasks by id, of which there are few, as far as they are asked for.
    async fn read_found(
        &self,
        listing: &Listing,
        ids: &[Uuid],
        page: &mut PageBuilder,
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
        let filter = doc! { "$and": [{ "_id": { "$in": ids } }, listing.whole_filter()] };
        let mut options = self.by_index("_id_");
        options.sort = Some(sort(listing.order));
        options.limit = i64::try_from(page.wanted).ok();
        options.projection = Some(listing.left_out());
        let reading =
            self.find_within("a list by id", filter, options, MAX_PAGE_BYTES, listing.until()).await?;
        if reading.is_cut {
            let last = reading.found.last().map(|task| listing.order.position(task));
            if let Some(last) = last {
                page.ends_at(last);
            }
        }
        page.add(reading.found);
        Ok(())
    }

    /// The task types that have ready work.
    async fn pending_types(&self, listing: &Listing) -> Result<Vec<String>, StoreError> {
        let filter = doc! { "tenant": &*listing.caller.scope.tenant, "status": "pending" };
        self.distinct("task_type", filter, listing.until()).await
    }
}

impl Part<'_> {
    fn wanted(&self) -> Document {
        let all: Vec<_> = self.rest.iter().cloned().chain([not_deleted()]).collect();
        doc! { "$and": all }
    }

    /// How many tasks the short scan takes.
    fn short(&self) -> usize {
        SHORT_SCAN.min(self.budget / 2)
    }
}

/// A number as the database is told it.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX).max(1)
}
