//! How task types are shown: what holds for them, and how they are doing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use task_repo_protocol::{Json, TaskType, TaskTypePage, task_type_is_valid};

use super::failure::Failure;
use super::query::WrongCursor;
use super::service::TaskService;
use crate::access::Caller;
use crate::store::{CountedTypes, TypeCounts};
use crate::task_types::TypeRecord;

/// For how many types the oldest ready task is looked for at once.
const PARALLEL_LOOKS: usize = 16;

/// The name of the type at which a page ended.
///
/// # Errors
/// When `cursor` is none.
pub fn type_cursor(cursor: &str) -> Result<String, WrongCursor> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|name| String::from_utf8(name).ok());
    name.filter(|name| task_type_is_valid(name)).ok_or(WrongCursor::Garbage)
}

/// The workers that take a type.
#[derive(Debug, Clone, Copy, Default)]
struct TypeWorkers {
    /// Those that are not lost.
    count: u64,
    /// Since when there is none though work is ready.
    none_since: Option<DateTime<Utc>>,
}

/// What is known of a type.
#[derive(Default)]
struct Known {
    record: Option<TypeRecord>,
    counts: TypeCounts,
}

impl TaskService {
    /// A page of the types that the caller may see, by name: those behind `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn task_types(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskTypePage, Failure> {
        let (scope, until) = (&caller.scope, caller.deadline.at());
        let (tenant, start) = (&*scope.tenant, after.unwrap_or_default());
        let names = scope.task_types.as_deref();
        // One more of each than fits, which tells whether there is another page.
        let (records, counted) =
            tokio::try_join!(self.store.task_types(tenant, names, start, limit + 1, until), async {
                if let Some(names) = names {
                    return self.store.counts_of_types(tenant, names, until).await;
                }
                let limit = i64::try_from(limit + 1).unwrap_or(i64::MAX);
                self.store.counts_after(tenant, after, limit, until).await
            })?;
        let mut types: BTreeMap<String, Known> = BTreeMap::new();
        for record in records {
            let name = record.task_type.clone();
            types.entry(name).or_default().record = Some(record);
        }
        for counts in counted.types.into_iter().filter(|counts| counts.task_type.as_str() > start) {
            let name = counts.task_type.clone();
            types.entry(name).or_default().counts = counts;
        }
        let is_more = types.len() > limit;
        let page: Vec<_> = types.into_iter().take(limit).collect();
        let last = page.last().map(|(name, _)| URL_SAFE_NO_PAD.encode(name));
        let shown = stream::iter(page)
            .map(|(name, known)| async move { self.with_figures(caller, &name, known, counted.as_of).await })
            .buffered(PARALLEL_LOOKS);
        let task_types = shown.try_collect().await?;
        Ok(TaskTypePage { task_types, next_cursor: last.filter(|_| is_more), as_of: counted.as_of })
    }

    /// A type as answers show it. Without settings, pause and tasks there is no such type, unless `is_known` says that there
    /// is.
    pub(super) async fn shown(
        &self,
        caller: &Caller,
        task_type: &str,
        record: Option<TypeRecord>,
        is_known: bool,
    ) -> Result<TaskType, Failure> {
        let (names, until) = ([task_type.to_owned()], caller.deadline.at());
        let CountedTypes { types, as_of } =
            self.store.counts_of_types(&caller.scope.tenant, &names, until).await?;
        let counts = types.into_iter().next();
        let says = |record: &TypeRecord| record.settings.is_some() || record.pause.is_some();
        if !is_known && counts.is_none() && !record.as_ref().is_some_and(says) {
            return Err(Failure::no_task_type(task_type));
        }
        let known = Known { record, counts: counts.unwrap_or_default() };
        self.with_figures(caller, task_type, known, as_of).await
    }

    /// The workers that take a type, which has ready work or has none.
    #[allow(clippy::unused_async, reason = "workers are not noted yet")]
    async fn workers_of(
        &self,
        _caller: &Caller,
        _task_type: &str,
        _is_ready: bool,
    ) -> Result<TypeWorkers, Failure> {
        Ok(TypeWorkers::default())
    }

    async fn with_figures(
        &self,
        caller: &Caller,
        task_type: &str,
        known: Known,
        as_of: Option<DateTime<Utc>>,
    ) -> Result<TaskType, Failure> {
        let Known { record, counts } = known;
        let now = self.store.clock().now();
        let oldest = match counts.pending {
            0 => None,
            _ => self.store.oldest_ready(&caller.scope.tenant, task_type, caller.deadline.at()).await?,
        };
        let workers = self.workers_of(caller, task_type, counts.pending > 0).await?;
        let (settings, pause, version) =
            record.map_or((None, None, 0), |record| (record.settings, record.pause, record.version));
        let version = if settings.is_some() { version } else { 0 };
        let given = settings.map(|settings| settings.given).filter(|given| !given.is_empty());
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(TaskType {
            task_type: task_type.to_owned(),
            pending: count(counts.pending),
            scheduled: count(counts.scheduled),
            processing: count(counts.processing),
            failed: count(counts.failed),
            completed: count(counts.completed),
            cancelled: count(counts.cancelled),
            oldest_pending_seconds: oldest.map(|ready_at| count((now - ready_at).num_seconds())),
            created_last_hour: count(counts.last_hour.created),
            completed_last_hour: count(counts.last_hour.completed),
            failed_last_hour: count(counts.last_hour.failed),
            workers: workers.count,
            no_worker_since: workers.none_since,
            paused: pause.filter(|pause| pause.holds(now)).map(Into::into),
            settings: Json::known(given.unwrap_or_else(|| "{}".to_owned())),
            version,
            as_of,
        })
    }
}
