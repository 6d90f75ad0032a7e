//! Raw calls and their answers. Promises of the contract about every answer are checked here, once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;
use serde_json::value::RawValue;
use task_repo_protocol::{ErrorCode, path};

/// The bootstrap key of every test server: all tenants, all roles.
pub const API_KEY: &str = "test_api_key";

/// A call under construction, with the bootstrap key unless another is given.
#[must_use = "a call does nothing until it is sent"]
pub struct HttpCall {
    http: reqwest::Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl HttpCall {
    pub(crate) fn new(http: reqwest::Client, method: Method, server: &str, path: &str) -> Self {
        let below =
            [path::TASKS, path::TASK_TYPES, path::KEYS, path::UNREADABLE_TASKS, path::FAILURES, path::STREAM];
        let base = if below.iter().any(|first| path.starts_with(first)) { path::BASE } else { "" };
        let url = Url::parse(&format!("{server}{base}{path}")).expect("a URL");
        Self { http, method, url, headers: HeaderMap::new(), body: None }.key(API_KEY)
    }

    /// Another key, as `Authorization: Bearer`.
    pub fn key(self, key: &str) -> Self {
        let mut call = self.no_key();
        let value = HeaderValue::from_bytes(format!("Bearer {key}").as_bytes()).expect("a header value");
        call.headers.insert(AUTHORIZATION, value);
        call
    }

    /// No credential at all.
    pub fn no_key(mut self) -> Self {
        self.headers.remove(AUTHORIZATION);
        self
    }

    /// `X-Tenant-ID`.
    pub fn tenant(self, tenant: &str) -> Self {
        self.header(path::TENANT_HEADER, tenant)
    }

    /// `X-User-ID`.
    pub fn user(self, user: &str) -> Self {
        self.header(path::USER_HEADER, user)
    }

    /// One more header; a value beyond ASCII goes out as its UTF-8 bytes.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// More query parameters, encoded as they need to be.
    pub fn query(mut self, parameters: &[(&str, &str)]) -> Self {
        if !parameters.is_empty() {
            self.url.query_pairs_mut().extend_pairs(parameters);
        }
        self
    }

    /// A JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.json_text(body.to_string())
    }

    /// A JSON body, byte for byte as given, valid or not.
    pub fn json_text(self, body: impl Into<Vec<u8>>) -> Self {
        self.body(body, "application/json")
    }

    /// A body of any kind.
    pub fn body(self, body: impl Into<Vec<u8>>, content_type: &str) -> Self {
        let mut call = self.untyped_body(body);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a content type"));
        call
    }

    /// A body without a content type.
    pub fn untyped_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it as it is. Panics when no answer comes.
    pub(crate) async fn answer(self) -> reqwest::Response {
        let request = self.http.request(self.method, self.url).headers(self.headers);
        request.send().await.expect("an answer")
    }

    /// Sends it. Panics when no answer comes, or one that no call may ever get: a 5xx other than 503, or one without
    /// `X-Request-ID`.
    pub async fn send(self) -> HttpAnswer {
        let what = format!("{} {}", self.method, self.url);
        let mut request = self.http.request(self.method, self.url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let mut response =
            request.send().await.unwrap_or_else(|error| panic!("{what}: no answer: {error:?}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
            // A stream has no end: its beginning must do.
            let body = response.chunk().await.ok().flatten().unwrap_or_default().to_vec();
            return HttpAnswer { status, headers, body, what };
        }
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{what}: half an answer: {error:?}"));
        let answer = HttpAnswer { status, headers, body: body.to_vec(), what };
        assert!(status < 500 || status == 503, "no input may produce this: {answer:?}");
        assert!(
            answer.header(path::REQUEST_ID_HEADER).is_some_and(|id| !id.is_empty()),
            "no request id: {answer:?}"
        );
        answer
    }
}

/// The answer to a call.
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Vec<u8>,
    what: String,
}

impl HttpAnswer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap_or_else(|_| panic!("not UTF-8: {self:?}"))
    }

    /// The body as JSON. Numbers beyond 64 bits lose digits here: compare such payloads with [`HttpAnswer::raw`].
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The JSON text of one member exactly as it stands in the body, such as `tasks.0.request`.
    #[track_caller]
    pub fn raw(&self, member: &str) -> String {
        raw(&self.text(), member)
    }

    /// The answer itself, which is a success.
    #[track_caller]
    pub fn success(&self) -> &Self {
        assert!((200..300).contains(&self.status), "a success was expected: {self:?}");
        self
    }

    /// The body of a success; `null` when it is empty.
    #[track_caller]
    pub fn ok(&self) -> Value {
        self.success();
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem of that status and code, whole and in its right form.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{code} was expected: {self:?}");
        let content_type = self.header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        assert_eq!(media_type, "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_problem(&problem, status, code);
        assert_eq!(problem["request_id"].as_str(), self.header(path::REQUEST_ID_HEADER), "{self:?}");
        if status == 429 || status == 503 {
            let seconds = problem["retry_after_seconds"].as_u64().map(|seconds| seconds.to_string());
            assert!(seconds.is_some() && seconds.as_deref() == self.header("retry-after"), "{self:?}");
        }
        problem
    }
}

impl std::fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(2000).collect();
        write!(f, "{} answered {} {:?}\n{text}", self.what, self.status, self.headers)
    }
}

/// Checks a problem, in an answer of its own or beside others in the answer to a batch.
#[track_caller]
pub fn assert_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["code"], code, "{problem:#}");
    assert_eq!(problem["status"], status, "{problem:#}");
    for member in ["type", "title", "detail", "request_id"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem:#}");
    }
    let known: ErrorCode = serde_json::from_value(problem["code"].clone()).expect("a documented code");
    assert_eq!(problem["retryable"], known.is_retryable(), "{problem:#}");
    if code == "validation_failed" {
        let errors = problem["errors"].as_array().filter(|errors| !errors.is_empty());
        for error in errors.unwrap_or_else(|| panic!("no errors: {problem:#}")) {
            // What a `PUT` would make is named in its path.
            let is_placed = error["loc"][0] == "body" || error["loc"][0] == "path";
            assert!(is_placed, "{problem:#}");
            assert!(error["msg"].is_string() && error["type"].is_string(), "{problem:#}");
        }
    }
}

/// The `id` of a task or key.
#[track_caller]
pub fn id_of(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value:#}"))
}

/// The JSON text of one member exactly as it stands in `json`: names and places in lists, joined by dots.
#[track_caller]
pub fn raw(json: &str, member: &str) -> String {
    let mut text = json.to_owned();
    for step in member.split('.') {
        let found = if let Ok(place) = step.parse::<usize>() {
            serde_json::from_str::<Vec<Box<RawValue>>>(&text)
                .ok()
                .and_then(|mut list| if place < list.len() { Some(list.swap_remove(place)) } else { None })
        } else {
            serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&text)
                .ok()
                .and_then(|mut map| map.remove(step))
        };
        found.unwrap_or_else(|| panic!("no {member} in {json:.2000}")).get().clone_into(&mut text);
    }
    text
}

/// `text` as one step of a path, with everything but letters and digits percent-encoded.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
