//! How a task looks from outside: as answers show it.

use task_repo_protocol::{
    Execution, ExecutionList, Json, Lease, Payload, Priority, StatusReport, Tags, Task, Template, Uuid, path,
};

use super::token::seen_from_outside;
use super::{AttemptRecord, AttemptStatus, Kept, TaskRecord};

/// The whole task. Only the answer to a claim shows the lease's token.
pub fn view(mut task: TaskRecord, with_token: bool) -> Task {
    let (request, result) = (task.request.take(), task.result.take());
    Task {
        request: request.map(Json::known).into(),
        result: result.map(Json::known).into(),
        ..view_without_payload(task, with_token)
    }
}

/// The whole task as the answer to its creation shows it.
pub fn view_created(task: TaskRecord) -> Task {
    let stream_url =
        format!("{}{}", path::BASE, path::TASK_STREAM.replace("{task_id}", &task.id.to_string()));
    Task { stream_url: Some(stream_url), ..view_alone(task) }
}

/// The whole task as an answer shows it that is about it alone. Where it has a checkpoint, only `GET` reads that.
pub fn view_alone(task: TaskRecord) -> Task {
    let has_one = task.has_checkpoint && !task.status.is_final();
    let checkpoint = if has_one { Payload::Omitted } else { Payload::Null };
    Task { checkpoint, ..view(task, false) }
}

/// The whole task, whose payloads it takes along: they may be large.
pub(crate) fn view_and_strip(task: &mut TaskRecord, with_token: bool) -> Task {
    let payload = task.take_payload();
    let mut whole = task.clone();
    whole.put_payload(payload);
    view(whole, with_token)
}

/// The task as lists show it.
pub fn view_without_payload(task: TaskRecord, with_token: bool) -> Task {
    let expires_at = task.lease_until;
    let lease = task.lease.zip(expires_at).map(|(lease, expires_at)| Lease {
        token: with_token.then(|| seen_from_outside(task.id, lease.token).to_string()),
        worker_id: lease.into_part().worker_id,
        expires_at,
    });
    Task {
        id: task.id,
        tenant_id: task.tenant,
        user_id: task.user_id,
        task_type: task.task_type,
        name: task.name,
        description: task.description,
        status: task.status.into(),
        reason: task.reason.map(Into::into),
        priority: Priority::new(task.priority.into()).unwrap_or_default(),
        request: Payload::Omitted,
        template: task.template.and_then(|text| serde_json::from_str::<Template>(&text).ok()),
        metadata: Json::known(task.metadata.unwrap_or_else(|| "{}".to_owned())),
        tags: Tags(
            task.tags
                .iter()
                .filter_map(|tag| tag.split_once(':'))
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        ),
        attempt: task.attempt,
        max_attempts: task.max_attempts,
        losses: task.losses,
        releases: task.releases,
        retry: Some(task.retry.into_part().into()),
        lease_seconds: Some(task.lease_seconds),
        timeout_seconds: Some(task.timeout_seconds),
        retention_seconds: task.retention_seconds,
        run_at: task.run_at,
        due_date: task.due_date,
        reminder_time: task.reminder_time,
        lease,
        progress: task.progress.map(|progress| progress.into_part().into()),
        checkpoint: Payload::Omitted,
        cancel_requested_at: task.cancel_requested_at,
        result: Payload::Omitted,
        result_id: task.result_id,
        error: task.error.map(|error| error.into_part().into()),
        usage: task.usage.into_part().into(),
        created_at: task.created_at,
        updated_at: task.updated_at,
        started_at: task.started_at,
        completed_at: task.completed_at,
        version: task.version.unsigned_abs(),
        stream_url: None,
    }
}

/// The answer of `GET /tasks/{id}/status`.
pub fn status_report(task: TaskRecord) -> StatusReport {
    StatusReport {
        id: task.id,
        status: task.status.into(),
        reason: task.reason.map(Into::into),
        attempt: task.attempt,
        progress: task.progress.map(|progress| progress.into_part().into()),
        result_id: task.result_id,
        error: task.error.map(|error| error.into_part().into()),
        updated_at: task.updated_at,
    }
}

/// The answer of `GET /tasks/{id}/executions`.
pub fn execution_list(task: TaskRecord) -> ExecutionList {
    let id = task.id;
    ExecutionList {
        executions: task
            .attempts
            .into_iter()
            .rev()
            .map(Kept::into_part)
            // One that was undone is no execution.
            .filter(|attempt| attempt.status != AttemptStatus::Withdrawn)
            .take(TaskRecord::MAX_HISTORY)
            .map(|attempt| execution(id, attempt))
            .collect(),
    }
}

fn execution(task: Uuid, attempt: AttemptRecord) -> Execution {
    let duration =
        attempt.ended_at.map(|end| (end - attempt.started_at).num_milliseconds().max(0).unsigned_abs());
    Execution {
        execution_id: seen_from_outside(task, attempt.id),
        attempt: attempt.number,
        worker_id: attempt.worker_id,
        trigger: attempt.trigger.into(),
        status: attempt.status.into(),
        started_at: attempt.started_at,
        completed_at: attempt.ended_at,
        duration_ms: duration,
        result_id: attempt.result_id,
        error: attempt.error.map(|error| error.into_part().into()),
        truncated: attempt.truncated,
        usage: attempt.usage.unwrap_or_default().into_part().into(),
    }
}
