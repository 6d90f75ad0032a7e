//! Tasks as their owners see them: create, read, list, change.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use chrono::TimeDelta;
use serde_json::Value;
use serde_json::value::RawValue;
use task_repo_protocol::claim::MAX_WAIT_MS;
use task_repo_protocol::page::{MAX_BATCH_BYTES, MAX_LISTED_IDS};
use task_repo_protocol::{
    BatchAnswer, BatchItem, Cancel, DateTime, Execute, ExecutionList, Json, MAX_DELAY_SECONDS, NewTask,
    Receipt, Role, Status, StatusChange, StatusReport, Tags, Task, TaskBatch, TaskEdit, TaskPage, Utc,
    Violation, key, path,
};
use task_repo_protocol::{SelfManagedStatus, task_type_is_valid};

use super::problems::{HandlerResult, Rejection};
use super::request::body::{parse, parse_item, read, violation};
use super::request::call::Call;
use super::request::expected::nearest;
use super::request::params::unfit;
use super::request::size::{MAX_BODY, at_most, fits};
use super::response::json;
use crate::task::TaskRecord;
use crate::task::view::{
    execution_list, status_report, view, view_alone, view_created, view_without_payload,
};
use crate::usecases::{Failure, ListQuery};

/// A whole task, with its version as `ETag`.
fn task_answer(status: u16, task: TaskRecord) -> HttpResponse {
    shown(status, &view_alone(task))
}

fn shown(status: u16, task: &Task) -> HttpResponse {
    let (id, tag) = (task.id, format!("\"{}\"", task.version));
    let mut response = json(status, task);
    let location = format!("{}/tasks/{id}", path::BASE);
    let headers = response.headers_mut();
    if let Ok(tag) = tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    if let (201, Ok(location)) = (status, location.parse()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Creates a task.
#[utoipa::path(post, path = "/api/v1/tasks", operation_id = "create_task", tag = "tasks",
    request_body = NewTask,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat for 24 h.",
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")),
    responses((status = 201, description = "The task",
        body = Task, headers(("Location" = String), ("ETag" = String)))))]
pub(super) async fn create(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let key = call.idempotency_key()?;
    let new = parse(&body).and_then(|new: NewTask| {
        is_near(&call, new.run_at, &["body".into()])?;
        Ok(new)
    });
    let new = new.map_err(|rejection| or_foreign_user(&call, &body, rejection))?;
    let key = call.bound(key, &body);
    let created = call.service().create(&call.caller, vec![new], key).await?;
    let task = created.tasks.into_iter().next().unwrap_or(Err(Failure::UserForbidden))?;
    Ok(replayed(shown(201, &view_created(task)), created.replayed.is_some()))
}

/// Refuses a time to run that is further ahead than a delay may be. It goes by the service's time, which is why no rule of the
/// form can say it.
fn is_near(call: &Call, run_at: Option<DateTime<Utc>>, place: &[Value]) -> Result<(), Rejection> {
    let latest = call.service().now() + TimeDelta::seconds(MAX_DELAY_SECONDS);
    if run_at.is_none_or(|run_at| run_at <= latest) {
        return Ok(());
    }
    let loc = place.iter().cloned().chain(["run_at".into()]).collect();
    let msg =
        format!("a time of at most {MAX_DELAY_SECONDS} seconds ahead is expected, as for delay_seconds");
    Err(Rejection::invalid(vec![Violation { loc, msg, kind: "value_error".to_owned() }]))
}

/// A task for another user is refused as that, whatever rule it breaks; only its size goes before.
fn or_foreign_user(call: &Call, body: &[u8], rejection: Rejection) -> Rejection {
    #[derive(serde::Deserialize)]
    struct Glance<'a> {
        #[serde(borrow)]
        user_id: Option<&'a RawValue>,
    }
    let user = serde_json::from_slice::<Glance<'_>>(body).ok().and_then(|glance| glance.user_id);
    let user = user.and_then(|json| serde_json::from_str::<String>(json.get()).ok());
    let is_foreign =
        user.is_some_and(|user| call.caller.scope.user.as_deref().is_some_and(|caller| *caller != *user));
    if is_foreign && rejection.is_invalid() { Failure::UserForbidden.into() } else { rejection }
}

