//! Watching tasks, as server-sent events (HTML standard, section 9.2).

use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use task_repo_protocol::{StreamMessage, path};
use tokio::time::Instant;

use super::problems::HandlerResult;
use super::request::call::Call;
use crate::background::Background;
use crate::usecases::{KeyEnd, NextOfStream, TaskStream};

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
    let opened = call.app.streams.watch(&call.caller, id, last_event_id.as_deref()).await?;
    Ok(match opened {
        Some(stream) => answer(&call, stream),
        None => HttpResponse::NoContent().finish(),
    })
}

/// Behind which message a stream goes on. A header is newer than what stands in a URL.
fn last_event_id(call: &Call, named: Option<String>) -> Option<String> {
    call.text_of(path::LAST_EVENT_ID_HEADER).or(named).filter(|id| !id.is_empty())
}

/// What a stream is made of.
struct Open {
    stream: TaskStream,
    background: Background,
    key_end: Pin<Box<dyn Future<Output = KeyEnd>>>,
    comment_at: Instant,
}

fn answer(call: &Call, stream: TaskStream) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"));
    if call.is_head() {
        return response.finish();
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
