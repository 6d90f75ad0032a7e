//! Which pages may call the API from a browser: those of the origins that the settings name.
//!
//! The rules are those of the Fetch standard (section "HTTP-CORS protocol"). Credentials in its sense, which are cookies, are
//! never allowed; keys travel in headers.

use actix_web::HttpResponse;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

/// What a page may call.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// What a page may send, beside what every page may.
const REQUEST_HEADERS: &str = "Authorization, X-API-Key, X-Tenant-ID, X-User-ID, X-Subscription-Level, X-Request-ID, \
                               Idempotency-Key, If-Match, Content-Type, Cache-Control, Last-Event-ID, traceparent, tracestate";
/// What a page may see of an answer, beside what every page may.
const EXPOSED: &str = "ETag, Location, Retry-After, Idempotent-Replayed, X-Request-ID";
/// How long a browser may remember that a call is allowed, in seconds.
const MAX_AGE: &str = "600";

/// The origins whose pages may call the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// Those, as browsers name them.
    pub(crate) fn new(origins: &[String]) -> Self {
        Self { origins: origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect() }
    }

    /// The origin of the page that calls, if it may.
    pub(super) fn allowed(&self, request: &ServiceRequest) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        self.origins.iter().find(|allowed| *allowed == origin).cloned()
    }

    /// Says what the page may see of an answer.
    pub(super) fn mark<B>(&self, response: &mut ServiceResponse<B>, allowed: Option<HeaderValue>) {
        if self.origins.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        // Also where no page calls: a cache must not give one what was meant for another.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

/// Whether a browser only asks whether a page may make a call.
pub(super) fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that: yes.
pub(super) fn preflight() -> HttpResponse {
    let mut response = HttpResponse::NoContent().finish();
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    response
}