fn replayed(mut response: HttpResponse, replayed: bool) -> HttpResponse {
    if replayed {
        let name = header::HeaderName::from_static(path::IDEMPOTENT_REPLAYED_HEADER);
        response.headers_mut().insert(name, header::HeaderValue::from_static("true"));
    }
    response
}

/// The problem of a batch's item.
fn in_batch(failure: Failure, index: usize) -> Rejection {
    match failure {
        Failure::RequestUnfit(misses) => {
            Rejection::invalid(misses).below(&["body".into(), "tasks".into(), index.into()])
        }
        failure => failure.into(),
    }
}

/// Creates up to 1000 tasks; a bad one does not stop the others.
#[utoipa::path(post, path = "/api/v1/tasks/batch", operation_id = "create_tasks", tag = "tasks",
    request_body = TaskBatch,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat for 24 h.",
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")),
    responses((status = 200, description = "For each item, in order, its task or its problem",
        body = BatchAnswer)))]
pub(super) async fn create_batch(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BATCH_BYTES).await?;
    call.no_params()?;
    let key = call.idempotency_key()?;
    let batch: TaskBatch = read(&body)?;
    at_most(batch.tasks.len(), "tasks")?;
    let mut problems = Vec::with_capacity(batch.tasks.len());
    let mut tasks = Vec::with_capacity(batch.tasks.len());
    for (index, item) in batch.tasks.iter().enumerate() {
        let task = parse_item(item, "tasks", index).and_then(|new: NewTask| {
            is_near(&call, new.run_at, &["body".into(), "tasks".into(), index.into()])?;
            Ok(new)
        });
        match task {
            Ok(task) => {
                tasks.push(task);
                problems.push(None);
            }
            Err(rejection) => {
                problems.push(Some(or_foreign_user(&call, item.as_str().as_bytes(), rejection)));
            }
        }
    }
    let key = call.bound(key, &body);
    let created = call.service().create(&call.caller, tasks, key).await?;
    // A repeat is the first answer again, down to the request its problems name.
    let request_id = created.replayed.clone().unwrap_or_else(|| call.request_id.clone());
    let mut results = created.tasks.into_iter();
    let results = problems
        .into_iter()
        .enumerate()
        .filter_map(|(index, problem)| match problem {
            Some(rejection) => Some(Err(rejection)),
            None => results.next().map(|result| result.map_err(|failure| in_batch(failure, index))),
        })
        .map(|result| match result {
            Ok(task) => BatchItem { task: Some(view_created(task)), problem: None },
            Err(rejection) => BatchItem { task: None, problem: Some(rejection.problem(&request_id)) },
        })
        .collect();
    Ok(replayed(json(200, &BatchAnswer { results }), created.replayed.is_some()))
}

/// Reads a task; with `wait_ms`, as soon as it is final or at the end of the wait.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}", operation_id = "get_task", tag = "tasks",
    params(("task_id" = String, Path, format = Uuid), ("wait_ms" = Option<u64>, Query, minimum = 0, maximum = 30000)),
    responses((status = 200, description = "The task", body = Task, headers(("ETag" = String)))))]
pub(super) async fn get(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let wait = params.number("wait_ms", 0..=MAX_WAIT_MS)?.unwrap_or(0);
    params.finish()?;
    let id = call.task_id()?;
    // A `HEAD` does not wait: it would not show what it waited for.
    let task = if wait == 0 || call.is_head() {
        call.service().get(&call.caller, id).await?
    } else {
        call.while_allowed(call.service().wait(&call.caller, id, Duration::from_millis(wait))).await?
    };
    let checkpoint = call.service().checkpoint(&call.caller, &task).await?;
    Ok(shown(200, &Task { checkpoint: checkpoint.map(Json::known).into(), ..view(task, false) }))
}

/// Reads where a task stands, without its payloads.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}/status", operation_id = "get_task_status", tag = "tasks",
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands", body = StatusReport)))]
pub(super) async fn status(call: Call) -> HandlerResult {
    call.no_params()?;
    let task = call.service().peek(&call.caller, call.task_id()?).await?;
    Ok(json(200, &status_report(task)))
}

/// Reads a task's attempts, newest first.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}/executions", operation_id = "list_task_executions", tag = "tasks",
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The latest attempts, newest first", body = ExecutionList)))]
pub(super) async fn executions(call: Call) -> HandlerResult {
    call.no_params()?;
    let task = call.service().peek(&call.caller, call.task_id()?).await?;
    Ok(json(200, &execution_list(task)))
}

