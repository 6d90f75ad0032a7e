//! Creating tasks, looking at them, changing them.

use std::time::{Duration, Instant};

use task_repo_protocol::claim::MAX_WAIT_MS;
use task_repo_protocol::{
    BatchAnswer, BatchItem, Execute, Execution, ExecutionList, Json, NewTask, Problem, Receipt, StatusChange,
    StatusReport, Task, TaskBatch, TaskEdit, Uuid, path,
};

use crate::client::TaskClient;
use crate::error::{ClientError, Result};
use crate::request::ApiRequest;
use crate::retry::{Repeat, endless_pauses};
use crate::waits::{FIRST_LOOK, WatchedWait};

/// How long the service lets one look at a task wait.
const MAX_POLL: Duration = Duration::from_millis(MAX_WAIT_MS);
/// How long a caller pauses at least after a look that was answered long before its time.
const EARLY_ANSWER_PAUSE: Duration = Duration::from_millis(150);

/// What a create with an idempotency key brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Created<T> {
    /// What was created.
    pub value: T,
    /// Whether it had been created before, by a call with the same key.
    pub replayed: bool,
}

/// What became of the tasks of a batch, in order.
pub type BatchResults = Vec<Result<Task, Box<Problem>>>;

/// Creating.
impl TaskClient {
    /// Creates a task. Repetitions carry an idempotency key of the client's making, so there is one task at most.
    ///
    /// # Errors
    /// `validation_failed`, `payload_too_large`, `forbidden`; see [`ClientError`] for those that any call may have.
    pub async fn create_task(&self, task: &NewTask) -> Result<Task> {
        Ok(self.create_task_with_key(task, &new_idempotency_key()).await?.value)
    }

    /// Creates a task, once for all calls with this key: the service remembers it for 24 h.
    ///
    /// `idempotency_key` is 1–255 visible ASCII characters.
    ///
    /// # Errors
    /// As [`TaskClient::create_task`], and `idempotency_key_reused` when the key came with another task before.
    pub async fn create_task_with_key(&self, task: &NewTask, idempotency_key: &str) -> Result<Created<Task>> {
        let request = ApiRequest::post(path::TASKS, Repeat::Always)
            .header(path::IDEMPOTENCY_KEY_HEADER, idempotency_key)?
            .json(task)?;
        let response = self.send(request).await?;
        Ok(Created { value: response.json()?, replayed: response.is_replayed() })
    }

    /// Creates up to 1000 tasks in one call. One that is refused does not stop the others.
    ///
    /// # Errors
    /// `payload_too_large` beyond 16 MiB; see [`ClientError`].
    pub async fn create_tasks(&self, tasks: &[NewTask]) -> Result<BatchResults> {
        Ok(self.create_tasks_with_key(tasks, &new_idempotency_key()).await?.value)
    }

    /// Creates up to 1000 tasks, once for all calls with this key.
    ///
    /// # Errors
    /// As [`TaskClient::create_tasks`], and `idempotency_key_reused` when the key came with other tasks before.
    pub async fn create_tasks_with_key(
        &self,
        tasks: &[NewTask],
        idempotency_key: &str,
    ) -> Result<Created<BatchResults>> {
        let tasks = tasks.iter().map(Json::of).collect::<Result<_, _>>().map_err(ClientError::Encode)?;
        let request = ApiRequest::post(path::TASKS_BATCH, Repeat::Always)
            .header(path::IDEMPOTENCY_KEY_HEADER, idempotency_key)?
            .json(&TaskBatch { tasks })?;
        let response = self.send(request).await?;
        let results = response
            .json::<BatchAnswer>()?
            .results
            .into_iter()
            .map(task_or_problem)
            .collect::<Result<_>>()?;
        Ok(Created { value: results, replayed: response.is_replayed() })
    }
}

/// Looking.
impl TaskClient {
    /// The task as it stands.
    ///
    /// # Errors
    /// `task_not_found`; see [`ClientError`].
    pub async fn get_task(&self, id: Uuid) -> Result<Task> {
        self.send(ApiRequest::get(path::TASK).at(&id.to_string())?).await?.json()
    }

    /// The task as soon as it is final, or as it stands when `wait` has passed. Any length will do.
    ///
    /// # Errors
    /// `task_not_found`, also when it is deleted meanwhile; see [`ClientError`].
    pub async fn wait_for_task(&self, id: Uuid, wait: Duration) -> Result<Task> {
        let begun = Instant::now();
        let watched = self.waits.as_deref().map(WatchedWait::begin);
        let mut early_answer_pauses = endless_pauses(EARLY_ANSWER_PAUSE, EARLY_ANSWER_PAUSE);
        let mut longest = watched.as_ref().map_or(MAX_POLL, |_| FIRST_LOOK);
        loop {
            let rest = wait.saturating_sub(begun.elapsed());
            let poll = rest.min(longest);
            let request = ApiRequest::get(path::TASK)
                .at(&id.to_string())?
                .query("wait_ms", poll.as_millis().to_string())
                .waiting(poll);
            let asked = Instant::now();
            let task: Task = self.send(request).await?.json()?;
            if task.status.is_final() || begun.elapsed() >= wait {
                return Ok(task);
            }
            if let Some(watched) = &watched {
                watched.goes_on(&task);
            }
            longest = MAX_POLL;
            // A server that is stopping answers early, and all who wait at once. Without this pause they would ask in a
            // busy loop, and with the same for all they would come back together.
            if asked.elapsed() < poll / 2 {
                tokio::time::sleep(early_answer_pauses.next().unwrap_or(EARLY_ANSWER_PAUSE)).await;
            }
        }
    }

