//! Tasks as workers see them: claim, heartbeat, settle.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use serde::Serialize;
use task_repo_protocol::claim::{ClaimOne, Claimed, HeartbeatItem, Heartbeats, HeartbeatsAnswer};
use task_repo_protocol::page::MAX_BATCH_BYTES;
use task_repo_protocol::{
    Claim, Complete, Fail, Heartbeat, HeartbeatReceipt, HeartbeatResult, Outcome, OutcomeResult, Outcomes,
    OutcomesAnswer, Receipt, Release, Task,
};

use super::problems::{HandlerResult, Rejection};
use super::request::body::{Body, check_part, parse, parse_item, read};
use super::request::call::Call;
use super::request::size::{MAX_BODY, at_most, fits};
use super::response::json;
use crate::dispatch::Delivery;
use crate::usecases::Failure;

/// Claims work: up to `limit` tasks in order of priority, then age.
#[utoipa::path(post, path = "/api/v1/tasks/claim", operation_id = "claim_tasks", tag = "work",
    request_body = Claim,
    responses((status = 200, description = "The claimed tasks with their leases; none if there was no work",
        body = Claimed)))]
pub(super) async fn claim(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let claim: Claim = parse(&body)?;
    // The call may wait for long, and many do.
    drop(body);
    let delivery = claim_for(&call, claim).await?;
    Ok(hand_over(delivery, |tasks| Claimed { tasks }))
}

/// Claims for the caller, and waits no longer than its key allows it.
async fn claim_for(call: &Call, claim: Claim) -> Result<Delivery, Rejection> {
    let waits = claim.wait_ms.is_some_and(|wait| wait > 0);
    // Boxed: else the future of each waiting claim has room for several copies of it (docs/decisions/0009).
    let claiming = Box::pin(call.service().claim(&call.caller, claim)?);
    if waits { call.while_allowed(claiming).await } else { Ok(claiming.await?) }
}

/// An answer whose tasks go back to the queue unless it is really sent.
fn hand_over<T: Serialize>(mut delivery: Delivery, answer: impl FnOnce(Vec<Task>) -> T) -> HttpResponse {
    let tasks = delivery.present();
    let text = serde_json::to_vec(&answer(tasks)).unwrap_or_default();
    HttpResponse::Ok()
        .content_type("application/json; charset=utf-8")
        .body(DeliveryBody { text: Some(text.into()), delivery: Some(delivery) })
}

/// A body that knows whether the connection has taken it.
struct DeliveryBody {
    text: Option<Bytes>,
    delivery: Option<Delivery>,
}

impl MessageBody for DeliveryBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.text.as_ref().map_or(0, |text| text.len() as u64))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if let Some(delivery) = self.delivery.take() {
            delivery.taken();
        }
        Poll::Ready(self.text.take().map(Ok))
    }
}

/// Claims one known task.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/claim", operation_id = "claim_task", tag = "work",
    request_body = ClaimOne,
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The task with its lease", body = Task)))]
pub(super) async fn claim_one(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let claim: ClaimOne = parse(&body)?;
    let delivery = call.service().claim_one(&call.caller, call.task_id()?, claim).await?;
    Ok(hand_over(delivery, |mut tasks| tasks.pop()))
}

/// Brings the result.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/complete", operation_id = "complete_task", tag = "work",
    request_body = Complete,
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands now", body = Receipt)))]
pub(super) async fn complete(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let complete: Complete = parse(&body)?;
    fits(complete.result.as_ref())?;
    Ok(json(200, &call.service().complete(&call.caller, call.task_id()?, complete).await?))
}

/// Gives up this attempt.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/fail", operation_id = "fail_task", tag = "work",
    request_body = Fail,
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands now", body = Receipt)))]
pub(super) async fn fail(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let fail: Fail = parse(&body)?;
    Ok(json(200, &call.service().fail(&call.caller, call.task_id()?, fail).await?))
}

/// Gives the task back; the attempt does not count.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/release", operation_id = "release_task", tag = "work",
    request_body = Release,
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "Where the task stands now", body = Receipt)))]
pub(super) async fn release(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let release: Release = parse(&body)?;
    Ok(json(200, &call.service().release(&call.caller, call.task_id()?, release).await?))
}

/// Renews the lease, and keeps the progress.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/heartbeat", operation_id = "heartbeat_task", tag = "work",
    request_body = Heartbeat,
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The renewed lease", body = HeartbeatReceipt)))]
pub(super) async fn heartbeat(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BODY).await?;
    call.no_params()?;
    let heartbeat: Heartbeat = parse(&body)?;
    Ok(json(200, &call.service().heartbeat(&call.caller, call.task_id()?, heartbeat).await?))
}