/// Finds the newest task that produced a result.
#[utoipa::path(get, path = "/api/v1/tasks/by-result/{result_id}", operation_id = "find_task_by_result", tag = "tasks",
    params(("result_id" = String, Path)),
    responses((status = 200, description = "The newest task with this result",
        body = Task, headers(("ETag" = String)))))]
pub(super) async fn by_result(call: Call) -> HandlerResult {
    call.no_params()?;
    Ok(task_answer(200, call.service().by_result(&call.caller, &call.part("result_id")).await?))
}

/// Lists tasks: `pending` alone in claim order, anything else newest first.
#[utoipa::path(get, path = "/api/v1/tasks", operation_id = "list_tasks", tag = "tasks",
    params(
        ("status" = Option<Vec<String>>, Query, explode = true, 
            description = "A status, or `any`; default `pending`, with `id` or a time of the end `any`."),
        ("task_type" = Option<Vec<String>>, Query, explode = true),
        ("user_id" = Option<String>, Query),
        ("tag" = Option<Vec<String>>, Query, explode = true, description = "`key:value`; all must match."),
        ("created_after" = Option<String>, Query, format = DateTime),
        ("created_before" = Option<String>, Query, format = DateTime),
        ("completed_after" = Option<String>, Query, format = DateTime, description = "Final tasks only."),
        ("completed_before" = Option<String>, Query, format = DateTime, description = "Final tasks only."),
        ("id" = Option<Vec<String>>, Query, explode = true, description = "100 at most."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
        ("include" = Option<String>, Query, pattern = "^payload$"),
    ),
    responses((status = 200, description = "A page of tasks", body = TaskPage)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    let query = list_query(&call)?;
    let page = call.service().list(&call.caller, &query).await?;
    let show = if query.payload { view } else { view_without_payload };
    let tasks = page.tasks.into_iter().map(|task| show(task, false)).collect();
    let status = query.is_pending_by_default().then(|| vec![Status::Pending]);
    Ok(json(200, &TaskPage { tasks, next_cursor: page.next_cursor, status }))
}

fn unknown_status(text: &str) -> Rejection {
    let names = || Status::ALL.iter().map(Status::as_str).chain(["any"]);
    let near = nearest(text, names()).map_or_else(String::new, |name| format!("; did you mean {name}?"));
    let rule = format!("one of {} is expected{near}", names().collect::<Vec<_>>().join(", "));
    unfit("status", text, &rule, |one| names().any(|name| name == one))
}

fn list_query(call: &Call) -> Result<ListQuery, Rejection> {
    let mut params = call.params()?;
    let (mut statuses, mut any_status) = (Vec::new(), false);
    for name in params.many("status")? {
        match Status::parse(&name) {
            Some(status) => statuses.push(status),
            None if name == "any" => any_status = true,
            None => return Err(unknown_status(&name)),
        }
    }
    let task_types = params.many("task_type")?;
    if let Some(name) = task_types.iter().find(|name| !task_type_is_valid(name)) {
        let rule = "1 to 128 of A-Z a-z 0-9 . _ : - are expected";
        return Err(unfit("task_type", name, rule, task_type_is_valid));
    }
    let mut tags = Vec::new();
    for tag in params.many("tag")? {
        let (key, value) =
            tag.split_once(':').ok_or_else(|| Rejection::parameter("tag", "key:value is expected"))?;
        Tags::from([(key, value)]).check().map_err(|rule| Rejection::parameter("tag", &rule))?;
        tags.push(tag);
    }
    let user_id = params.one("user_id")?;
    if let Some(user) = &user_id {
        key::visible_ascii(user, 255).map_err(|rule| Rejection::parameter("user_id", &rule))?;
    }
    let created_after = params.time("created_after")?;
    let created_before = params.time("created_before")?;
    let completed_after = params.time("completed_after")?;
    let completed_before = params.time("completed_before")?;
    let ids = params.up_to(MAX_LISTED_IDS, "id")?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(10);
    let cursor = params.one("cursor")?;
    let payload = match params.one("include")?.as_deref() {
        None => false,
        Some("payload") => true,
        Some(_) => return Err(Rejection::parameter("include", "only 'payload' can be included")),
    };
    params.finish()?;
    let query = ListQuery {
        statuses,
        any_status,
        task_types,
        tags,
        user_id,
        created_after,
        created_before,
        completed_after,
        completed_before,
        ids,
        limit,
        cursor,
        payload,
    };
    query.check().map_err(|wrong| Rejection::parameter("cursor", &wrong.to_string()))?;
    Ok(query)
}

/// Changes the given fields of a task that nobody works on.
#[utoipa::path(put, path = "/api/v1/tasks/{task_id}", operation_id = "edit_task", tag = "tasks",
    request_body = TaskEdit,
    params(("task_id" = String, Path, format = Uuid),
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed, as in `ETag`.")),
    responses((status = 200, description = "The task as it is now", body = Task, headers(("ETag" = String)))))]
