//! What workers log about their tasks.

use actix_web::HttpResponse;
use task_repo_protocol::logs::{LogPage, NewLogLines};
use task_repo_protocol::page::MAX_BATCH_BYTES;

use super::problems::{HandlerResult, Rejection};
use super::request::body::parse;
use super::request::call::Call;
use super::response::json;
use crate::usecases::LogsAsked;

/// The greatest number that every reader of JSON keeps exact.
const MAX_SEQ: i64 = (1 << 53) - 1;

/// Keeps lines that a worker has logged about its task.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/logs", operation_id = "log_task_lines", tag = "work",
    request_body = NewLogLines, params(("task_id" = String, Path, format = Uuid)),
    responses((status = 204, description = "The lines are kept; there is no body")))]
pub(super) async fn add(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BATCH_BYTES).await?;
    call.no_params()?;
    let lines: NewLogLines = parse(&body)?;
    call.service().log(&call.caller, call.task_id()?, lines).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists what was logged about a task, the oldest first.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}/logs", operation_id = "list_task_logs", tag = "tasks",
    params(
        ("task_id" = String, Path, format = Uuid),
        ("attempt" = Option<u64>, Query, minimum = 1, maximum = 4_294_967_295_u64),
        ("after" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_u64,
            description = "Only lines with a greater `seq`."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, description = "A page of lines", body = LogPage)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let attempt = params.number("attempt", 1..=u32::MAX)?;
    let after = params.number("after", 0..=MAX_SEQ)?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(10);
    let cursor = params.one("cursor")?;
    params.finish()?;
    let asked = LogsAsked { attempt, after, limit, cursor };
    let page = call.service().logs(&call.caller, call.task_id()?, asked).await?;
    Ok(json(200, &page.map_err(|wrong| Rejection::parameter("cursor", &wrong.to_string()))?))
}
