//! The task that a create asks for, before it is written.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_protocol::{NewTask, Uuid};

use super::failure::Failure;
use crate::access::Scope;
use crate::store::new_stamp;
use crate::task::{Kept, LimitsRecord, Reason, RetryRecord, Status, TaskRecord, input_bytes};

/// A task to be created, or why it is none.
pub(super) type Draft = Result<Arc<TaskRecord>, Failure>;

/// The limits of the task that `new` asks for: its own, and where it names none those of its type at this moment.
pub(super) fn limits(new: &NewTask, of_type: LimitsRecord) -> LimitsRecord {
    LimitsRecord {
        max_attempts: whole(new.max_attempts).unwrap_or(of_type.max_attempts),
        retry: new.retry.map_or(of_type.retry, |policy| RetryRecord::from(policy).into()),
        lease_seconds: whole(new.lease_seconds).unwrap_or(of_type.lease_seconds),
        timeout_seconds: whole(new.timeout_seconds).unwrap_or(of_type.timeout_seconds),
        retention_seconds: match new.retention_seconds {
            None => of_type.retention_seconds,
            Some(retention) => whole(retention),
        },
    }
}

/// Seconds or a number that has been checked to be small enough.
fn whole(number: Option<i64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

/// The task that `new` asked for when it was `stored`, as it was then. Payloads keep the spelling they came with first:
/// `stored` has those that are the same still.
pub(super) fn draft_again(scope: &Scope, new: &NewTask, stored: &TaskRecord) -> Result<TaskRecord, Failure> {
    let limits = stored.idempotency_limits.clone().map_or_else(|| stored.limits(), Kept::into_part);
    let mut draft = draft(scope, new, stored.id, stored.created_at, limits)?;
    let payloads = [
        (&mut draft.request, &stored.request),
        (&mut draft.template, &stored.template),
        (&mut draft.metadata, &stored.metadata),
    ];
    for (now, then) in payloads {
        if let (Some(_), Some(first)) = (&now, then) {
            *now = Some(first.clone());
        }
    }
    Ok(draft)
}

/// The task that `new` asks for, created at `now` with these limits.
pub(super) fn draft(
    scope: &Scope,
    new: &NewTask,
    id: Uuid,
    now: DateTime<Utc>,
    limits: LimitsRecord,
) -> Result<TaskRecord, Failure> {
    let template = new.template.as_ref().and_then(|template| serde_json::to_string(template).ok());
    let request = new.request.as_ref().map(|json| json.as_str().to_owned());
    let metadata = new.metadata.as_ref().map(|json| json.as_str().to_owned());
    let input = input_bytes(request.as_ref(), template.as_ref(), metadata.as_ref());
    if input > MAX_TASK_BYTES {
        return Err(Failure::TooLarge);
    }
    if !scope.may_use(&new.task_type) {
        return Err(Failure::TypeForbidden(new.task_type.clone()));
    }
    let user_id = match (&scope.user, &new.user_id) {
        (Some(caller), Some(user)) if **caller != **user => return Err(Failure::UserForbidden),
        (caller, user) => caller.as_deref().or(user.as_deref()).map(str::to_owned),
    };
    let run_at = new.run_at.or_else(|| new.delay_seconds.map(|delay| now + TimeDelta::seconds(delay)));
    let future = run_at.filter(|time| *time > now);
    let mut task = TaskRecord {
        user_id,
        name: new.name.clone(),
        description: new.description.clone(),
        priority: new.priority.unwrap_or_default().get().into(),
        request,
        template,
        metadata,
        tags: new.tags.as_ref().map(TaskRecord::stored_tags).unwrap_or_default(),
        run_at,
        due_date: new.due_date,
        reminder_time: new.reminder_time,
        stamp: new_stamp(),
        input_bytes: u32::try_from(input).unwrap_or(u32::MAX),
        ..TaskRecord::new(id, scope.tenant.to_string(), new.task_type.clone(), now, limits)
    };
    if let Some(future) = future {
        task.status = Status::Scheduled;
        task.reason = Some(Reason::Delayed);
        task.ready_at = future;
    }
    task.note_creation();
    Ok(task)
}
