//! One example of each problem for the OpenAPI document, made as the answers themselves are.

use task_repo_protocol::{ErrorCode, Problem, Status, Uuid, Violation, timestamp};

use super::problems::Rejection;
use super::request::call::{UNKNOWN_KEY, unauthenticated};
use crate::lifecycle::Verb;
use crate::store::StoreError;
use crate::task::{AttemptEnd, AttemptStatus};
use crate::usecases::Failure;

const REQUEST: &str = "0198f2c4-7a10-7000-8000-00000000000a";
const TASK: Uuid = Uuid::from_u128(0x0198_f2c4_7a10_7000_8000_0000_0000_0001);

/// An example of each problem that documented routes answer.
pub(super) fn problems() -> Vec<Problem> {
    let id = TASK;
    let ended = AttemptEnd {
        status: AttemptStatus::Lost,
        reason: None,
        at: timestamp::parse("2030-01-31T08:00:00Z").unwrap_or_default(),
    };
    let not_found = "there is no such route; GET /openapi.json lists all";
    let malformed = "the body is not JSON: key must be a string at line 1 column 2";
    let media = "send the body as plain JSON in UTF-8, with Content-Type: application/json";
    let rejections: Vec<Rejection> = vec![
        Rejection::new(ErrorCode::MalformedJson, malformed),
        Rejection::parameter("limit", "a whole number from 1 to 100 is expected"),
        unauthenticated(UNKNOWN_KEY),
        Failure::TypeForbidden("mail".to_owned()).into(),
        Failure::no_task(&id.to_string()).into(),
        Failure::no_key(&id.to_string()).into(),
        Failure::no_task_type("mail").into(),
        Failure::LimitExceeded { limit_type: "max_pending", limit: 1000, current: 1000 }.into(),
        Rejection::new(ErrorCode::NotFound, not_found),
        Rejection::method("POST, GET".to_owned(), "/api/v1/tasks has the methods POST, GET only".to_owned()),
        Failure::NotClaimable { id, status: Status::Processing }.into(),
        Failure::InvalidTransition { id, verb: Verb::Edit, status: Status::Completed }.into(),
        Failure::LeaseLost { id, status: Status::Processing, attempt: 2, ended: Some(ended) }.into(),
        Failure::VersionConflict { id, version: 4 }.into(),
        Failure::LimitExceeded { limit_type: "streams", limit: 1000, current: 1000 }.into(),
        Failure::TooLarge.into(),
        Rejection::new(ErrorCode::UnsupportedMediaType, media),
        Rejection::invalid(faults()),
        Failure::IdempotencyKeyReused { id: Some(id) }.into(),
        Failure::Store(StoreError::Unavailable).into(),
        Failure::Store(StoreError::Overloaded).into(),
        Failure::Store(StoreError::OutcomeUnknown).into(),
    ];
    rejections.into_iter().map(|rejection| rejection.problem(REQUEST)).collect()
}

fn faults() -> Vec<Violation> {
    let fault = |field: &str, msg: &str, kind: &str| Violation {
        loc: vec!["body".into(), field.into()],
        msg: msg.to_owned(),
        kind: kind.to_owned(),
    };
    vec![
        fault(
            "priority",
            "a whole number from 0 to 100, or one of low, medium, high, critical is expected, not 101",
            "value_error",
        ),
        fault("task_type", "the field is required", "missing"),
    ]
}
