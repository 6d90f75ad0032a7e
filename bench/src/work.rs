//! The tasks that are used, and filling a backlog with them.

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use task_repo_client::{Claim, ClaimedTask, Json, NewTask, NewTemplate, Payload, TaskClient, Uuid};

/// Tasks in one batch.
pub(crate) const BATCH: usize = 500;

/// The queue of scenarios that need but one.
pub(crate) const QUEUE: &str = "bench";

/// Characters of text in a usual task, the same as in the raw limits.
pub(crate) const TEXT_CHARS: usize = 66;

/// Batches on their way while a backlog is filled.
const MAX_BATCHES_IN_FLIGHT: usize = 3;

/// A task with `text` characters of payload.
pub(crate) fn task(task_type: &str, text: usize) -> Result<NewTask> {
    let parameters = Payload::Json(Json::of(&json!({ "model": "m" }))?);
    Ok(NewTask {
        request: Some(Json::of(&json!({ "content": { "text": "x".repeat(text) } }))?),
        template: Some(NewTemplate { service_type: Some("GENERATIVE".to_owned()), parameters }),
        ..NewTask::new(task_type)
    })
}

/// The result that a usual task is completed with: no two have the same.
pub(crate) fn result(task: Uuid) -> serde_json::Value {
    json!({ "text": format!("done {}", task.simple()) })
}

/// Completes a usual task.
pub(crate) async fn complete(claimed: ClaimedTask) -> Result<()> {
    let result = result(claimed.id());
    claimed.complete(&result).await?;
    Ok(())
}

/// A claim of up to `limit` tasks, for longer than any scenario holds one.
pub(crate) fn claim(task_type: &str, limit: u32) -> Claim {
    Claim {
        task_types: vec![task_type.to_owned()],
        limit: Some(limit),
        worker_id: "bench".to_owned(),
        lease_seconds: Some(300),
        ..Claim::default()
    }
}

/// Creates tasks in one call.
pub(crate) async fn create_all(client: &TaskClient, tasks: &[NewTask]) -> Result<()> {
    for created in client.create_tasks(tasks).await? {
        if let Err(problem) = created {
            bail!("a task was refused: {}", problem.detail);
        }
    }
    Ok(())
}

/// Creates `count` tasks, made by `make` from their numbers, a batch at a time.
pub(crate) async fn fill(
    client: &TaskClient,
    count: usize,
    make: impl Fn(usize) -> Result<NewTask>,
) -> Result<()> {
    let batches = (0..count).step_by(BATCH).map(|first| {
        let tasks: Result<Vec<_>> = (first..count.min(first + BATCH)).map(&make).collect();
        async { create_all(client, &tasks?).await }
    });
    stream::iter(batches).buffer_unordered(MAX_BATCHES_IN_FLIGHT).try_collect().await
}

/// Creates `count` usual tasks in one queue.
pub(crate) async fn fill_queue(client: &TaskClient, queue: &str, count: usize) -> Result<()> {
    let task = task(queue, TEXT_CHARS)?;
    fill(client, count, |_| Ok(task.clone())).await
}

/// Claims `count` tasks of [`QUEUE`], which holds as many.
pub(crate) async fn claim_all(client: &TaskClient, count: usize) -> Result<Vec<ClaimedTask>> {
    let mut claimed_tasks = Vec::with_capacity(count);
    while claimed_tasks.len() < count {
        let claimed = client.claim(&claim(QUEUE, u32::try_from(BATCH)?)).await?;
        if claimed.is_empty() {
            bail!("only {} of {count} tasks could be claimed", claimed_tasks.len());
        }
        claimed_tasks.extend(claimed);
    }
    Ok(claimed_tasks)
}
