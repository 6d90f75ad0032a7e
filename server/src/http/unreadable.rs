//! Stored tasks that this server cannot read: for operators.

use actix_web::HttpResponse;
use task_repo_protocol::{UnreadableTaskDetail, UnreadableTaskPage};

use super::problems::{HandlerResult, Rejection};
use super::request::call::Call;
use super::response::json;
use crate::usecases::{StrayTasks, scan_place};

/// Of which tenant a task is that has none, nobody can tell: callers see it who see all tenants.
fn strays(call: &Call) -> StrayTasks {
    StrayTasks(call.reaches_all_tenants())
}

/// Lists stored tasks that the server cannot read.
#[utoipa::path(get, path = "/api/v1/unreadable-tasks", tag = "operation", operation_id = "list_unreadable_tasks",
    params(("limit" = Option<u64>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "The tasks that cannot be read; a page may be short, or empty, and not the last",
        body = UnreadableTaskPage)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(10);
    let cursor = params.one("cursor")?;
    params.finish()?;
    let place = cursor.map(|cursor| scan_place(&cursor, &call.caller, strays(&call))).transpose();
    let place = place.map_err(|wrong| Rejection::parameter("cursor", &wrong.to_string()))?;
    Ok(json(200, &call.service().unreadable(&call.caller, strays(&call), limit, place).await?))
}

/// Shows one of them as it is stored, without secrets.
#[utoipa::path(get, path = "/api/v1/unreadable-tasks/{task_id}", tag = "operation",
    operation_id = "get_unreadable_task", params(("task_id" = String, Path)),
    responses((status = 200, description = "The task as it is stored, without secrets", body = UnreadableTaskDetail)))]
pub(super) async fn show(call: Call) -> HandlerResult {
    call.no_params()?;
    let task = call.service().unreadable_task(&call.caller, strays(&call), &call.part("task_id")).await?;
    Ok(json(200, &task))
}

/// Removes one of them for good. A task that the server can read is 404 here.
#[utoipa::path(delete, path = "/api/v1/unreadable-tasks/{task_id}", tag = "operation",
    operation_id = "delete_unreadable_task", params(("task_id" = String, Path)),
    responses((status = 204, description = "The task is removed; there is no body")))]
pub(super) async fn delete(call: Call) -> HandlerResult {
    call.no_params()?;
    call.service().remove_unreadable(&call.caller, strays(&call), &call.part("task_id")).await?;
    Ok(HttpResponse::NoContent().finish())
}
