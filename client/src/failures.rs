//! Which failures there were.

use task_repo_protocol::{DateTime, FailurePage, Utc, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::request::ApiRequest;

/// Which failures are asked for. By default those of the last day, of all task types, ten groups a page.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ListFailures {
    since: Option<DateTime<Utc>>,
    task_types: Vec<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl ListFailures {
    /// Those of the last day, of all task types.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the beginning of that hour on, 31 days ago at most.
    pub fn since(mut self, since: DateTime<Utc>) -> Self {
        self.since = Some(since);
        self
    }

    /// Only of this type; called again, of that one too.
    pub fn task_type(mut self, name: impl Into<String>) -> Self {
        self.task_types.push(name.into());
        self
    }

    /// Most groups of a page, 1–100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The page behind one whose `next_cursor` this is.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }
}

/// Failures.
impl TaskClient {
    /// A page of the attempts that failed, timed out or were lost, by task type, code and reason, the most frequent first.
    ///
    /// # Errors
    /// `forbidden`, `invalid_parameter`; see [`ClientError`](crate::ClientError).
    pub async fn list_failures(&self, asked: ListFailures) -> Result<FailurePage> {
        let ListFailures { since, task_types, limit, cursor } = asked;
        let mut request = ApiRequest::get(path::FAILURES);
        if let Some(since) = since {
            request = request.query("since", since.to_rfc3339());
        }
        for name in task_types {
            request = request.query("task_type", name);
        }
        if let Some(limit) = limit {
            request = request.query("limit", limit.to_string());
        }
        if let Some(cursor) = cursor {
            request = request.query("cursor", cursor);
        }
        self.send(request).await?.json()
    }
}
