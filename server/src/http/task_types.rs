//! Task types: what holds for their tasks, and pauses. Not for calls on behalf of a user.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::header;
use serde_json::Value;
use serde_json::value::RawValue;
use task_repo_protocol::{
    NewPause, Resume, TaskType, TaskTypePage, TaskTypeSettings, Violation, task_type_is_valid,
};

use super::problems::{HandlerResult, Rejection};
use super::request::body::{parse, violation};
use super::request::call::Call;
use super::request::size::MAX_BODY;
use super::response::json;
use crate::json_schema::SchemaFault;
use crate::usecases::{IfMatch, type_cursor};

/// The only setting that may be `null`: for ever.
const MAY_BE_NULL: &str = "retention_seconds";

/// A task type, with the version of its settings as `ETag`.
fn answer(shown: &TaskType) -> HttpResponse {
    let mut response = json(200, shown);
    if let Ok(tag) = format!("\"{}\"", shown.version).parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Refuses the name of a type that cannot be one, where the call may make one.
fn is_a_name(name: &str) -> Result<(), Rejection> {
    if task_type_is_valid(name) {
        return Ok(());
    }
    let loc = vec![Value::from("path"), Value::from("task_type")];
    let msg = "1 to 128 of A-Z a-z 0-9 . _ : - are expected".to_owned();
    Err(Rejection::invalid(vec![Violation { loc, msg, kind: "value_error".to_owned() }]))
}

/// The settings as they were given, without members that are `null` and mean nothing.
fn given(body: &[u8]) -> String {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let is_said =
        |(name, value): &(&String, &&RawValue)| value.get() != "null" || name.as_str() == MAY_BE_NULL;
    let said: BTreeMap<_, _> = members.iter().filter(is_said).collect();
    serde_json::to_string(&said).unwrap_or_default()
}

/// Lists task types by name: those that have settings or a pause, or have had a task in the last 30 days.
#[utoipa::path(get, path = "/api/v1/task-types", operation_id = "list_task_types", tag = "task types",
    params(("limit" = Option<u64>, Query, minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "A page of task types", body = TaskTypePage)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    call.for_no_user()?;
    let mut params = call.params()?;
    let limit = params.number("limit", 1..=1000)?.unwrap_or(100);
    let cursor = params.one("cursor")?;
    params.finish()?;
    let after = cursor.map(|cursor| type_cursor(&cursor)).transpose();
    let after = after.map_err(|wrong| Rejection::parameter("cursor", &wrong.to_string()))?;
    Ok(json(200, &call.service().task_types(&call.caller, after.as_deref(), limit).await?))
}

/// Shows a task type: what holds for its tasks, and how it is doing.
#[utoipa::path(get, path = "/api/v1/task-types/{task_type}", operation_id = "get_task_type", tag = "task types",
    params(("task_type" = String, Path)),
    responses((status = 200, description = "The task type", body = TaskType, headers(("ETag" = String)))))]
pub(super) async fn get(call: Call) -> HandlerResult {
    call.for_no_user()?;
    call.no_params()?;
    Ok(answer(&call.service().task_type(&call.caller, &call.part("task_type")).await?))
}

/// Replaces the settings of a task type. They hold for tasks that are created from then on and say nothing else, on this
/// server at once and on all others within 2 s; `max_losses` for all tasks that are lost from then on.
#[utoipa::path(put, path = "/api/v1/task-types/{task_type}", operation_id = "set_task_type", tag = "task types",
    request_body = TaskTypeSettings,
    params(("task_type" = String, Path),
        ("If-Match" = Option<String>, Header, description = "The version that is to be replaced, as in `ETag`; without settings: 404.")),
    responses((status = 200, description = "The task type", body = TaskType, headers(("ETag" = String)))))]
pub(super) async fn put(mut call: Call) -> HandlerResult {
    call.for_no_user()?;
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let if_match = match (call.has_if_match(), call.if_match()?) {
        (false, _) => IfMatch::Absent,
        (true, None) => IfMatch::Any,
        (true, Some(versions)) => IfMatch::Versions(versions),
    };
    let name = call.part("task_type").into_owned();
    is_a_name(&name)?;
    let settings: TaskTypeSettings = parse(&body)?;
    let service = call.service();
    if let Err(SchemaFault { place, rule }) = service.check_schema(&call.caller, &settings).await? {
        let loc = ["body".into(), "request_schema".into()].into_iter().chain(place).collect();
        let fault = Violation { loc, msg: rule, kind: "value_error".to_owned() };
        return Err(Rejection::invalid(vec![fault]));
    }
    Ok(answer(&service.set_task_type(&call.caller, &name, &settings, given(&body), if_match).await?))
}

/// Removes the settings of a task type. A pause stays.
#[utoipa::path(delete, path = "/api/v1/task-types/{task_type}", operation_id = "delete_task_type", tag = "task types",
    params(("task_type" = String, Path)),
    responses((status = 204, description = "The settings are removed; there is no body")))]
pub(super) async fn delete(call: Call) -> HandlerResult {
    call.for_no_user()?;
    call.no_params()?;
    call.service().remove_task_type(&call.caller, &call.part("task_type")).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Pauses a task type, known or not: claims get nothing of it until it is resumed or the pause ends by itself. It replaces a
/// pause that there is. Running work goes on, and creates are taken.
#[utoipa::path(post, path = "/api/v1/task-types/{task_type}/pause", operation_id = "pause_task_type", tag = "task types",
    request_body(content = Option<NewPause>), params(("task_type" = String, Path)),
    responses((status = 200, description = "The task type", body = TaskType, headers(("ETag" = String)))))]
pub(super) async fn pause(mut call: Call) -> HandlerResult {
    call.for_no_user()?;
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    let name = call.part("task_type").into_owned();
    is_a_name(&name)?;
    let pause: NewPause = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    if pause.until.is_some_and(|until| until <= call.service().now()) {
        return Err(Rejection::invalid(violation(&["until"], "a time that lies ahead is expected")));
    }
    Ok(answer(&call.service().pause_task_type(&call.caller, &name, pause).await?))
}

/// Ends the pause of a task type: claims that wait for it are served at once.
#[utoipa::path(post, path = "/api/v1/task-types/{task_type}/resume", operation_id = "resume_task_type", tag = "task types",
    request_body(content = Option<Resume>), params(("task_type" = String, Path)),
    responses((status = 200, description = "The task type", body = TaskType, headers(("ETag" = String)))))]
pub(super) async fn resume(mut call: Call) -> HandlerResult {
    call.for_no_user()?;
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    body.map(|body| parse::<Resume>(&body)).transpose()?;
    Ok(answer(&call.service().resume_task_type(&call.caller, &call.part("task_type")).await?))
}