/// Renews up to 1000 leases; a bad one does not stop the others.
#[utoipa::path(post, path = "/api/v1/tasks/heartbeat", operation_id = "heartbeat_tasks", tag = "work",
    request_body = Heartbeats,
    responses((status = 200, description = "For each heartbeat, in order, the renewed lease or its problem",
        body = HeartbeatsAnswer)))]
pub(super) async fn heartbeat_many(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BATCH_BYTES).await?;
    call.no_params()?;
    let batch: Heartbeats = read(&body)?;
    at_most(batch.heartbeats.len(), "heartbeats")?;
    let (heartbeats, places) = sort_out(&batch.heartbeats, "heartbeats", HeartbeatItem::split);
    let results = call.service().heartbeat_many(&call.caller, heartbeats).await;
    let results = in_place(results, places).map(|result| match result {
        Ok(HeartbeatReceipt { expires_at, cancel_requested }) => HeartbeatResult {
            expires_at: Some(expires_at),
            cancel_requested: Some(cancel_requested),
            problem: None,
        },
        Err(rejection) => HeartbeatResult {
            problem: Some(rejection.problem(&call.request_id)),
            ..HeartbeatResult::default()
        },
    });
    Ok(json(200, &HeartbeatsAnswer { results: results.collect() }))
}

/// Settles up to 1000 tasks and, with `claim`, brings the next work.
#[utoipa::path(post, path = "/api/v1/tasks/outcomes", operation_id = "settle_tasks", tag = "work",
    request_body = Outcomes,
    responses((status = 200, description = "For each outcome, in order, its receipt or its problem, and the tasks that `claim` brought",
        body = OutcomesAnswer)))]
pub(super) async fn outcomes(mut call: Call) -> HandlerResult {
    let body = call.body(MAX_BATCH_BYTES).await?;
    call.no_params()?;
    let batch: Outcomes = read(&body)?;
    at_most(batch.outcomes.len(), "outcomes")?;
    if let Some(claim) = &batch.claim {
        check_part::<Outcomes>(&body, claim, "claim")?;
        call.service().may_claim(&call.caller.scope, claim)?;
    }
    let (outcomes, places) = sort_out(&batch.outcomes, "outcomes", |outcome: Outcome| outcome);
    // First settled, then claimed: work that came in time must not be handed out again by its own call.
    let settled = call.service().settle_many(&call.caller, outcomes).await;
    let results = in_place(settled, places)
        .map(|result| match result {
            Ok(receipt) => OutcomeResult { receipt: Some(receipt), problem: None },
            Err(rejection) => {
                OutcomeResult { receipt: None, problem: Some(rejection.problem(&call.request_id)) }
            }
        })
        .collect();
    let Some(claim) = batch.claim else {
        return Ok(json(200, &OutcomesAnswer { results, tasks: Vec::new() }));
    };
    match claim_for(&call, claim).await {
        Ok(delivery) => Ok(hand_over(delivery, |tasks| OutcomesAnswer { results, tasks })),
        // The settlements stand though the claim beside them failed; the caller claims again when it likes.
        Err(rejection) => {
            let why = rejection.problem(&call.request_id).detail;
            tracing::warn!(why, "tasks were settled, but no work could be claimed");
            Ok(json(200, &OutcomesAnswer { results, tasks: Vec::new() }))
        }
    }
}

/// The items that fit, for the service; and for each item of the batch why it does not, if so.
fn sort_out<T, U>(
    items: &[task_repo_protocol::Json],
    list: &str,
    convert: impl Fn(T) -> U,
) -> (Vec<Result<U, Failure>>, Vec<Option<Rejection>>)
where
    T: Body + garde::Validate<Context = ()>,
{
    let mut fitting = Vec::with_capacity(items.len());
    let places = items
        .iter()
        .enumerate()
        .map(|(index, item)| match parse_item::<T>(item, list, index) {
            Ok(item) => {
                fitting.push(Ok(convert(item)));
                None
            }
            Err(rejection) => Some(rejection),
        })
        .collect();
    (fitting, places)
}

/// Results of the items that fit, and the rejections of the others, in the batch's order.
fn in_place<T>(
    results: Vec<Result<T, Failure>>,
    places: Vec<Option<Rejection>>,
) -> impl Iterator<Item = Result<T, Rejection>> {
    let mut results = results.into_iter();
    places.into_iter().filter_map(move |place| match place {
        Some(rejection) => Some(Err(rejection)),
        None => results.next().map(|result| result.map_err(Rejection::from)),
    })
}
