//! Stored tasks that the server cannot read: listing, looking at and removing them. All of it takes a key with the role
//! `operator`.

use task_repo_protocol::{UnreadableTaskDetail, UnreadableTaskPage, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::request::ApiRequest;

/// Tasks that cannot be read.
impl TaskClient {
    /// A page of the stored tasks that the server cannot read, `limit` (1–100) at most. A page may be short, or empty, and
    /// still have a `next_cursor`: go on until that is `None`.
    ///
    /// # Errors
    /// `forbidden`, `invalid_parameter`; see [`ClientError`](crate::ClientError).
    pub async fn list_unreadable_tasks(
        &self,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<UnreadableTaskPage> {
        let request = ApiRequest::get(path::UNREADABLE_TASKS).query("limit", limit.to_string());
        let request = cursor.into_iter().fold(request, |request, cursor| request.query("cursor", cursor));
        self.send(request).await?.json()
    }

    /// One of them as it is stored, without secrets. `id` is as the list shows it.
    ///
    /// # Errors
    /// `task_not_found`, also where the server can read the task; `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn get_unreadable_task(&self, id: &str) -> Result<UnreadableTaskDetail> {
        self.send(ApiRequest::get(path::UNREADABLE_TASK).at(id)?).await?.json()
    }

    /// Removes one of them for good, with all that belongs to it.
    ///
    /// # Errors
    /// `task_not_found`, also where the server can read the task, or an earlier try has removed it; `forbidden`; see
    /// [`ClientError`](crate::ClientError).
    pub async fn delete_unreadable_task(&self, id: &str) -> Result<()> {
        self.send(ApiRequest::delete(path::UNREADABLE_TASK).at(id)?).await.map(drop)
    }
}
