//! Around every request: its id, its credential, its log line, its metrics.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _, web};
use futures_util::Stream as _;
use futures_util::stream::poll_fn;
use task_repo_protocol::key::visible_ascii;
use task_repo_protocol::{ErrorCode, Uuid, path};
use tracing::Instrument as _;

use super::app::{App, InFlight};
use super::connections::Connection;
use super::cors::{is_preflight, preflight};
use super::problems::Rejection;
use super::request::call::{
    AuthenticationTime, RequestId, UNKNOWN_KEY, UNKNOWN_TOKEN, header_text, unauthenticated,
};
use super::route_metrics::RouteMetrics;
use crate::access::Identity;
use crate::telemetry::masked;
use crate::usecases::Granted;

/// The route under which requests are counted that match none.
const NO_ROUTE: &str = "none";

const NO_CREDENTIAL: &str =
    "there is no credential: send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'";
const NO_BEARER: &str = "the header Authorization is not in the form 'Bearer KEY', with one key that is not empty, or stands twice";
const NO_API_KEY: &str =
    "the header X-API-Key is not in the form 'X-API-Key: KEY': it is empty, no text, or stands twice";

/// A body that keeps its request in flight.
struct Counted {
    body: BoxBody,
    _in_flight: Option<InFlight>,
    _unread: Option<Unread>,
}

/// What comes of a request in chunks. actix reads on and on from a caller whose body nobody wants any more; while this
/// is kept, a body that was not read to its end ends with its connection once it is answered.
type Unread = Rc<RefCell<Payload>>;

fn keep_chunks(request: &mut ServiceRequest) -> Option<Unread> {
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let unread = Rc::new(RefCell::new(request.take_payload()));
    let chunks = Rc::clone(&unread);
    let chunks = poll_fn(move |context| Pin::new(&mut *chunks.borrow_mut()).poll_next(context));
    request.set_payload(Payload::Stream { payload: Box::pin(chunks) });
    Some(unread)
}

