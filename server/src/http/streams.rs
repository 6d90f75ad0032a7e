//! Watching tasks, as server-sent events (HTML standard, section 9.2).

use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use task_repo_protocol::stream::STREAM_TOKEN_SECONDS;
use task_repo_protocol::{
    NewStreamToken, NewTenantStreamToken, StreamMessage, StreamToken, key, path, task_type_is_valid,
};
use tokio::time::Instant;

use super::problems::{HandlerResult, Rejection};
use super::request::body::parse;
use super::request::call::{Call, UNKNOWN_TOKEN, unauthenticated};
use super::request::params::unfit;
use super::request::size::MAX_BODY;
use super::response::json;
use crate::background::Background;
use crate::usecases::{FilterHash, KeyEnd, NextOfStream, OneStream, StreamFilter, TaskStream, TenantStream};

/// How often a line of comment is sent, which proxies take for a sign of life.
const COMMENT_PAUSE: Duration = Duration::from_secs(15);
/// The comment.
const COMMENT: &[u8] = b":\n\n";

/// Watches a task: what happens to it, as server-sent events.
///
/// A fresh stream begins with a snapshot. With `Last-Event-ID` it goes on behind that message, and the answer is 204 where
/// that was the final one. After the final message the stream ends.
#[utoipa::path(get, path = "/api/v1/tasks/{task_id}/stream", operation_id = "watch_task", tag = "tasks",
    params(("task_id" = String, Path, format = Uuid),
        ("last_event_id" = Option<String>, Query, description = "As `Last-Event-ID`, which goes before."),
        ("token" = Option<String>, Query, description = "A stream token, in the place of a key."),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last message that was had.")),
    responses(
        (status = 200, description = "Messages until the final one, each in a `data:` line", body = StreamMessage,
            content_type = "text/event-stream"),
        (status = 204, description = "The final message was had; there is no body")))]
pub(super) async fn task(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let named = params.one("last_event_id")?;
    params.one("token")?;
    params.finish()?;
    let last_event_id = last_event_id(&call, named);
    let id = call.task_id()?;
    opens(&call, &OneStream::Task(id))?;
    let opened = call.app.streams.watch(&call.caller, id, last_event_id.as_deref()).await?;
    Ok(match opened {
        Some(stream) => answer(&call, AnyStream::Task(stream)),
        None => HttpResponse::NoContent().finish(),
    })
}

/// Watches all tasks of the tenant: what happens to them, as server-sent events.
///
/// A completion names where the result is, and not the result. With `Last-Event-ID` the stream goes on behind that message; where
/// that is not possible any more, it begins with `stream_gap`.
#[utoipa::path(get, path = "/api/v1/stream", operation_id = "watch_tenant", tag = "tasks",
    params(
        ("task_type" = Option<Vec<String>>, Query, explode = true, description = "Only tasks of one of these types."),
        ("user_id" = Option<Vec<String>>, Query, explode = true, description = "Only tasks of one of these users."),
        ("last_event_id" = Option<String>, Query, description = "As `Last-Event-ID`, which goes before."),
        ("token" = Option<String>, Query, description = "A stream token, in the place of a key."),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last message that was had.")),
    responses((status = 200, description = "Messages without an end, each in a `data:` line", body = StreamMessage,
        content_type = "text/event-stream")))]
pub(super) async fn tenant(call: Call) -> HandlerResult {
    let mut params = call.params()?;
    let task_types = params.many("task_type")?;
    let user_ids = params.many("user_id")?;
    let named = params.one("last_event_id")?;
    params.one("token")?;
    params.finish()?;
    if let Some(name) = task_types.iter().find(|name| !task_type_is_valid(name)) {
        let rule = "1 to 128 of A-Z a-z 0-9 . _ : - are expected";
        return Err(unfit("task_type", name, rule, task_type_is_valid));
    }
    for user in &user_ids {
        key::visible_ascii(user, 255).map_err(|rule| Rejection::parameter("user_id", &rule))?;
    }
    opens(&call, &OneStream::Tenant(FilterHash::of(&task_types, &user_ids)))?;
    let filter = StreamFilter { scope: call.caller.scope.clone(), task_types, user_ids };
    let last_event_id = last_event_id(&call, named);
    let stream = call.app.streams.watch_tenant(&call.caller, filter, last_event_id.as_deref()).await?;
    Ok(answer(&call, AnyStream::Tenant(stream)))
}

/// Makes a token that opens the stream of a task, for browsers.
#[utoipa::path(post, path = "/api/v1/tasks/{task_id}/stream-token", operation_id = "make_task_stream_token", tag = "tasks",
    request_body(content = Option<NewStreamToken>),
    params(("task_id" = String, Path, format = Uuid)),
    responses((status = 201, description = "A URL with the token in it", body = StreamToken)))]
