//! Why a call did not succeed, and whether a repetition helps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use task_repo_protocol::{AttemptEnd, ErrorCode, Problem, Violation};

/// What the methods of this crate answer with.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a call did not succeed. By then, the client has repeated it as often as its
/// [`RetryBudget`](crate::RetryBudget) allows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The call was not sent: an argument or setting cannot be.
    #[error("{0}")]
    InvalidArgument(String),
    /// The call was not sent: a value has no JSON form.
    #[error("the value has no JSON form")]
    Encode(#[source] serde_json::Error),
    /// The service refused, and said why.
    #[error("{}: {} (request {})", .0.code, description(.0), .0.request_id)]
    Refused(Box<Problem>),
    /// The answer is not one the service gives; a proxy in between, perhaps.
    #[error(
        "{call}: the answer has HTTP status {status} and is none of the service's{}: the base URL may lead elsewhere, or a \
         proxy may have answered{}",
        beginning(.body),
        through(.proxy.as_deref())
    )]
    Unexpected {
        /// The method and path.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// From the `Retry-After` header.
        retry_after: Option<Duration>,
        /// The body's beginning, up to 512 bytes; of a redirect, where it leads.
        body: String,
        /// The proxy from the environment that the call went through, without its credentials.
        proxy: Option<Arc<str>>,
    },
    /// The service accepted the call, and its answer cannot be read.
    #[error("{call}: the answer cannot be read")]
    Decode {
        /// The path.
        call: &'static str,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The call, or its answer, did not arrive.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl ClientError {
    /// An item of an answer that has neither of the two members of which it must have one. `call` names the answer.
    pub(crate) fn incomplete_item(call: &'static str, one: &str, other: &str) -> Self {
        let source = serde::de::Error::custom(format_args!("an item has neither {one} nor {other}"));
        Self::Decode { call, source }
    }

    /// The problem, where the service refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's stable code, where the service refused.
    pub fn code(&self) -> Option<ErrorCode> {
        self.problem().map(|problem| problem.code)
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.retryable,
            Self::Unexpected { status, .. } => matches!(status, 408 | 429 | 502..=504),
            Self::Transport(_) => true,
            Self::InvalidArgument(_) | Self::Encode(_) | Self::Decode { .. } => false,
        }
    }

    /// Whether the service itself has refused, and will go on to, or the call cannot be sent. Anything else, such as a
    /// proxy's page or an answer that cannot be read, says nothing about the call and may pass.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused(problem) => !problem.retryable,
            Self::InvalidArgument(_) | Self::Encode(_) => true,
            Self::Unexpected { .. } | Self::Decode { .. } | Self::Transport(_) => false,
        }
    }

    /// Whether the call's body is larger than the service, or a proxy before it, takes.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.code == ErrorCode::PayloadTooLarge,
            Self::Unexpected { status, .. } => *status == 413,
            _ => false,
        }
    }

    /// Whether something before the service may have objected to this very body. A server that is away objects to none.
    pub(crate) fn may_be_about_the_body(&self) -> bool {
        match self {
            Self::Unexpected { .. } | Self::Decode { .. } => !self.is_retryable(),
            Self::Transport(error) => !error.is_connect() && !error.is_timeout(),
            Self::Refused(_) | Self::InvalidArgument(_) | Self::Encode(_) => false,
        }
    }

    /// Whether it is open if the call had its effect. `false`: it certainly had none.
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            Self::Refused(problem) => {
                match problem.code {
                    ErrorCode::OutcomeUnknown | ErrorCode::Internal | ErrorCode::Duplicate => true,
                    // An unknown code may stand for a defect or for a refusal; the status says which.
                    ErrorCode::Other(_) => problem.status >= 500,
                    _ => false,
                }
            }
            Self::Unexpected { status, .. } => *status >= 500 || *status < 300,
            Self::Transport(error) => !error.is_connect(),
            Self::Decode { .. } => true,
            Self::InvalidArgument(_) | Self::Encode(_) => false,
        }
    }

    /// On `lease_lost`: how the attempt ended whose token was shown, where the token was one of the task's.
    pub fn attempt_end(&self) -> Option<&AttemptEnd> {
        self.problem()?.ended.as_ref()
    }

    /// How long the service asks to wait before a repetition.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after_seconds.map(Duration::from_secs),
            Self::Unexpected { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// How an answer begins that is none of the service's, for the one who looks for where it came from.
fn beginning(body: &str) -> String {
    let text: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect();
    if text.is_empty() { text } else { format!(" (it begins with {text:?})") }
}

/// Says which proxy was between.
fn through(proxy: Option<&str>) -> String {
    proxy.map_or_else(String::new, |proxy| {
        format!("; the call went through the proxy {proxy}, which HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names (NO_PROXY excepts hosts)")
    })
}

/// What happened; of a body with several faults, each.
fn description(problem: &Problem) -> String {
    match problem.errors.as_deref() {
        Some(errors) if errors.len() > 1 => {
            let fault = |error: &Violation| {
                let part =
                    |part: &serde_json::Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
                format!("{}: {}", error.loc.iter().map(part).collect::<Vec<_>>().join("."), error.msg)
            };
            errors.iter().map(fault).collect::<Vec<_>>().join("; ")
        }
        _ => problem.detail.clone(),
    }
}

/// A call, or its answer, did not arrive.
#[derive(Debug)]
pub struct TransportError {
    call: &'static str,
    source: reqwest::Error,
    proxy: Option<Arc<str>>,
}

impl TransportError {
    pub(crate) fn new(call: &'static str, source: reqwest::Error, proxy: Option<Arc<str>>) -> Self {
        // The URL holds ids, which do not belong into logs; the path in `call` has none.
        Self { call, source: source.without_url(), proxy }
    }

    /// Whether no connection came about: the call was certainly not applied.
    pub fn is_connect(&self) -> bool {
        self.source.is_connect()
    }

    /// Whether the time for it ran out.
    pub fn is_timeout(&self) -> bool {
        self.source.is_timeout()
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.is_connect(), self.is_timeout()) {
            (true, _) => "the service cannot be reached",
            (false, true) => "there was no answer in time",
            (false, false) => "the connection broke",
        };
        write!(f, "{}: {what}{}", self.call, through(self.proxy.as_deref()))
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Word;

    use super::*;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused(Box::new(Problem::new(code, "", "r")))
    }

    #[test]
    fn a_refusal_keeps_its_code_and_its_hint() {
        let mut problem = Problem::new(ErrorCode::Overloaded, "busy", "r-1");
        problem.retry_after_seconds = Some(2);
        let error = ClientError::Refused(Box::new(problem));
        assert_eq!(error.code(), Some(ErrorCode::Overloaded));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(error.to_string(), "overloaded: busy (request r-1)");
    }

    #[test]
    fn a_refusal_names_all_faults_of_a_body() {
        let mut problem =
            Problem::new(ErrorCode::ValidationFailed, "body.a: one; one more fault in errors", "r-1");
        let fault = |loc: serde_json::Value, msg: &str| {
            serde_json::from_value(serde_json::json!({"loc": loc, "msg": msg, "type": "value_error"}))
                .expect("a fault")
        };
        let places = [serde_json::json!(["body", "a"]), serde_json::json!(["body", "tasks", 3, "b"])];
        problem.errors =
            Some(places.into_iter().zip(["one", "two"]).map(|(loc, msg)| fault(loc, msg)).collect());
        let error = ClientError::Refused(Box::new(problem));
        assert_eq!(error.to_string(), "validation_failed: body.a: one; body.tasks.3.b: two (request r-1)");
    }

    #[test]
    fn only_an_open_outcome_may_have_been_applied() {
        for code in ErrorCode::ALL {
            let open = matches!(code, ErrorCode::OutcomeUnknown | ErrorCode::Internal | ErrorCode::Duplicate);
            assert_eq!(refused(*code).may_have_been_applied(), open, "{code}");
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_what_the_problem_says() {
        let unknown = |status, retryable| {
            let code = ErrorCode::Other(Word::new("a_code_of_the_future").expect("short enough"));
            ClientError::Refused(Box::new(Problem { status, retryable, ..Problem::new(code, "", "r") }))
        };
        for status in [400, 404, 409, 422, 429, 499] {
            assert!(!unknown(status, true).may_have_been_applied(), "{status}");
        }
        assert!(unknown(500, false).may_have_been_applied() && unknown(503, true).may_have_been_applied());
        assert!(unknown(409, true).is_retryable() && !unknown(503, false).is_retryable());
    }

    #[test]
    fn gateway_errors_are_retryable() {
        let answer = |status| ClientError::Unexpected {
            call: "GET /tasks",
            status,
            retry_after: None,
            body: String::new(),
            proxy: None,
        };
        assert!(answer(502).is_retryable() && answer(503).is_retryable() && answer(429).is_retryable());
        assert!(!answer(404).is_retryable() && !answer(500).is_retryable());
    }

    #[test]
    fn only_the_service_s_own_word_is_final() {
        for code in ErrorCode::ALL {
            assert_eq!(refused(*code).is_final(), !code.is_retryable(), "{code}");
        }
        for status in [200, 302, 401, 403, 404, 413, 500] {
            let (body, proxy) = (String::new(), None);
            let answer = ClientError::Unexpected { call: "/tasks", status, retry_after: None, body, proxy };
            assert!(!answer.is_final(), "{status}");
            assert_eq!(answer.is_too_large(), status == 413, "{status}");
        }
        let source = serde_json::from_str::<u8>("<html>").expect_err("no number");
        assert!(!ClientError::Decode { call: "/tasks", source }.is_final());
    }
}
