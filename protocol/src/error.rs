//! Problems (RFC 9457) and their stable codes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::state::{ExecutionStatus, Reason, Status};
use crate::timestamp;
use crate::word::Word;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:literal, $retryable:literal, $title:literal;)+) => {
        /// What went wrong, for programs. The code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name,)+
            /// A code that only a newer version knows. What it means for the caller stands in the [`Problem`].
            Other(Word),
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as it stands on the wire.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                    Self::Other(word) => word.as_str(),
                }
            }

            /// The known code of that name, if there is one.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ Self::Other(_) => 500 }
            }

            /// Whether the same request may succeed later.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)+ Self::Other(_) => false }
            }

            /// The problem's title, for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ Self::Other(_) => "Something else is wrong" }
            }
        }

        crate::word_traits!(ErrorCode, [$($code),+]);
    };
}

#[cfg(feature = "openapi")]
crate::word_schema!(ErrorCode);

error_codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, false, "The body is not valid JSON";
    /// A query parameter or header breaks its rule.
    InvalidParameter = "invalid_parameter", 400, false, "A query parameter or header is invalid";
    /// No credential, or an unknown one.
    Unauthenticated = "unauthenticated", 401, false, "A valid API key is required";
    /// The credential does not allow this.
    Forbidden = "forbidden", 403, false, "The API key does not allow this";
    /// No such task, or not the caller's.
    TaskNotFound = "task_not_found", 404, false, "There is no such task";
    /// No such template.
    TemplateNotFound = "template_not_found", 404, false, "There is no such template";
    /// No such schedule.
    ScheduleNotFound = "schedule_not_found", 404, false, "There is no such schedule";
    /// No such key.
    KeyNotFound = "key_not_found", 404, false, "There is no such key";
    /// No such task type.
    TaskTypeNotFound = "task_type_not_found", 404, false, "There is no such task type";
    /// No such route.
    NotFound = "not_found", 404, false, "There is no such route";
    /// The route exists, with other methods.
    MethodNotAllowed = "method_not_allowed", 405, false, "The route does not have this method";
    /// The task is not `pending`.
    TaskNotClaimable = "task_not_claimable", 409, false, "The task cannot be claimed now";
    /// The task's status does not allow this.
    InvalidTransition = "invalid_transition", 409, false, "The task's status does not allow this";
    /// The token does not hold the task.
    LeaseLost = "lease_lost", 409, false, "The lease token no longer holds the task";
    /// The first request with this idempotency key is still running.
    Duplicate = "duplicate", 409, true, "The same request is still running";
    /// `If-Match` does not hold.
    VersionConflict = "version_conflict", 412, false, "The task has changed since";
    /// More bytes than are taken.
    PayloadTooLarge = "payload_too_large", 413, false, "The body or task is too large";
    /// A body that is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The body must be application/json";
    /// JSON that does not fit.
    ValidationFailed = "validation_failed", 422, false, "The body breaks a rule";
    /// The idempotency key came with another body before.
    IdempotencyKeyReused = "idempotency_key_reused", 422, false, "The idempotency key was used with another body";
    /// A limit is reached.
    LimitExceeded = "limit_exceeded", 429, true, "A limit is reached";
    /// A defect of the service.
    Internal = "internal", 500, false, "The service failed";
    /// Not applied: safe to retry.
    Overloaded = "overloaded", 503, true, "The service is overloaded; nothing was applied";
    /// May have been applied: retry with the same key, claim id or token.
    OutcomeUnknown = "outcome_unknown", 503, true, "It is not known whether this was applied";
    /// A dependency does not answer.
    Unavailable = "unavailable", 503, true, "The service cannot do this now";
}

/// One rule that a body breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Violation {
    /// Where: `["body", "tasks", 3, "priority"]`; names are text, places in a list are numbers.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<serde_json::Value>))]
    pub loc: Vec<serde_json::Value>,
    /// The rule, for people.
    pub msg: String,
    /// The kind of violation, for programs: `missing`, `unknown_field`, `type_error`, `value_error`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// How an attempt ended that no longer holds its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptEnd {
    /// As the executions show it.
    pub status: ExecutionStatus,
    /// Why the task was `scheduled` or `failed` with that.
    pub reason: Option<Reason>,
    /// When it ended.
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}

/// Why a request was refused, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:task-repo:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, for people.
    pub detail: String,
    /// The kind of problem, for programs.
    pub code: ErrorCode,
    /// The request's id, as in `X-Request-ID` and the server's log.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The task it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// On 422: every rule broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Violation>>,
    /// On 409: the status that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_status: Option<Status>,
    /// On `lease_lost`: the task's latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// On `lease_lost`: how the attempt of the shown token ended, where the token was one of the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<AttemptEnd>,
    /// On 429 and 503: when to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// On 429: which limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_type: Option<String>,
    /// On 429: how much is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// On 429: how much there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
}

impl Problem {
    /// A problem of that kind, with nothing optional in it.
    pub fn new(code: ErrorCode, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:task-repo:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: request_id.into(),
            retryable: code.is_retryable(),
            task_id: None,
            errors: None,
            current_status: None,
            attempt: None,
            ended: None,
            retry_after_seconds: None,
            limit_type: None,
            limit: None,
            current: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_the_same_everywhere() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).expect("a name"), code.as_str());
        }
    }
}
