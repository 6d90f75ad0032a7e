//! Opening the stream of a task.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand::RngExt as _;
use task_repo_protocol::{Json, StreamEventType, StreamMessage, TaskSnapshot, Uuid};

use super::history::{end_of, moves_after};
use super::message::{Audience, Message, in_one_line, messages};
use super::outbox::Next;
use super::registry::{OpenStream, Registered};
use super::service::Streams;
use super::watcher::event;
use crate::access::Caller;
use crate::access::Scope;
use crate::store::TaskQuery;
use crate::task::{AttemptStatus, Status, TaskRecord};
use crate::usecases::failure::Failure;

/// The open stream of a task, until it is dropped.
#[derive(Debug)]
pub struct TaskStream {
    registered: Registered,
    _open: OpenStream,
}

impl TaskStream {
    /// The next thing to be sent.
    pub async fn next(&mut self) -> Next {
        self.registered.watcher.next().await
    }
}

impl Streams {
    /// Opens the stream of a task: from where it stands, or behind the last message that the watcher has had. `None`: that
    /// was the final one.
    ///
    /// # Errors
    /// When there is no such task, or too many streams are open.
    pub async fn watch(
        self: &Arc<Self>,
        caller: &Caller,
        id: Uuid,
        last_event_id: Option<&str>,
    ) -> Result<Option<TaskStream>, Failure> {
        self.open.check()?;
        let until = caller.deadline.at();
        let registered = self.tasks.add(id);
        self.follow_log(until).await?;
        let mut task = self.read(&caller.scope, id, false, until).await?;
        let is_completed = |attempt: &crate::task::Kept<crate::task::AttemptRecord>| {
            attempt.status == AttemptStatus::Completed
        };
        if task.status == Status::Completed
            || (last_event_id.is_some() && task.attempts.iter().any(is_completed))
        {
            task = self.read(&caller.scope, id, true, until).await?;
        }
        let had = last_event_id.and_then(number).filter(|had| *had <= task.version);
        let end = end_of(&task);
        if let (Some(had), Some(end)) = (had, &end)
            && end.version <= had
        {
            return Ok(None);
        }
        let open = self.open.open(&caller.scope.tenant)?;
        let mut first = format!("retry: {}\n\n", rand::rng().random_range(500..=2000)).into_bytes();
        if had.is_none() {
            // Of a final task the final message, which has the same version, follows.
            first.extend(snapshot(&task, end.is_none()));
        }
        let mut moves = had.map(|had| moves_after(&task, had, false)).unwrap_or_default();
        if let Some(end) = end.clone() {
            moves.retain(|it| it.version < end.version);
            moves.push(end);
        }
        // Only the latest completion has left its result.
        let latest = moves.iter().rposition(|it| it.to == Status::Completed);
        let told = moves.iter().enumerate().flat_map(|(place, it)| {
            let result = task.result.as_deref().filter(|_| latest == Some(place));
            messages(it, Audience::OfTask(result))
        });
        let told: Vec<Message> = told.collect();
        registered.watcher.begin(&task, first.into(), &told, end.is_some());
        Ok(Some(TaskStream { registered, _open: open }))
    }

    async fn read(
        &self,
        scope: &Scope,
        id: Uuid,
        payload: bool,
        until: Instant,
    ) -> Result<TaskRecord, Failure> {
        let wanted = [TaskQuery { scope: scope.clone(), id }];
        let found = self.store.get(&wanted, payload, until).await?.pop().unwrap_or(Ok(None))?;
        found.ok_or_else(|| Failure::TaskNotFound(id.to_string()))
    }
}

/// A version. What is no number counts as absent.
fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn snapshot(task: &TaskRecord, with_id: bool) -> Bytes {
    let progress = task.progress.clone().map(|progress| progress.into_part().into());
    let data = TaskSnapshot {
        id: task.id,
        status: task.status.into(),
        reason: task.reason.map(Into::into),
        attempt: task.attempt,
        progress,
        result_id: task.result_id.clone(),
        error: task.error.clone().map(|error| error.into_part().into()),
        updated_at: task.updated_at,
        cancel_requested_at: task.cancel_requested_at,
    };
    let message = StreamMessage {
        event_type: StreamEventType::TaskSnapshot,
        task_id: task.id,
        task_type: task.task_type.clone(),
        seq: task.version.unsigned_abs(),
        timestamp: task.updated_at,
        data: Json::known(serde_json::to_string(&data).unwrap_or_default()),
    };
    let id = task.version.to_string();
    event(with_id.then_some(&id), &in_one_line(&message))
}
