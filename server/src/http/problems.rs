//! The one place that turns errors into problems.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use task_repo_protocol::{ErrorCode, Problem, Status, Violation};

use crate::store::StoreError;
use crate::task::AttemptEnd;
use crate::usecases::Failure;

/// Why a request is refused, before it has a request id.
#[derive(Debug, Clone)]
pub(super) struct Rejection(Box<Why>);

#[derive(Debug, Clone)]
struct Why {
    code: ErrorCode,
    detail: String,
    task_id: Option<String>,
    errors: Option<Vec<Violation>>,
    current_status: Option<Status>,
    attempt: Option<u32>,
    ended: Option<AttemptEnd>,
    allow: Option<String>,
    limit: Option<(&'static str, u64, u64)>,
}

/// The result of every handler.
pub(super) type HandlerResult = Result<HttpResponse, Rejection>;

impl Rejection {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let (detail, task_id, errors) = (detail.into(), None, None);
        Self(Box::new(Why {
            code,
            detail,
            task_id,
            errors,
            current_status: None,
            attempt: None,
            ended: None,
            allow: None,
            limit: None,
        }))
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
            let more = match errors.len() {
                1 => String::new(),
                2 => "; one more fault in errors".to_owned(),
                count => format!("; {} more faults in errors", count - 1),
            };
            format!("{}: {}{more}", place.join("."), first.msg)
        });
        let mut rejection = Self::new(ErrorCode::ValidationFailed, detail);
        rejection.0.errors = Some(errors);
        rejection
    }

    /// Whether it is about JSON that does not fit.
    pub(super) fn is_invalid(&self) -> bool {
        self.0.code == ErrorCode::ValidationFailed
    }

    /// The route has only these methods.
    pub(super) fn method(allow: String, detail: String) -> Self {
        let mut rejection = Self::new(ErrorCode::MethodNotAllowed, detail);
        rejection.0.allow = Some(allow);
        rejection
    }

    fn about(mut self, task: impl Into<String>) -> Self {
        self.0.task_id = Some(task.into());
        self
    }

    fn standing_at(mut self, status: Status) -> Self {
        self.0.current_status = Some(status);
        self
    }

    fn beyond(mut self, limit_type: &'static str, limit: u64, current: u64) -> Self {
        self.0.limit = Some((limit_type, limit, current));
        self
    }

    fn in_attempt(mut self, attempt: u32) -> Self {
        self.0.attempt = Some(attempt);
        self
    }

    fn after(mut self, ended: Option<AttemptEnd>) -> Self {
        self.0.ended = ended;
        self
    }

    /// The problem as an answer shows it.
    pub(super) fn problem(self, request_id: &str) -> Problem {
        let Why { code, detail, task_id, errors, current_status, attempt, ended, limit, .. } = *self.0;
        let retry_after_seconds = code.is_retryable().then_some(1);
        Problem {
            task_id,
            errors,
            current_status,
            attempt,
            ended: ended.map(Into::into),
            retry_after_seconds,
            limit_type: limit.map(|(limit_type, ..)| limit_type.to_owned()),
            limit: limit.map(|(_, limit, _)| limit),
            current: limit.map(|(.., current)| current),
            ..Problem::new(code, detail, request_id)
        }
    }

    /// The whole answer.
    pub(super) fn into_response(self, request_id: &str) -> HttpResponse {
        let allow = self.0.allow.clone();
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
            Failure::TaskNotFound(id) | Failure::NotUnreadable(id) => new(ErrorCode::TaskNotFound).about(id),
            Failure::ResultNotFound(_) => new(ErrorCode::TaskNotFound),
            Failure::KeyNotFound(_) => new(ErrorCode::KeyNotFound),
            Failure::NotClaimable { id, status } => {
                new(ErrorCode::TaskNotClaimable).about(id.to_string()).standing_at(status)
            }
            Failure::InvalidTransition { id, status, .. } => {
                new(ErrorCode::InvalidTransition).about(id.to_string()).standing_at(status)
            }
            Failure::LeaseLost { id, status, attempt, ended } => new(ErrorCode::LeaseLost)
                .about(id.to_string())
                .standing_at(status)
                .in_attempt(attempt)
                .after(ended),
            Failure::VersionConflict { id, .. } => new(ErrorCode::VersionConflict).about(id.to_string()),
            Failure::LimitExceeded { limit_type, limit, current } => {
                new(ErrorCode::LimitExceeded).beyond(limit_type, limit, current)
            }
            Failure::TooLarge => new(ErrorCode::PayloadTooLarge),
            Failure::TypeForbidden(_) | Failure::UserForbidden => new(ErrorCode::Forbidden),
            Failure::IdempotencyKeyReused { id: None } => new(ErrorCode::IdempotencyKeyReused),
            Failure::IdempotencyKeyReused { id: Some(id) } => {
                new(ErrorCode::IdempotencyKeyReused).about(id.to_string())
            }
            Failure::Defect => new(ErrorCode::Internal),
            Failure::Store(StoreError::Unavailable | StoreError::Unreadable | StoreError::Unindexed) => {
                new(ErrorCode::Unavailable)
            }
            Failure::Store(StoreError::Overloaded) => new(ErrorCode::Overloaded),
            Failure::Store(StoreError::OutcomeUnknown) => new(ErrorCode::OutcomeUnknown),
        }
    }
}
