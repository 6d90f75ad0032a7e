//! What workers log about their tasks.

use futures_util::stream::{self, Stream, TryStreamExt as _};
use task_repo_protocol::{LogLine, LogPage, NewLogLine, NewLogLines, Uuid, path};

use crate::client::TaskClient;
use crate::error::{ClientError, Result};
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// How many lines of a log are fetched at once.
const PAGE: u32 = 100;

/// Which lines of a log are asked for. By default all, ten a page.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ListLogs {
    attempt: Option<u32>,
    after: Option<u64>,
    limit: Option<u32>,
    cursor: Option<String>,
}

impl ListLogs {
    /// All lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those of this attempt.
    pub fn attempt(mut self, number: u32) -> Self {
        self.attempt = Some(number);
        self
    }

    /// Only those with a greater `seq`.
    pub fn after(mut self, seq: u64) -> Self {
        self.after = Some(seq);
        self
    }

    /// Most lines of a page, 1–100.
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

/// Logs.
impl TaskClient {
    /// Keeps lines that a worker has logged about a task, 1–100. The token of an attempt that has ended takes lines for a minute
    /// more.
    ///
    /// Not repeated once they may have been kept: they would stand there twice.
    ///
    /// # Errors
    /// `lease_lost`, `task_not_found`, `validation_failed`; see [`ClientError`].
    pub async fn log(&self, id: Uuid, lease_token: &str, lines: Vec<NewLogLine>) -> Result<()> {
        let body = NewLogLines { lease_token: lease_token.to_owned(), lines };
        let request =
            ApiRequest::post(path::TASK_LOGS, Repeat::Unapplied).at(&id.to_string())?.json(&body)?;
        self.send(request).await.map(drop)
    }

    /// A page of what was logged about a task, the oldest first.
    ///
    /// # Errors
    /// `task_not_found`, `invalid_parameter`; see [`ClientError`].
    pub async fn list_logs(&self, id: Uuid, asked: ListLogs) -> Result<LogPage> {
        let ListLogs { attempt, after, limit, cursor } = asked;
        let mut request = ApiRequest::get(path::TASK_LOGS).at(&id.to_string())?;
        let numbers = [
            ("attempt", attempt.map(|number| number.to_string())),
            ("after", after.map(|seq| seq.to_string())),
            ("limit", limit.map(|limit| limit.to_string())),
            ("cursor", cursor),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        self.send(request).await?.json()
    }

    /// All that is asked for of what was logged about a task, the oldest first, page by page.
    pub fn log_stream(
        &self,
        id: Uuid,
        asked: ListLogs,
    ) -> impl Stream<Item = std::result::Result<LogLine, ClientError>> + '_ {
        let first = asked.limit(PAGE);
        stream::try_unfold(Some(first), move |asked| async move {
            let Some(asked) = asked else { return Ok::<_, ClientError>(None) };
            let page = self.list_logs(id, asked.clone()).await?;
            let next = page.next_cursor.map(|cursor| asked.cursor(cursor));
            Ok(Some((stream::iter(page.lines.into_iter().map(Ok::<_, ClientError>)), next)))
        })
        .try_flatten()
    }
}
