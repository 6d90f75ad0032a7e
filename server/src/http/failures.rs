//! Which failures there were: for those who run the workers.

use chrono::TimeDelta;
use task_repo_protocol::failures::MAX_FAILURE_DAYS;
use task_repo_protocol::{FailurePage, task_type_is_valid};

use super::problems::{HandlerResult, Rejection};
use super::request::call::Call;
use super::request::params::unfit;
use super::response::json;
use crate::usecases::FailuresAsked;

/// Lists which attempts failed, timed out or were lost, by task type, code and reason, the most frequent first.
#[utoipa::path(get, path = "/api/v1/failures", tag = "operation", operation_id = "list_failures",
    params(
        ("since" = Option<String>, Query, format = DateTime,
            description = "From the beginning of its hour on; 31 days ago at most, default a day ago."),
        ("task_type" = Option<Vec<String>>, Query, explode = true),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, description = "A page of failures", body = FailurePage)))]
pub(super) async fn list(call: Call) -> HandlerResult {
    call.for_no_user()?;
    let mut params = call.params()?;
    let since = params.time("since")?;
    let task_types = params.many("task_type")?;
    let limit = params.number("limit", 1..=100)?.unwrap_or(10);
    let cursor = params.one("cursor")?;
    params.finish()?;
    if let Some(name) = task_types.iter().find(|name| !task_type_is_valid(name)) {
        return Err(unfit(
            "task_type",
            name,
            "1 to 128 of A-Z a-z 0-9 . _ : - are expected",
            task_type_is_valid,
        ));
    }
    // Failures are counted by the hour, and the hour that `since` lies in counts whole.
    let oldest = call.service().now() - TimeDelta::days(MAX_FAILURE_DAYS);
    if since.is_some_and(|since| since < oldest) {
        let rule = format!("a time of at most {MAX_FAILURE_DAYS} days ago is expected");
        return Err(Rejection::parameter("since", &rule));
    }
    let asked = FailuresAsked { since, task_types, limit, cursor };
    let page = call.service().failures(&call.caller, asked).await?;
    Ok(json(200, &page.map_err(|wrong| Rejection::parameter("cursor", &wrong.to_string()))?))
}
