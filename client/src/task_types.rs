//! Task types: settings, pauses and figures. Every role reads them; changes take a key with the role `operator`.

use task_repo_protocol::{NewPause, TaskType, TaskTypePage, TaskTypeSettings, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// Task types.
impl TaskClient {
    /// A page of the task types that have settings or a pause, or have had a task in the last 30 days, by name: `limit`
    /// (1–1 000) at most.
    ///
    /// # Errors
    /// `forbidden`, `invalid_parameter`; see [`ClientError`](crate::ClientError).
    pub async fn list_task_types(&self, limit: u32, cursor: Option<&str>) -> Result<TaskTypePage> {
        let request = ApiRequest::get(path::TASK_TYPES).query("limit", limit.to_string());
        let request = cursor.into_iter().fold(request, |request, cursor| request.query("cursor", cursor));
        self.send(request).await?.json()
    }

    /// A task type: what holds for its tasks, and how it is doing.
    ///
    /// # Errors
    /// `task_type_not_found`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn get_task_type(&self, task_type: &str) -> Result<TaskType> {
        self.send(ApiRequest::get(path::TASK_TYPE).at(task_type)?).await?.json()
    }

    /// Replaces the settings of a task type. With `if_version` only where they are at that version; then it is not repeated
    /// once it may have been applied.
    ///
    /// # Errors
    /// `validation_failed`, `version_conflict`, `task_type_not_found` where there are no settings of any version,
    /// `limit_exceeded`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn set_task_type(
        &self,
        task_type: &str,
        settings: &TaskTypeSettings,
        if_version: Option<i64>,
    ) -> Result<TaskType> {
        let repeat = if if_version.is_some() { Repeat::Unapplied } else { Repeat::Always };
        let mut request = ApiRequest::put(path::TASK_TYPE, repeat).at(task_type)?.json(settings)?;
        if let Some(version) = if_version {
            request = request.header("if-match", &format!("\"{version}\""))?;
        }
        self.send(request).await?.json()
    }

    /// Removes the settings of a task type. A pause stays.
    ///
    /// # Errors
    /// `task_type_not_found` where there are none, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn delete_task_type(&self, task_type: &str) -> Result<()> {
        self.send(ApiRequest::delete(path::TASK_TYPE).at(task_type)?).await.map(drop)
    }

    /// Pauses a task type, known or not, in place of a pause that there is: claims get nothing of it, running work goes on,
    /// creates are taken.
    ///
    /// # Errors
    /// `validation_failed`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn pause_task_type(&self, task_type: &str, pause: &NewPause) -> Result<TaskType> {
        let request = ApiRequest::post(path::TASK_TYPE_PAUSE, Repeat::Always).at(task_type)?.json(pause)?;
        self.send(request).await?.json()
    }

    /// Ends the pause of a task type.
    ///
    /// # Errors
    /// `task_type_not_found`, `forbidden`; see [`ClientError`](crate::ClientError).
    pub async fn resume_task_type(&self, task_type: &str) -> Result<TaskType> {
        self.send(ApiRequest::post(path::TASK_TYPE_RESUME, Repeat::Always).at(task_type)?).await?.json()
    }
}