pub(super) async fn task_token(mut call: Call) -> HandlerResult {
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    no_idempotency_key(&call)?;
    let new: NewStreamToken = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    let id = call.task_id()?;
    call.service().peek(&call.caller, id).await?;
    let url = path::TASK_STREAM.replace("{task_id}", &id.to_string());
    token(&call, OneStream::Task(id), url, Vec::new(), new.expires_in_seconds).await
}

/// Makes a token that opens the stream of the tenant's tasks, with exactly these filters, for browsers.
#[utoipa::path(post, path = "/api/v1/stream-token", operation_id = "make_tenant_stream_token", tag = "tasks",
    request_body(content = Option<NewTenantStreamToken>),
    responses((status = 201, description = "A URL with the token in it", body = StreamToken)))]
pub(super) async fn tenant_token(mut call: Call) -> HandlerResult {
    let body = call.optional_body(MAX_BODY).await?;
    call.no_params()?;
    no_idempotency_key(&call)?;
    let new: NewTenantStreamToken = body.map(|body| parse(&body)).transpose()?.unwrap_or_default();
    let (task_types, user_ids) = (new.task_type.unwrap_or_default(), new.user_id.unwrap_or_default());
    let stream = OneStream::Tenant(FilterHash::of(&task_types, &user_ids));
    let types = task_types.into_iter().map(|name| ("task_type", name));
    let query = types.chain(user_ids.into_iter().map(|user| ("user_id", user))).collect();
    token(&call, stream, path::STREAM.to_owned(), query, new.expires_in_seconds).await
}

async fn token(
    call: &Call,
    stream: OneStream,
    path_of_stream: String,
    mut query: Vec<(&str, String)>,
    seconds: Option<i64>,
) -> HandlerResult {
    let seconds = seconds.unwrap_or(STREAM_TOKEN_SECONDS);
    let (scope, until) = (&call.caller.scope, call.caller.deadline.at());
    let (token, expires_at) =
        call.app.stream_tokens.make(&call.identity, scope, stream, seconds, until).await?;
    query.push(("token", token));
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    let stream_url = format!("{}{path_of_stream}?{query}", path::BASE);
    Ok(json(201, &StreamToken { stream_url, expires_at }))
}

/// A token makes nothing, and each is another one.
fn no_idempotency_key(call: &Call) -> Result<(), Rejection> {
    if call.has_idempotency_key() {
        let rule = "a token needs none, since making another one changes nothing: leave the header out";
        return Err(Rejection::parameter("Idempotency-Key", rule));
    }
    Ok(())
}

/// Refuses a stream token that is for another stream.
fn opens(call: &Call, asked: &OneStream) -> Result<(), Rejection> {
    match &call.stream {
        Some(stream) if stream != asked => Err(unauthenticated(UNKNOWN_TOKEN)),
        _ => Ok(()),
    }
}

/// Behind which message a stream goes on. A header is newer than what stands in a URL.
fn last_event_id(call: &Call, named: Option<String>) -> Option<String> {
    call.text_of(path::LAST_EVENT_ID_HEADER).or(named).filter(|id| !id.is_empty())
}

/// A stream of either kind.
enum AnyStream {
    Task(TaskStream),
    Tenant(TenantStream),
}

impl AnyStream {
    async fn next(&mut self) -> NextOfStream {
        match self {
            Self::Task(stream) => stream.next().await,
            Self::Tenant(stream) => stream.next().await,
        }
    }
}

/// What a stream is made of.
struct Open {
    stream: AnyStream,
    background: Background,
    key_end: Pin<Box<dyn Future<Output = KeyEnd>>>,
    comment_at: Instant,
}

fn answer(call: &Call, stream: AnyStream) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"));
    if call.is_head() {
        // In the same form, with nothing in it.
        return response.streaming(unfold((), |()| async { None::<(Result<Bytes, CutOff>, ())> }));
    }
    let open = Open {
        stream,
        background: call.app.background.clone(),
        key_end: Box::pin(call.key_end()),
        comment_at: Instant::now() + COMMENT_PAUSE,
    };
    response.streaming(body(open))
}

/// The messages of a stream, and comments while there are none.
fn body(open: Open) -> impl Stream<Item = Result<Bytes, CutOff>> {
    unfold(Some(open), |open| async {
        let mut open = open?;
        let next = tokio::select! {
            biased;
            () = open.background.draining() => return None,
            _ = &mut open.key_end => return None,
            next = open.stream.next() => next,
            () = tokio::time::sleep_until(open.comment_at) => {
                open.comment_at += COMMENT_PAUSE;
                NextOfStream::Send(Bytes::from_static(COMMENT))
            }
        };
        match next {
            NextOfStream::Send(message) => Some((Ok(message), Some(open))),
            NextOfStream::End => None,
            NextOfStream::CutOff => Some((Err(CutOff), None)),
        }
    })
}

/// The watcher is too far behind, or what happened cannot be told: its connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the watcher is cut off, and may resume")]
struct CutOff;
