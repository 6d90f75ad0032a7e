//! The one place that turns errors into problems.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use task_repo_protocol::{ErrorCode, Problem, Status, Violation};

use crate::store::StoreError;
use crate::tasks::Failure;

/// Why a request is refused, before it has a request id.
#[derive(Debug, Clone)]
pub(super) struct Rejection {
    code: ErrorCode,
    detail: String,
    task_id: Option<String>,
    errors: Option<Vec<Violation>>,
    current_status: Option<Status>,
    attempt: Option<u32>,
    allow: Option<String>,
}

/// What every handler ends in.
pub(super) type Answer = Result<HttpResponse, Rejection>;

impl Rejection {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            task_id: None,
            errors: None,
            current_status: None,
            attempt: None,
            allow: None,
        }
    }

    /// A query parameter or header that breaks its rule.
    pub(super) fn parameter(name: &str, rule: &str) -> Self {
        Self::new(ErrorCode::InvalidParameter, format!("{name}: {rule}"))
    }

    /// JSON that does not fit.
    pub(super) fn invalid(errors: Vec<Violation>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| {
            let place: Vec<_> = first
                .loc
                .iter()
                .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
                .collect();
            format!("{}: {}", place.join("."), first.msg)
        });
        Self { errors: Some(errors), ..Self::new(ErrorCode::ValidationFailed, detail) }
    }

    /// Whether it is about JSON that does not fit.
    pub(super) fn is_invalid(&self) -> bool {
        self.code == ErrorCode::ValidationFailed
    }

    /// The route has only these methods.
    pub(super) fn method(allow: String) -> Self {
        let detail = format!("the route has {allow}");
        Self { allow: Some(allow), ..Self::new(ErrorCode::MethodNotAllowed, detail) }
    }

    fn about(self, task: impl Into<String>) -> Self {
        Self { task_id: Some(task.into()), ..self }
    }

    fn standing_at(self, status: Status) -> Self {
        Self { current_status: Some(status), ..self }
    }

    /// The problem as an answer shows it.
    pub(super) fn problem(self, request_id: &str) -> Problem {
        let retry_after = self.code.is_retryable().then_some(1);
        Problem {
            task_id: self.task_id,
            errors: self.errors,
            current_status: self.current_status,
            attempt: self.attempt,
            retry_after_seconds: retry_after,
            ..Problem::new(self.code, self.detail, request_id)
        }
    }

    /// The whole answer.
    pub(super) fn into_response(self, request_id: &str) -> HttpResponse {
        let allow = self.allow.clone();
        let problem = self.problem(request_id);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json");
        if let Some(seconds) = problem.retry_after_seconds {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(allow) = allow {
            response.insert_header((header::ALLOW, allow));
        }
        if problem.code == ErrorCode::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(&problem).unwrap_or_default())
    }
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        let detail = failure.to_string();
        let new = |code| Self::new(code, detail);
        match failure {
            Failure::TaskNotFound(id) => new(ErrorCode::TaskNotFound).about(id),
            Failure::ResultNotFound(_) => new(ErrorCode::TaskNotFound),
            Failure::KeyNotFound(_) => new(ErrorCode::KeyNotFound),
            Failure::NotClaimable { id, status } => {
                new(ErrorCode::TaskNotClaimable).about(id.to_string()).standing_at(status)
            }
            Failure::InvalidTransition { id, status } => {
                new(ErrorCode::InvalidTransition).about(id.to_string()).standing_at(status)
            }
            Failure::LeaseLost { id, status, attempt } => Self {
                attempt: Some(attempt),
                ..new(ErrorCode::LeaseLost).about(id.to_string()).standing_at(status)
            },
            Failure::VersionConflict { id, .. } => new(ErrorCode::VersionConflict).about(id.to_string()),
            Failure::TooLarge => new(ErrorCode::PayloadTooLarge),
            Failure::TypeForbidden(_) | Failure::UserForbidden => new(ErrorCode::Forbidden),
            Failure::IdempotencyKeyReused => new(ErrorCode::IdempotencyKeyReused),
            Failure::Store(StoreError::Unavailable) => new(ErrorCode::Unavailable),
            Failure::Store(StoreError::Overloaded) => new(ErrorCode::Overloaded),
            Failure::Store(StoreError::OutcomeUnknown) => new(ErrorCode::OutcomeUnknown),
        }
    }
}
