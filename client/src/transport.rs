//! Sends requests, repeats them as far as they may be, and reads what comes back.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Request, StatusCode, redirect};
use serde::de::DeserializeOwned;
use task_repo_protocol::{Problem, path};

use crate::error::{ClientError, Result, TransportError};
use crate::request::{ApiRequest, header_value};
use crate::retry::{Repeat, RetryBudget, pause_after};

/// Most bytes that an error keeps of the body of an answer that is none of the service's.
const MAX_BODY_IN_ERROR: usize = 512;
/// How long a connection may be idle and still be used again: servers and proxies close idle ones without notice.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Where requests go, with which credential, and for how long they are repeated.
#[derive(Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Arc<str>,
    /// The proxy from the environment that requests go through, for errors.
    proxy: Option<Arc<str>>,
    headers: HeaderMap,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) budget: RetryBudget,
}

impl Transport {
    /// Connects to nothing yet. `base` is an `http` or `https` URL; `/api/v1` is added to it where it is missing.
    pub(crate) fn new(
        base: &str,
        timeout: Duration,
        connect_timeout: Duration,
        budget: RetryBudget,
    ) -> Result<Self> {
        let is_base = |url: &reqwest::Url| {
            matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none()
        };
        let url = reqwest::Url::parse(base).ok().filter(is_base).ok_or_else(|| {
            ClientError::InvalidArgument(format!(
                "the base URL {base:?} cannot be used: http:// or https:// and a host are expected, such as \
                 http://localhost:8503, without a query"
            ))
        })?;
        let url = url.as_str().trim_end_matches('/');
        // People paste the URL of an endpoint's parent: `/api/v1` twice would lead nowhere.
        let base: Arc<str> = url.strip_suffix(path::BASE).unwrap_or(url).trim_end_matches('/').into();
        let (http, proxy) = (connections(&base, connect_timeout)?, proxy_of(&base));
        Ok(Self { http, base, proxy, headers: HeaderMap::new(), timeout, connect_timeout, budget })
    }

    /// The same with connections of its own. Connections are driven by the runtime that first used them; these can be
    /// used on another one, whatever happens to the first.
    pub(crate) fn detached(&self) -> Result<Self> {
        Ok(Self { http: connections(&self.base, self.connect_timeout)?, ..self.clone() })
    }

    /// Sends `value` with every call; `secret` values are not shown by `Debug`.
    pub(crate) fn set_header(&mut self, name: &'static str, value: &str, secret: bool) -> Result<()> {
        let mut header = header_value(name, value)?;
        header.set_sensitive(secret);
        self.headers.insert(HeaderName::from_static(name), header);
        Ok(())
    }

    /// Sends a request until it is answered, refused for good, or the budget is spent.
    pub(crate) async fn send(&self, request: ApiRequest) -> Result<ApiResponse> {
        self.send_and_read(request, Ok).await
    }