    /// Where the task stands, without its payload.
    ///
    /// # Errors
    /// `task_not_found`; see [`ClientError`].
    pub async fn get_task_status(&self, id: Uuid) -> Result<StatusReport> {
        self.send(ApiRequest::get(path::TASK_STATUS).at(&id.to_string())?).await?.json()
    }

    /// The task's attempts, newest first.
    ///
    /// # Errors
    /// `task_not_found`; see [`ClientError`].
    pub async fn get_executions(&self, id: Uuid) -> Result<Vec<Execution>> {
        let request = ApiRequest::get(path::TASK_EXECUTIONS).at(&id.to_string())?;
        Ok(self.send(request).await?.json::<ExecutionList>()?.executions)
    }

    /// The newest task that produced the result of that id.
    ///
    /// # Errors
    /// `task_not_found`; `InvalidArgument` for `.` and `..`, which no path can carry; see [`ClientError`].
    pub async fn get_task_by_result(&self, result_id: &str) -> Result<Task> {
        self.send(ApiRequest::get(path::TASKS_BY_RESULT).at(result_id)?).await?.json()
    }
}

/// Changing.
impl TaskClient {
    /// Changes fields of a task that is `pending` or `scheduled`. Of two edits, the one that arrives later wins.
    ///
    /// # Errors
    /// `invalid_transition` in other statuses, `validation_failed`, `task_not_found`; see [`ClientError`].
    pub async fn edit_task(&self, id: Uuid, edit: &TaskEdit) -> Result<Task> {
        let request = ApiRequest::put(path::TASK, Repeat::Always).at(&id.to_string())?.json(edit)?;
        self.send(request).await?.json()
    }

    /// The same, only if the task still has this version.
    ///
    /// Not repeated once it may have been applied: its own success would look like somebody else's edit.
    ///
    /// # Errors
    /// As [`TaskClient::edit_task`], and `version_conflict`.
    pub async fn edit_task_if(&self, id: Uuid, edit: &TaskEdit, version: u64) -> Result<Task> {
        let request = ApiRequest::put(path::TASK, Repeat::Unapplied)
            .at(&id.to_string())?
            .header("if-match", &format!("\"{version}\""))?
            .json(edit)?;
        self.send(request).await?.json()
    }

    /// Reports on work that a service runs itself, without a lease. Not repeated once it may have been applied.
    ///
    /// # Errors
    /// `invalid_transition`, also for a task under a worker's lease; `task_not_found`; see [`ClientError`].
    pub async fn set_task_status(&self, id: Uuid, change: &StatusChange) -> Result<Task> {
        let request =
            ApiRequest::put(path::TASK_STATUS, Repeat::Unapplied).at(&id.to_string())?.json(change)?;
        self.send(request).await?.json()
    }

    /// Cancels a task that waits; of one that is worked on, asks for it: the worker is told and acknowledges.
    ///
    /// # Errors
    /// `invalid_transition` when the task is final, `task_not_found`; see [`ClientError`].
    pub async fn cancel_task(&self, id: Uuid) -> Result<Receipt> {
        self.send(ApiRequest::post(path::TASK_CANCEL, Repeat::Always).at(&id.to_string())?).await?.json()
    }

    /// Makes a `scheduled` task ready now, or a final one ready once more, with fresh attempts.
    ///
    /// Not repeated once it may have been applied: a quick worker may have finished it by then, and it would run twice.
    ///
    /// # Errors
    /// `invalid_transition` for `pending` and `processing`, `task_not_found`; see [`ClientError`].
    pub async fn execute_task(&self, id: Uuid) -> Result<Receipt> {
        self.send(ApiRequest::post(path::TASK_EXECUTE, Repeat::Unapplied).at(&id.to_string())?).await?.json()
    }

    /// The same with new limits, which are there before anybody claims the task; with a time ahead it is ready only then.
    ///
    /// # Errors
    /// As [`TaskClient::execute_task`], and `validation_failed`.
    pub async fn execute_task_with(&self, id: Uuid, execute: &Execute) -> Result<Receipt> {
        let request =
            ApiRequest::post(path::TASK_EXECUTE, Repeat::Unapplied).at(&id.to_string())?.json(execute)?;
        self.send(request).await?.json()
    }

    /// Deletes a task that nobody works on.
    ///
    /// # Errors
    /// `invalid_transition` while it is `processing`, `task_not_found`; see [`ClientError`].
    pub async fn delete_task(&self, id: Uuid) -> Result<()> {
        self.send(ApiRequest::delete(path::TASK).at(&id.to_string())?).await.map(drop)
    }

    /// Deletes a task even if somebody works on it: the worker's lease is revoked.
    ///
    /// # Errors
    /// `task_not_found`; see [`ClientError`].
    pub async fn delete_task_by_force(&self, id: Uuid) -> Result<()> {
        let request = ApiRequest::delete(path::TASK).at(&id.to_string())?.query("force", "true");
        self.send(request).await.map(drop)
    }
}

fn new_idempotency_key() -> String {
    Uuid::now_v7().to_string()
}

/// The task or the problem of a batch item.
fn task_or_problem(item: BatchItem) -> Result<Result<Task, Box<Problem>>> {
    match (item.task, item.problem) {
        (Some(task), _) => Ok(Ok(task)),
        (None, Some(problem)) => Ok(Err(Box::new(problem))),
        (None, None) => Err(ClientError::incomplete_item(path::TASKS_BATCH, "task", "problem")),
    }
}
