//! What a refused caller can do instead, in words.

use task_repo_protocol::{Status, Uuid, path};

use crate::lifecycle::Verb;

/// The call that ends in that word, on one task.
fn call(verb: &str) -> String {
    format!("POST {}/tasks/{{task_id}}/{verb}", path::BASE)
}

/// That a limit is reached, and what makes room.
pub(super) fn limit_exceeded(limit_type: &str, limit: u64, current: u64) -> String {
    let what = match limit_type {
        "task_types" => "task types have settings, or are paused: DELETE or resume some",
        "streams" => "streams of the tenant are open on this server: close some, or ask for them later",
        "max_pending" => "tasks of this type are ready or scheduled: create more when some are done",
        _ => "there are already",
    };
    format!("the limit {limit_type} is {limit}, and {current} {what}")
}

/// Why a task of that status refuses the verb, and which verb its caller may have wanted.
pub(super) fn forbidden(verb: Verb, status: Status) -> String {
    let (cancel, execute) = (call("cancel"), call("execute"));
    let is = if status.is_final() {
        format!("the task is {status}, which is final")
    } else {
        format!("the task is {status}")
    };
    match verb {
        Verb::Edit if status.is_final() => {
            format!("{is}: {execute} makes it ready again, with new limits where its body has some")
        }
        Verb::Edit => {
            format!(
                "{is}: only a task that is pending or scheduled can be changed; {cancel} asks its worker to stop"
            )
        }
        Verb::Delete => format!(
            "{is}: DELETE with ?force=true removes it and revokes its worker's lease; {cancel} asks the worker to stop"
        ),
        Verb::Cancel => format!("{is}: there is nothing left to cancel; DELETE removes the task"),
        Verb::Execute if status == Status::Pending => {
            format!("{is}, so it is already ready: the next claim of its task type may take it")
        }
        Verb::Execute => {
            format!("{is}: {cancel} asks its worker to stop; once it has ended, execute makes it ready again")
        }
        Verb::Begin | Verb::End if status == Status::Processing => format!(
            "{is} under a worker's lease, or was begun before: who holds the lease settles it with {} or {}",
            call("complete"),
            call("fail")
        ),
        Verb::Begin | Verb::End if status.is_final() => format!("{is}: {execute} makes it ready again"),
        Verb::Begin => format!("{is}: only a pending task can begin; {execute} makes it ready now"),
        Verb::End => format!("{is}: it must begin first, by the status processing"),
        _ => format!("{is}, which does not allow {}", verb.as_str()),
    }
}

/// Why a task of that status cannot be claimed, and what can be done.
pub(super) fn not_claimable(status: Status) -> String {
    let execute = call("execute");
    match status {
        Status::Processing => format!(
            "the task is processing: another claim holds it; POST {}{} takes the next task that is ready",
            path::BASE,
            path::TASKS_CLAIM
        ),
        Status::Scheduled => {
            format!(
                "the task is scheduled: it cannot be claimed before its run_at; {execute} makes it ready now"
            )
        }
        status if status.is_final() => {
            format!("the task is {status}, which is final: {execute} makes it ready again")
        }
        status => format!("the task is {status}; only a pending task can be claimed"),
    }
}

/// What to do with a token that does not hold its task.
pub(super) fn lease_lost(status: Status, attempt: u32) -> String {
    let next = match status {
        Status::Processing => {
            "drop this work: another attempt goes on, or the token is not the one from its claim"
        }
        Status::Pending | Status::Scheduled => "nobody holds it: whoever wants to work on it claims it again",
        status if status.is_final() => "it is settled, and another report changes nothing",
        _ => "drop this work",
    };
    format!("the lease token does not hold the task, which is {status} in attempt {attempt}: {next}")
}

/// That there is no task of that id, or that it is no id.
pub(super) fn no_task(id: &str) -> String {
    match Uuid::try_parse(id) {
        Ok(_) => format!("there is no task {id}"),
        Err(_) => format!("there is no task {id}: the id of a task is a UUID"),
    }
}