    /// Sends a request until its answer was read, it is refused for good, or the budget is spent.
    pub(crate) async fn send_and_read<T>(
        &self,
        request: ApiRequest,
        read: impl Fn(ApiResponse) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let total = self.budget.total.saturating_add(request.wait);
        let mut pauses = self.budget.pauses();
        let mut may_have_been_applied_before = false;
        loop {
            let error = match self.attempt(&request).await.and_then(&read) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_missing = error.problem().is_some_and(|problem| problem.status == StatusCode::NOT_FOUND);
            if is_missing && may_have_been_applied_before && request.repeat == Repeat::UntilGone {
                return read(ApiResponse::empty(request.endpoint));
            }
            may_have_been_applied_before |= error.may_have_been_applied();
            let pause = pauses
                .next()
                .filter(|_| request.repeat.allows(&error))
                .map(|drawn| pause_after(&error, drawn));
            match pause {
                Some(pause) if started.elapsed().saturating_add(pause) < total => {
                    tracing::debug!(call = request.endpoint, %error, ?pause, "repeating a call");
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn attempt(&self, request: &ApiRequest) -> Result<ApiResponse> {
        let lost = |error| TransportError::new(request.endpoint, error, self.proxy.clone());
        let response = self.http.execute(self.http_request(request)?).await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(lost)?;
        if status.is_success() {
            Ok(ApiResponse { endpoint: request.endpoint, status, headers, body, proxy: self.proxy.clone() })
        } else {
            Err(error_of(request.endpoint, status, &headers, &body, self.proxy.clone()))
        }
    }

    fn http_request(&self, request: &ApiRequest) -> Result<Request> {
        let mut http = Request::new(request.method.clone(), request.url(&self.base)?);
        http.headers_mut().extend(self.headers.clone());
        http.headers_mut().extend(request.headers.clone());
        if let Some(body) = &request.body {
            http.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *http.body_mut() = Some(body.clone().into());
        }
        *http.timeout_mut() = Some(request.timeout.unwrap_or(self.timeout).saturating_add(request.wait));
        Ok(http)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("base", &self.base)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A pool of connections to `base`.
fn connections(base: &str, connect_timeout: Duration) -> Result<reqwest::Client> {
    // Fails if the process has a provider already; any provider will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(MAX_IDLE)
        .redirect(redirect::Policy::none());
    if base.starts_with("http:") {
        // Plain HTTP needs no certificates; without this, a machine that has none could not set up a client.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        ClientError::InvalidArgument(format!("no HTTP client can be set up: {error} {cause}"))
    })
}

/// The proxy that the environment names for `base`, without its credentials.
fn proxy_of(base: &str) -> Option<Arc<str>> {
    // The same code decides by which `reqwest` goes.
    let proxy = Matcher::from_env().intercept(&base.parse().ok()?)?;
    let authority = proxy.uri().authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(format!("{}://{host}", proxy.uri().scheme_str()?).into())
}

fn error_of(
    endpoint: &'static str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    proxy: Option<Arc<str>>,
) -> ClientError {
    let retry_after =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    match serde_json::from_slice::<Problem>(body) {
        Ok(mut problem) => {
            problem.retry_after_seconds = problem.retry_after_seconds.or(retry_after);
            ClientError::Refused(Box::new(problem))
        }
        Err(_) => ClientError::Unexpected {
            call: endpoint,
            status: status.as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
            body: match headers.get(LOCATION).filter(|_| status.is_redirection()) {
                Some(location) => format!("redirect to {}", without_secrets(location)),
                None => shown(body),
            },
            proxy,
        },
    }
}

/// The beginning of a body, for errors.
fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(MAX_BODY_IN_ERROR)]).into_owned()
}

/// Where a redirect leads, without credentials and query, which may hold tokens.
fn without_secrets(location: &HeaderValue) -> String {
    let location = String::from_utf8_lossy(location.as_bytes());
    let plain = location.split(['?', '#']).next().unwrap_or_default();
    let plain = plain.rsplit_once('@').map_or(plain, |(_, host)| host);
    plain.chars().take(MAX_BODY_IN_ERROR).collect()
}

/// The answer to a request that succeeded.
pub(crate) struct ApiResponse {
    endpoint: &'static str,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    proxy: Option<Arc<str>>,
}

impl ApiResponse {
    fn empty(endpoint: &'static str) -> Self {
        let status = StatusCode::NO_CONTENT;
        Self { endpoint, status, headers: HeaderMap::new(), body: Bytes::new(), proxy: None }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When it does not fit `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|source| {
            if source.is_data() {
                return ClientError::Decode { call: self.endpoint, source };
            }
            // It is no JSON at all, so the service has not written it.
            ClientError::Unexpected {
                call: self.endpoint,
                status: self.status.as_u16(),
                retry_after: None,
                body: shown(&self.body),
                proxy: self.proxy.clone(),
            }
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the service gave this answer before, to the same idempotency key.
    pub(crate) fn is_replayed(&self) -> bool {
        self.headers.get(path::IDEMPOTENT_REPLAYED_HEADER).is_some_and(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::ErrorCode;

    use super::*;

    fn refused(status: u16, retry_after: Option<&'static str>, body: &str) -> ClientError {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        }
        error_of("/tasks", StatusCode::from_u16(status).expect("a status"), &headers, body.as_bytes(), None)
    }

    #[test]
    fn a_problem_is_read_and_takes_the_header_s_hint() {
        let body = serde_json::to_string(&Problem::new(ErrorCode::Unavailable, "", "r")).expect("serializes");
        let error = refused(503, Some("7"), &body);
        assert_eq!(error.code(), Some(ErrorCode::Unavailable));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_base_url_that_is_none_is_told_what_one_is() {
        let new = |base| {
            Transport::new(base, Duration::from_secs(1), Duration::from_secs(1), RetryBudget::default())
                .map(|_| ())
        };
        for base in [
            "",
            "localhost:8503",
            "127.0.0.1:8503",
            "ftp://host",
            "http://",
            "http://host?a",
            "http://host#a",
        ] {
            let error = new(base).expect_err(base).to_string();
            assert!(error.contains("http://localhost:8503") && error.contains("without a query"), "{error}");
        }
        assert!(new("https://host/prefix/").is_ok());
    }

    #[test]
    fn an_answer_of_somebody_else_is_unexpected() {
        let error = refused(502, None, "<html>bad gateway");
        assert!(error.to_string().contains("the base URL may lead elsewhere"), "{error}");
        assert!(
            matches!(&error, ClientError::Unexpected { status: 502, body, .. } if body.contains("gateway"))
        );
    }

    #[test]
    fn a_base_url_may_have_the_path_that_all_calls_begin_with() {
        for base in ["http://host/api/v1", "http://host/api/v1/", "http://host", "http://host//"] {
            let transport = Transport::new(base, Duration::ZERO, Duration::ZERO, RetryBudget::none());
            assert_eq!(&*transport.expect(base).base, "http://host", "{base}");
        }
    }

    #[test]
    fn a_redirect_is_told_with_where_it_leads() {
        let location = HeaderValue::from_static("https://user:secret@login.example/in?token=secret");
        let headers = HeaderMap::from_iter([(LOCATION, location)]);
        let proxy = Some("http://proxy:3128".into());
        let error = error_of("/tasks", StatusCode::FOUND, &headers, b"<html>", proxy).to_string();
        assert!(error.contains("login.example/in") && error.contains("http://proxy:3128"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn base_urls_are_plain() {
        let with = |base| Transport::new(base, Duration::ZERO, Duration::ZERO, RetryBudget::none());
        assert!(
            with("http://127.0.0.1:8503/").is_ok_and(|transport| &*transport.base == "http://127.0.0.1:8503")
        );
        for wrong in ["", "127.0.0.1:8503", "ftp://host", "http://host/?a=1", "http://host/#a"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let mut transport =
            Transport::new("http://host", Duration::ZERO, Duration::ZERO, RetryBudget::none())
                .expect("is set up");
        transport.set_header("authorization", "Bearer secret", true).expect("a header");
        assert!(!format!("{transport:?} {:?}", transport.headers).contains("secret"));
    }
}