impl MessageBody for Counted {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Wraps all routes, also those that do not exist.
pub(crate) async fn edge(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let app = request.app_data::<web::Data<App>>().cloned();
    let in_flight = app.as_ref().map(|app| app.in_flight.clone());
    let given = header_text(request.request(), path::REQUEST_ID_HEADER).and_then(Result::ok);
    let request_id = match given.filter(|id| visible_ascii(id, 128).is_ok()) {
        Some(id) => id.to_owned(),
        None => Uuid::now_v7().to_string(),
    };
    let method = request.method().clone();
    let span = tracing::info_span!("request", request_id, %method);
    // A caller that refuses plain text gets it all the same: an answer is better than a 406 without a problem.
    let accepts = request.headers().get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    // A stream is never compressed: its messages would wait in the compressor.
    if accepts.is_none_or(|value| value.contains("q=0")) || is_stream(request.path()) {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let unread = keep_chunks(&mut request);
    let allowed = app.as_ref().and_then(|app| app.cors.allowed(&request));
    let page = allowed.clone();
    let is_spare = request.request().conn_data::<Connection>().is_some_and(|connection| connection.is_spare);
    let mut response = async {
        if is_spare && !is_about_the_server(request.path()) {
            return Ok(request.into_response(full().into_response(&request_id)));
        }
        if allowed.is_some() && is_preflight(&request) {
            return Ok(request.into_response(preflight()));
        }
        let asked = Instant::now();
        match authenticate(&request).await {
            Ok(authenticated) => {
                request.extensions_mut().insert(AuthenticationTime(asked.elapsed()));
                match authenticated {
                    Authenticated::Nobody => {}
                    Authenticated::Key(identity) => drop(request.extensions_mut().insert(identity)),
                    Authenticated::Token(granted) => {
                        request.extensions_mut().insert(granted.identity.clone());
                        request.extensions_mut().insert(granted);
                    }
                }
                next.call(request).await.map(ServiceResponse::map_into_boxed_body)
            }
            Err(rejection) => Ok(request.into_response(rejection.into_response(&request_id))),
        }
    }
    .instrument(span.clone())
    .await?;
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HeaderName::from_static(path::REQUEST_ID_HEADER), value);
    }
    if let Some(app) = &app {
        app.cors.mark(&mut response, page);
    }
    if is_spare || app.is_some_and(|app| app.background.is_draining()) {
        // A caller that comes back finds another server, and one of the last connections is free for the next.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    note(&span, &response, began);
    Ok(response.map_body(|_, body| BoxBody::new(Counted { body, _in_flight: in_flight, _unread: unread })))
}

fn note(span: &tracing::Span, response: &ServiceResponse<BoxBody>, began: Instant) {
    let (status, took) = (response.status().as_u16(), began.elapsed());
    let request = response.request();
    let route = if let Some(route_metrics) = request.app_data::<RouteMetrics>() {
        route_metrics.count(status, took);
        &route_metrics.route
    } else {
        RouteMetrics::of(NO_ROUTE).count(status, took);
        NO_ROUTE
    };
    // Also what is no id stands there: a name, or a secret in the wrong place.
    let task =
        || request.match_info().get("task_id").filter(|text| Uuid::try_parse(text).is_ok()).map(masked);
    let duration_ms = took.as_secs_f64() * 1000.0;
    span.in_scope(|| {
        if status >= 500 {
            tracing::warn!(route, status, duration_ms, task = task(), "answered");
        } else {
            tracing::debug!(route, status, duration_ms, task = task(), "answered");
        }
    });
}

/// What a request shows of who calls.
enum Authenticated {
    /// Nothing, on routes that need no key.
    Nobody,
    /// A key.
    Key(Identity),
    /// A token that opens one stream.
    Token(Granted),
}

/// Who calls.
async fn authenticate(request: &ServiceRequest) -> Result<Authenticated, Rejection> {
    if is_public(request.path()) {
        return Ok(Authenticated::Nobody);
    }
    let app = request.app_data::<web::Data<App>>().ok_or_else(|| unauthenticated(NO_CREDENTIAL))?;
    if let Some(token) = stream_token(request) {
        let granted = app.stream_tokens.granted(&token, app.store.step_deadline()).await?;
        return granted.map(Authenticated::Token).ok_or_else(|| unauthenticated(UNKNOWN_TOKEN));
    }
    let secret = credential(request).map_err(unauthenticated)?;
    let identity = app
        .keys
        .identify(secret, app.store.step_deadline())
        .await?
        .ok_or_else(|| unauthenticated(UNKNOWN_KEY))?;
    Ok(Authenticated::Key(identity))
}

/// The stream token that a request brings. Beside a credential it is ignored, and so it is where no stream is asked for.
fn stream_token(request: &ServiceRequest) -> Option<String> {
    let headers = request.headers();
    let has_credential =
        headers.contains_key(header::AUTHORIZATION) || headers.contains_key(path::API_KEY_HEADER);
    if has_credential || !is_stream(request.path()) {
        return None;
    }
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).ok()?;
    pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
}

/// The key that a request brings, or why it brings none.
fn credential(request: &ServiceRequest) -> Result<&str, &'static str> {
    let text = |name| header_text(request.request(), name);
    let (key, wrong_form) = if let Some(text) = text(header::AUTHORIZATION.as_str()) {
        let bearer = text.ok().and_then(|text| text.split_once(' '));
        (
            bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim()),
            NO_BEARER,
        )
    } else if let Some(text) = text(path::API_KEY_HEADER) {
        (text.ok(), NO_API_KEY)
    } else {
        return Err(NO_CREDENTIAL);
    };
    key.filter(|key| !key.is_empty()).ok_or(wrong_form)
}

fn full() -> Rejection {
    Rejection::new(
        ErrorCode::Overloaded,
        "more connections are open than this server takes; nothing was applied. Close those that are not used",
    )
}

/// Streams, whose answers have no end of their own.
fn is_stream(path: &str) -> bool {
    path.ends_with(path::STREAM)
}

/// Health and metrics, which are answered when everything else is refused.
fn is_about_the_server(path: &str) -> bool {
    let path = path.strip_prefix(path::BASE).unwrap_or(path);
    [path::HEALTH, path::HEALTH_READY, path::HEALTH_DETAILED, path::METRICS].contains(&path)
}

/// Probes and documentation need no key.
fn is_public(path: &str) -> bool {
    let path = path.strip_prefix(path::BASE).unwrap_or(path);
    [path::HEALTH, path::HEALTH_READY, path::OPENAPI, path::DOCS].contains(&path)
        || path.strip_prefix(path::DOCS).is_some_and(|rest| rest.starts_with('/'))
}
