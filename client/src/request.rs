//! One request before it is sent: method, path, query, body, and when it may be sent again.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use task_repo_protocol::{Json, path};

use crate::error::{ClientError, Result};
use crate::retry::Repeat;

/// A request to one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    /// The path with its placeholders: names the request in errors without naming any id.
    pub(crate) endpoint: &'static str,
    pub(crate) method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) repeat: Repeat,
    /// How long the caller lets the service wait before it answers.
    pub(crate) wait: Duration,
    /// Replaces the client's time for one attempt.
    pub(crate) timeout: Option<Duration>,
}

impl ApiRequest {
    /// Reads; always safe to repeat.
    pub(crate) fn get(endpoint: &'static str) -> Self {
        Self::new(Method::GET, endpoint, Repeat::Always)
    }

    /// Changes something; `repeat` says when it may be sent again.
    pub(crate) fn post(endpoint: &'static str, repeat: Repeat) -> Self {
        Self::new(Method::POST, endpoint, repeat)
    }

    /// Changes something; `repeat` says when it may be sent again.
    pub(crate) fn put(endpoint: &'static str, repeat: Repeat) -> Self {
        Self::new(Method::PUT, endpoint, repeat)
    }

    /// Removes something; done when it is gone.
    pub(crate) fn delete(endpoint: &'static str) -> Self {
        Self::new(Method::DELETE, endpoint, Repeat::UntilGone)
    }

    fn new(method: Method, endpoint: &'static str, repeat: Repeat) -> Self {
        Self {
            endpoint,
            method,
            path: endpoint.to_owned(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            repeat,
            wait: Duration::ZERO,
            timeout: None,
        }
    }

    /// Fills the path's placeholder.
    ///
    /// # Errors
    /// When no path can carry `value`.
    pub(crate) fn at(mut self, value: &str) -> Result<Self> {
        // URLs drop these two segments however they are spelled, and another endpoint would be called.
        if matches!(value, "" | "." | "..") {
            return Err(ClientError::InvalidArgument(format!(
                "{value:?} cannot be an id: a URL would drop it from its path"
            )));
        }
        self.path = fill(&self.path, value);
        Ok(self)
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sets a header.
    ///
    /// # Errors
    /// When a header cannot carry `value`.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.insert(HeaderName::from_static(name), header_value(name, value)?);
        Ok(self)
    }

    /// Sets the body.
    ///
    /// # Errors
    /// When `body` has no JSON form.
    pub(crate) fn json<T: Serialize + ?Sized>(mut self, body: &T) -> Result<Self> {
        // Written once: every repetition sends the very same bytes, as idempotency keys demand.
        self.body = Some(Json::of(body).map_err(ClientError::Encode)?.into_text().into());
        Ok(self)
    }

    /// Lets the service wait that long before it answers.
    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Replaces the client's time for one attempt.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The whole URL. `base` has no slash at its end.
    ///
    /// # Errors
    /// When `base` is no URL.
    pub(crate) fn url(&self, base: &str) -> Result<Url> {
        let mut url = Url::parse(&format!("{base}{}{}", path::BASE, self.path)).map_err(|error| {
            ClientError::InvalidArgument(format!("the base URL and the path make no URL: {error}"))
        })?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// The value as a header carries it.
///
/// # Errors
/// When a header cannot carry it.
pub(crate) fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value)
        .ok()
        .filter(|_| value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '))
        .ok_or_else(|| {
            ClientError::InvalidArgument(format!("{name}: visible ASCII characters or spaces are expected"))
        })
}

/// Puts `value`, percent-encoded, in place of the path's first placeholder.
fn fill(path: &str, value: &str) -> String {
    let Some((before, rest)) = path.split_once('{') else { return path.to_owned() };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    let mut filled = String::with_capacity(before.len() + value.len() + after.len());
    filled.push_str(before);
    for byte in value.bytes() {
        // Only the unreserved characters of RFC 3986 stay: a proxy might give any other a meaning.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            filled.push(char::from(byte));
        } else {
            let _ = write!(filled, "%{byte:02X}");
        }
    }
    filled.push_str(after);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(value: &str) -> String {
        let request = ApiRequest::get(path::TASKS_BY_RESULT).at(value).expect("can be carried");
        request.url("http://host").expect("a URL").path().to_owned()
    }

    #[test]
    fn path_parameters_are_one_segment() {
        assert_eq!(path_of("abc-1.2_3~"), "/api/v1/tasks/by-result/abc-1.2_3~");
        assert_eq!(path_of("a/b?c#d%e f"), "/api/v1/tasks/by-result/a%2Fb%3Fc%23d%25e%20f");
        assert_eq!(path_of("ключ"), "/api/v1/tasks/by-result/%D0%BA%D0%BB%D1%8E%D1%87");
        assert_eq!(path_of("%2e%2e"), "/api/v1/tasks/by-result/%252e%252e");
        assert_eq!(path_of("{task_id}"), "/api/v1/tasks/by-result/%7Btask_id%7D");
    }

    #[test]
    fn a_segment_that_urls_drop_is_refused() {
        for value in ["", ".", ".."] {
            assert!(ApiRequest::get(path::TASKS_BY_RESULT).at(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn placeholders_in_the_middle_are_filled() {
        let request =
            ApiRequest::post(path::KEY_ROTATE, Repeat::Unapplied).at("k 1").expect("can be carried");
        assert_eq!(
            request.url("http://host/prefix").expect("a URL").path(),
            "/prefix/api/v1/keys/k%201/rotate"
        );
    }

    #[test]
    fn query_parameters_may_repeat() {
        let request = ApiRequest::get(path::TASKS).query("tag", "a:b&c").query("tag", "d:é");
        let url = request.url("http://host").expect("a URL");
        assert_eq!(url.query(), Some("tag=a%3Ab%26c&tag=d%3A%C3%A9"));
    }

    #[test]
    fn headers_carry_visible_ascii() {
        assert!(header_value("x", "key-1").is_ok());
        assert!(header_value("x", "a\nb").is_err());
        assert!(header_value("x", "schlüssel").is_err());
    }
}
