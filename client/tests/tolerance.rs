//! Answers of a newer service: fields that the client does not know are ignored, and words that it does not know kept.

mod stub;

use std::time::Duration;

use serde_json::{Value, json};
use stub::{Reply, Stub, problem, receipt, task};
use task_repo_client::{
    Backoff, ClientError, ErrorCode, ExecutionStatus, Json, Reason, RetryBudget, Role, Status, TaskClient,
    Trigger, Uuid, Word,
};

const FUTURE: &str = "a_word_of_the_future";

fn word() -> Word {
    Word::new(FUTURE).expect("short enough")
}

fn client(stub: &Stub) -> TaskClient {
    let quick = RetryBudget { first_pause: Duration::from_millis(1), ..RetryBudget::default() };
    TaskClient::builder(stub.url()).api_key("key").retry(quick).build().expect("a client")
}

/// The same object with a field that nobody knows yet.
fn newer(mut object: Value) -> Value {
    object["a_field_of_the_future"] = json!({ "deep": [1, null] });
    object
}

fn newer_task() -> Value {
    let now = "2030-01-31T08:00:00.000Z";
    let mut task = newer(task(FUTURE, None));
    task["reason"] = json!(FUTURE);
    task["template"] = newer(json!({ "service_type": "s", "parameters": { "a": 1 } }));
    task["usage"] = newer(json!({ "credits_consumed": 0.5, "tokens_used": 7, "api_calls_made": 1 }));
    task["error"] = newer(json!({ "message": "broken", "code": "c", "details": null }));
    task["lease"] = newer(json!({ "worker_id": "w", "expires_at": now }));
    task["progress"] = newer(json!({ "value": 0.5, "text": null }));
    task["retry"] = newer(json!({ "backoff": FUTURE, "base_seconds": 5, "cap_seconds": 60, "jitter": 0.1 }));
    task["lease_seconds"] = json!(30);
    task
}

#[tokio::test]
async fn a_task_keeps_words_and_ignores_fields() {
    let stub = Stub::start([Reply::json(200, &newer_task())]);
    let task = client(&stub).get_task(Uuid::nil()).await.expect("is read");
    assert_eq!((task.status, task.reason), (Status::Other(word()), Some(Reason::Other(word()))));
    assert_eq!(task.status.as_str(), FUTURE);
    assert_eq!(task.retry.map(|retry| retry.backoff), Some(Backoff::Other(word())));
    assert_eq!(task.lease_seconds, Some(30));
    assert_eq!(task.usage.tokens_used, 7);
    assert_eq!(task.lease.map(|lease| lease.worker_id).as_deref(), Some("w"));
    assert_eq!(task.progress.and_then(|progress| progress.value), Some(0.5));
    assert_eq!(task.error.map(|error| error.message).as_deref(), Some("broken"));
    let template = task.template.expect("has one");
    assert_eq!(template.parameters.json().map(Json::as_str), Some(r#"{"a":1}"#));
}

#[tokio::test]
async fn lists_and_batches_keep_them_as_well() {
    let page = newer(json!({ "tasks": [newer_task()], "next_cursor": null }));
    let results = json!([newer(json!({ "task": newer_task() })), { "problem": unknown(409, false) }]);
    let stub =
        Stub::start([Reply::json(200, &page), Reply::json(200, &newer(json!({ "results": results })))]);
    let client = client(&stub);
    let tasks = client.get_pending_tasks(None, 10).await.expect("is read");
    assert_eq!(tasks[0].status, Status::Other(word()));
    let created = client.create_tasks(&[]).await.expect("is read");
    assert_eq!(created[0].as_ref().map(|task| task.status), Ok(Status::Other(word())));
    assert_eq!(created[1].as_ref().map_err(|problem| problem.code), Err(ErrorCode::Other(word())));
}

#[tokio::test]
async fn executions_keep_how_they_began_and_ended() {
    let execution = newer(json!({
        "execution_id": Uuid::nil(), "attempt": 1, "worker_id": "w", "trigger": FUTURE, "status": FUTURE,
        "started_at": "2030-01-31T08:00:00.000Z", "completed_at": null, "duration_ms": null, "result_id": null,
        "error": newer(json!({ "message": "broken" })), "usage": newer(json!({})),
    }));
    let stub = Stub::start([Reply::json(200, &newer(json!({ "executions": [execution] })))]);
    let executions = client(&stub).get_executions(Uuid::nil()).await.expect("is read");
    assert_eq!(executions[0].trigger, Trigger::Other(word()));
    assert_eq!(executions[0].status, ExecutionStatus::Other(word()));
}

#[tokio::test]
async fn keys_keep_their_roles() {
    let key = newer(json!({
        "id": Uuid::nil(), "name": "n", "roles": ["worker", FUTURE], "tenant_id": "default", "task_types": null,
        "created_at": "2030-01-31T08:00:00.000Z", "expires_at": null, "last_used_at": null,
    }));
    let stub = Stub::start([Reply::json(200, &newer(json!({ "keys": [key] })))]);
    let keys = client(&stub).list_keys().await.expect("is read");
    assert_eq!(keys[0].roles, [Role::Worker, Role::Other(word())]);
}

#[tokio::test]
async fn receipts_and_status_reports_keep_the_status() {
    let mut moved = newer(receipt(&Uuid::nil().to_string(), FUTURE));
    moved["reason"] = json!(FUTURE);
    let stub = Stub::start([Reply::json(200, &moved), Reply::json(200, &newer_task())]);
    let client = client(&stub);
    let receipt = client.cancel_task(Uuid::nil()).await.expect("is read");
    assert_eq!((receipt.status, receipt.reason), (Status::Other(word()), Some(Reason::Other(word()))));
    let report = client.get_task_status(Uuid::nil()).await.expect("is read");
    assert_eq!(report.status, Status::Other(word()));
}

/// A problem whose code only a newer service knows.
fn unknown(status: u16, retryable: bool) -> Value {
    let mut problem = newer(problem(ErrorCode::Internal));
    problem["type"] = json!(format!("urn:task-repo:problem:{FUTURE}"));
    problem["code"] = json!(FUTURE);
    problem["status"] = json!(status);
    problem["retryable"] = json!(retryable);
    problem["current_status"] = json!(FUTURE);
    problem
}

fn refused(status: u16, retryable: bool) -> Reply {
    Reply::json(status, &unknown(status, retryable))
}

#[tokio::test]
async fn an_unknown_code_is_a_refusal_that_says_itself_whether_to_repeat() {
    let stub = Stub::start([refused(503, true), refused(409, false)]);
    let error = client(&stub).get_task(Uuid::nil()).await.expect_err("is refused");
    assert_eq!(stub.requests().len(), 2, "the first was retryable, the second is not");
    assert!(
        matches!(&error, ClientError::Refused(problem) if problem.current_status == Some(Status::Other(word())))
    );
    assert_eq!(error.code(), Some(ErrorCode::Other(word())));
    assert!(!error.is_retryable() && !error.may_have_been_applied());
}

#[tokio::test]
async fn an_unknown_code_may_have_been_applied_when_the_service_failed() {
    let stub = Stub::start([refused(429, true), refused(500, true), refused(500, true)]);
    let error = client(&stub).execute_task(Uuid::nil()).await.expect_err("is refused");
    assert_eq!(stub.requests().len(), 2, "only what was certainly not applied is repeated");
    assert!(error.is_retryable() && error.may_have_been_applied());
}
