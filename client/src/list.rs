//! Lists of tasks, a page at a time or as a stream.

use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use task_repo_protocol::timestamp;
use task_repo_protocol::{DateTime, Status, Task, TaskPage, Utc, Uuid, path};

use crate::client::TaskClient;
use crate::error::{ClientError, Result};
use crate::request::ApiRequest;

/// Largest page that a list may ask for.
pub const MAX_PAGE: u32 = 100;

/// Which tasks to list. All that is said must hold; nothing said lists what is `pending`, in claim order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a query does nothing until it is given to a client"]
pub struct ListTasks {
    parameters: Vec<(&'static str, String)>,
}

impl ListTasks {
    /// The tasks that are `pending`, until more is said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also those in this status; the first one named replaces `pending`. All but `pending` alone come newest first.
    pub fn status(self, status: Status) -> Self {
        self.with("status", status.as_str())
    }

    /// Those in any status, newest first.
    pub fn any_status(self) -> Self {
        self.with("status", "any")
    }

    /// Also those of this type; without one, those of all types.
    pub fn task_type(self, task_type: impl Into<String>) -> Self {
        self.with("task_type", task_type)
    }

    /// Only those of this end user.
    pub fn user_id(self, user_id: impl Into<String>) -> Self {
        self.with("user_id", user_id)
    }

    /// Only those with this tag, too.
    pub fn tag(self, key: &str, value: &str) -> Self {
        self.with("tag", format!("{key}:{value}"))
    }

    /// Only those created after.
    pub fn created_after(self, time: DateTime<Utc>) -> Self {
        self.with("created_after", timestamp::format(&time))
    }

    /// Only those created before.
    pub fn created_before(self, time: DateTime<Utc>) -> Self {
        self.with("created_before", timestamp::format(&time))
    }

    /// Only tasks that became final after. With a time of the end, [`ListTasks::new`] lists those in any status.
    pub fn completed_after(self, time: DateTime<Utc>) -> Self {
        self.with("completed_after", timestamp::format(&time))
    }

    /// Only tasks that became final before. With a time of the end, [`ListTasks::new`] lists those in any status.
    pub fn completed_before(self, time: DateTime<Utc>) -> Self {
        self.with("completed_before", timestamp::format(&time))
    }

    /// Also the task with this id, 100 at most; without one, all. With ids, [`ListTasks::new`] lists those in any status.
    pub fn id(self, id: Uuid) -> Self {
        self.with("id", id.to_string())
    }

    /// How many tasks a page has at most: 1–100, default 10.
    pub fn limit(self, limit: u32) -> Self {
        self.only("limit", limit.to_string())
    }

    /// From there on: the `next_cursor` of a page of the same query.
    pub fn cursor(self, cursor: impl Into<String>) -> Self {
        self.only("cursor", cursor)
    }

    /// With `request` and `result`.
    pub fn with_payload(self) -> Self {
        self.only("include", "payload")
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    /// The same, in place of what was said before.
    fn only(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.retain(|(other, _)| *other != name);
        self.with(name, value)
    }

    fn request(&self) -> ApiRequest {
        self.parameters
            .iter()
            .fold(ApiRequest::get(path::TASKS), |request, (name, value)| request.query(name, value))
    }
}

/// Listing.
impl TaskClient {
    /// One page. It may be short, or empty, and still have a `next_cursor`: go on until that is `None`.
    ///
    /// # Errors
    /// `invalid_parameter`, also for a cursor of another query; see [`ClientError`].
    pub async fn list_tasks(&self, query: &ListTasks) -> Result<TaskPage> {
        self.send(query.request()).await?.json()
    }

    /// All tasks of a query, page after page, fetched as they are asked for, past pages that are empty. No task comes twice.
    ///
    /// Pages are as large as [`ListTasks::limit`] says; the largest are the fastest. Items are errors as those of
    /// [`TaskClient::list_tasks`]; the first one ends the stream.
    pub fn task_stream(&self, query: ListTasks) -> impl Stream<Item = Result<Task>> + Send + Unpin + use<> {
        let client = self.clone();
        stream::try_unfold(Some(query), move |query| {
            let client = client.clone();
            async move {
                let Some(query) = query else { return Ok::<_, ClientError>(None) };
                let page = client.list_tasks(&query).await?;
                let next = page.next_cursor.map(|cursor| query.cursor(cursor));
                Ok(Some((stream::iter(page.tasks.into_iter().map(Ok)), next)))
            }
        })
        .try_flatten()
        .boxed()
    }

    /// Up to `limit` tasks (1–100) that can be claimed now, in claim order, without their payload.
    ///
    /// To look, not to work: only a claim gives a task to one worker.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_pending_tasks(&self, task_type: Option<&str>, limit: u32) -> Result<Vec<Task>> {
        let query = ListTasks::new().limit(limit);
        let query = task_type.into_iter().fold(query, ListTasks::task_type);
        // A page may be short although there are more: on behalf of a user tasks of other types are passed by.
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        self.task_stream(query).take(most.max(1)).try_collect().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query_of(query: &ListTasks) -> String {
        let url = query.request().url("http://host").expect("a URL");
        url.query().unwrap_or_default().to_owned()
    }

    #[test]
    fn nothing_said_is_nothing_sent() {
        assert_eq!(query_of(&ListTasks::new()), "");
    }

    #[test]
    fn filters_add_up_and_a_cursor_moves_on() {
        let query = ListTasks::new()
            .status(Status::Failed)
            .status(Status::Cancelled)
            .task_type("a")
            .tag("run", "x:y")
            .limit(5)
            .limit(100)
            .with_payload()
            .cursor("one")
            .cursor("two");
        assert_eq!(
            query_of(&query),
            "status=failed&status=cancelled&task_type=a&tag=run%3Ax%3Ay&limit=100&include=payload&cursor=two"
        );
    }

    #[test]
    fn tasks_are_named_by_id_and_by_their_end() {
        let time = timestamp::parse("2030-01-31T10:00:00Z").expect("a time");
        let query =
            ListTasks::new().id(Uuid::nil()).id(Uuid::max()).completed_after(time).completed_before(time);
        let ids = format!("id={}&id={}", Uuid::nil(), Uuid::max());
        let time = "2030-01-31T10%3A00%3A00.000Z";
        assert_eq!(query_of(&query), format!("{ids}&completed_after={time}&completed_before={time}"));
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let time = timestamp::parse("2030-01-31T10:00:00+02:00").expect("a time");
        assert_eq!(
            query_of(&ListTasks::new().created_after(time)),
            "created_after=2030-01-31T08%3A00%3A00.000Z"
        );
    }
}
