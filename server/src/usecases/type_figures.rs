//! How task types are shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use task_repo_protocol::{Json, TaskType, TaskTypePage, task_type_is_valid};

use super::failure::Failure;
use super::query::WrongCursor;
use super::service::TaskService;
use crate::access::Caller;
use crate::task_types::TypeRecord;

/// The name of the type at which a page ended.
///
/// # Errors
/// When `cursor` is none.
pub fn type_cursor(cursor: &str) -> Result<String, WrongCursor> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|name| String::from_utf8(name).ok());
    name.filter(|name| task_type_is_valid(name)).ok_or(WrongCursor::Garbage)
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
        let scope = &caller.scope;
        let (names, after) = (scope.task_types.as_deref(), after.unwrap_or_default());
        let found = self.store.task_types(&scope.tenant, names, after, limit + 1, caller.deadline.at());
        let mut records = found.await?;
        let is_more = records.len() > limit;
        records.truncate(limit);
        let last = records.last().map(|record| URL_SAFE_NO_PAD.encode(&record.task_type));
        let mut task_types = Vec::with_capacity(records.len());
        for record in records {
            let name = record.task_type.clone();
            task_types.push(TaskType { as_of: None, ..self.shown(caller, &name, Some(record)).await? });
        }
        let as_of = self.store.clock().now();
        Ok(TaskTypePage { task_types, next_cursor: last.filter(|_| is_more), as_of })
    }

    /// A type as answers show it.
    #[allow(clippy::unused_async, reason = "until the counts come")]
    pub(super) async fn shown(
        &self,
        _caller: &Caller,
        task_type: &str,
        record: Option<TypeRecord>,
    ) -> Result<TaskType, Failure> {
        let is_known =
            record.as_ref().is_some_and(|record| record.settings.is_some() || record.pause.is_some());
        if !is_known {
            return Err(Failure::no_task_type(task_type));
        }
        Ok(self.view(task_type, record.as_ref()))
    }

    /// The same, though there may be nothing to say of it.
    pub(super) fn view(&self, task_type: &str, record: Option<&TypeRecord>) -> TaskType {
        let now = self.store.clock().now();
        let (settings, pause) = record.map_or((None, None), |it| (it.settings.as_ref(), it.pause.as_ref()));
        let version = record.filter(|_| settings.is_some()).map_or(0, |record| record.version);
        let given = settings.map(|settings| settings.given.clone()).filter(|given| !given.is_empty());
        TaskType {
            task_type: task_type.to_owned(),
            pending: 0,
            scheduled: 0,
            processing: 0,
            failed: 0,
            completed: 0,
            cancelled: 0,
            oldest_pending_seconds: None,
            created_last_hour: 0,
            completed_last_hour: 0,
            failed_last_hour: 0,
            workers: 0,
            no_worker_since: None,
            paused: pause.filter(|pause| pause.holds(now)).map(|pause| pause.clone().into()),
            settings: Json::known(given.unwrap_or_else(|| "{}".to_owned())),
            version,
            as_of: Some(now),
        }
    }
}