pub(super) async fn edit(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let if_match = call.if_match()?;
    let edit: TaskEdit = parse(&body)?;
    is_near(&call, edit.run_at.flatten(), &["body".into()])?;
    fits(edit.request.as_ref().and_then(Option::as_ref))?;
    let task = call.service().edit(&call.caller, call.task_id()?, edit, if_match).await?;
    Ok(task_answer(200, task))
}

/// Hides a task at once; it is kept for audit until its retention ends.
#[utoipa::path(delete, path = "/api/v1/tasks/{task_id}", operation_id = "delete_task", tag = "tasks",
    params(("task_id" = String, Path, format = Uuid), ("force" = Option<bool>, Query)),
    responses((status = 204, description = "The task is hidden; there is no body")))]
pub(super) async fn delete(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let force = params.flag("force")?;
    params.finish()?;
    call.service().delete(&call.caller, call.task_id()?, force).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Moves a task whose work the calling service runs itself.
#[utoipa::path(put, path = "/api/v1/tasks/{task_id}/status", operation_id = "set_task_status", tag = "tasks",
    request_body = StatusChange,
    params(("task_id" = String, Path, format = Uuid),
        ("If-Match" = Option<String>, Header, description = "The version that is to be moved, as in `ETag`.")),
    responses((status = 200, description = "The task as it is now", body = Task, headers(("ETag" = String)))))]
pub(super) async fn set_status(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let if_match = call.if_match()?;
    let change: StatusChange = parse(&body)?;
    fits(change.result.as_ref())?;
    let (begins, failed) =
        (change.status == SelfManagedStatus::Processing, change.status == SelfManagedStatus::Failed);
    let misplaced = [
        ("result", "completed or failed", begins && change.result.is_some()),
        ("result_id", "completed or failed", begins && change.result_id.is_some()),
        ("error_message", "failed", !failed && change.error_message.is_some()),
    ];
    if let Some((field, statuses, _)) = misplaced.iter().find(|(.., misplaced)| *misplaced) {
        let rule = format!("the field goes with the status {statuses} only");
        return Err(Rejection::invalid(violation(&[field], rule)));
    }
    let task = call.service().self_managed(&call.caller, call.task_id()?, change, if_match).await?;
    Ok(task_answer(200, task))
}

/// Asks for a cancellation or, with a lease token, acknowledges it.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/cancel", operation_id = "cancel_task", tag = "tasks",
    request_body(content = Option<Cancel>),
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands now", body = Receipt)))]
pub(super) async fn cancel(mut call: Call) -> HandlerResult {
    let body = call.optional_body(MAX_BODY).await?;
    // The role depends on the body, and goes before its form.
    let names_token = body.as_deref().and_then(|body| serde_json::from_slice::<serde_json::Value>(body).ok());
    let is_worker =
        names_token.is_some_and(|body| body.get("lease_token").is_some_and(|token| !token.is_null()));
    call.needs(if is_worker { &[Role::Worker] } else { &[Role::Producer, Role::Operator] })?;
    call.no_params()?;
    let cancel: Cancel = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    let id = call.task_id()?;
    let receipt = match cancel.lease_token {
        Some(token) => call.service().acknowledge_cancel(&call.caller, id, &token).await?,
        None => call.service().cancel(&call.caller, id).await?,
    };
    Ok(json(200, &receipt))
}

/// Makes a task ready now, or again, or at the time given, with new limits where the body has some.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/execute", operation_id = "execute_task", tag = "tasks",
    request_body(content = Option<Execute>),
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands now", body = Receipt)))]
pub(super) async fn execute(mut call: Call) -> HandlerResult {
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    let with: Execute = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    is_near(&call, with.run_at, &["body".into()])?;
    Ok(json(200, &call.service().execute(&call.caller, call.task_id()?, with).await?))
}
