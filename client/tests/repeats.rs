//! What the client repeats, what it does not, and that a repetition carries the same key, claim id or token.
//!
//! Against a stub that answers as it is told; everything else is tested against the real service.

mod stub;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stub::{Reply, Stub, problem, task};
use task_repo_client::{Claim, ClientError, ErrorCode, NewTask, RetryBudget, TaskClient, TaskEdit, Uuid};

fn client(stub: &Stub) -> TaskClient {
    let quick = RetryBudget { first_pause: Duration::from_millis(1), ..RetryBudget::default() };
    TaskClient::builder(stub.url()).api_key("key").retry(quick).build().expect("a client")
}

#[tokio::test]
async fn a_create_is_repeated_with_the_same_key_and_body() {
    let stub = Stub::start([
        Reply::problem(ErrorCode::Overloaded),
        Reply::Hang,
        Reply::Close,
        Reply::problem(ErrorCode::OutcomeUnknown),
        Reply::json(201, &task("pending", None)),
    ]);
    let quick = RetryBudget { first_pause: Duration::from_millis(1), ..RetryBudget::default() };
    let client = TaskClient::builder(stub.url()).timeout(Duration::from_millis(200)).retry(quick).build();
    let created = client.expect("a client").create_task(&NewTask::new("a")).await;
    assert!(created.is_ok(), "{created:?}");
    let requests = stub.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests[0].header("idempotency-key").is_some());
    for request in &requests {
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert_eq!(request.body, requests[0].body);
    }
}

#[tokio::test]
async fn two_creates_have_two_keys() {
    let stub =
        Stub::start([Reply::json(201, &task("pending", None)), Reply::json(201, &task("pending", None))]);
    let client = client(&stub);
    for _ in 0..2 {
        client.create_task(&NewTask::new("a")).await.expect("is created");
    }
    let requests = stub.requests();
    assert_ne!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
}

#[tokio::test]
async fn a_claim_is_repeated_with_the_same_claim_id() {
    let claimed = json!({ "tasks": [task("processing", Some("token"))] });
    let stub = Stub::start([Reply::Close, Reply::json(200, &claimed)]);
    let claim = Claim { task_types: vec!["a".into()], worker_id: "w".into(), ..Claim::default() };
    let tasks = client(&stub).claim(&claim).await.expect("is claimed");
    assert_eq!(tasks[0].lease_token(), "token");
    let ids: Vec<Value> = stub.requests().iter().map(|request| request.json()["claim_id"].clone()).collect();
    assert!(ids[0].is_string());
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_settlement_is_repeated_with_its_token_and_comes_back_when_it_is_refused() {
    let claimed = json!({ "tasks": [task("processing", Some("token"))] });
    let refused = problem(ErrorCode::LeaseLost);
    let stub = Stub::start([Reply::json(200, &claimed), Reply::Close, Reply::json(409, &refused)]);
    let claim = Claim { task_types: vec!["a".into()], worker_id: "w".into(), ..Claim::default() };
    let task = client(&stub).claim(&claim).await.expect("is claimed").remove(0);
    let unsettled = task.complete(&"done").await.expect_err("is refused");
    assert_eq!(unsettled.error.code(), Some(ErrorCode::LeaseLost));
    assert_eq!(unsettled.claimed.lease_token(), "token");
    let requests = stub.requests();
    assert_eq!(requests[1].json(), json!({ "lease_token": "token", "result": "done" }));
    assert_eq!(requests[1].body, requests[2].body);
}

#[tokio::test]
async fn what_has_no_key_is_not_repeated_once_it_may_have_been_applied() {
    let id = Uuid::nil();
    let stub =
        Stub::start([Reply::Close, Reply::Close, Reply::Close, Reply::problem(ErrorCode::OutcomeUnknown)]);
    let client = client(&stub);
    let error = client.execute_task(id).await.expect_err("the connection broke");
    assert!(error.may_have_been_applied() && error.is_retryable());
    assert!(client.edit_task_if(id, &TaskEdit::default(), 3).await.is_err());
    assert!(client.claim_task(id, "w").await.is_err());
    assert!(client.execute_task(id).await.is_err());
    assert_eq!(stub.requests().len(), 4, "each was sent once");
    assert_eq!(stub.requests()[1].header("if-match"), Some("\"3\""));
}

#[tokio::test]
async fn what_has_no_key_is_repeated_when_it_was_not_applied() {
    let stub = Stub::start([Reply::problem(ErrorCode::Overloaded), Reply::json(200, &task("pending", None))]);
    client(&stub).edit_task_if(Uuid::nil(), &TaskEdit::default(), 1).await.expect("is edited");
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn a_delete_that_was_applied_unseen_has_succeeded() {
    let gone = || Reply::problem(ErrorCode::TaskNotFound);
    let stub = Stub::start([Reply::Close, gone(), gone()]);
    let client = client(&stub);
    client.delete_task(Uuid::nil()).await.expect("is gone");
    let error = client.delete_task(Uuid::nil()).await.expect_err("was never there");
    assert_eq!(error.code(), Some(ErrorCode::TaskNotFound));
}

#[tokio::test]
async fn the_service_says_how_long_to_wait() {
    let mut busy = problem(ErrorCode::Overloaded);
    busy["retry_after_seconds"] = json!(1);
    let stub = Stub::start([Reply::json(503, &busy), Reply::json(200, &task("pending", None))]);
    let started = Instant::now();
    client(&stub).get_task(Uuid::nil()).await.expect("is there");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_wish_beyond_the_budget_is_not_waited_for() {
    let mut busy = problem(ErrorCode::Overloaded);
    busy["retry_after_seconds"] = json!(3600);
    let stub = Stub::start([Reply::json(503, &busy)]);
    let error = client(&stub).get_task(Uuid::nil()).await.expect_err("is refused");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let stub = Stub::start([Reply::problem(ErrorCode::ValidationFailed)]);
    let error = client(&stub).create_task(&NewTask::new("")).await.expect_err("is refused");
    assert_eq!(error.code(), Some(ErrorCode::ValidationFailed));
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn time_is_bounded() {
    let stub = Stub::start([Reply::Hang, Reply::Hang]);
    let budget = RetryBudget { attempts: 2, first_pause: Duration::from_millis(1), ..RetryBudget::default() };
    let client = TaskClient::builder(stub.url()).timeout(Duration::from_millis(50)).retry(budget).build();
    let error = client.expect("a client").get_task(Uuid::nil()).await.expect_err("no answer");
    assert!(matches!(&error, ClientError::Transport(transport) if transport.is_timeout()), "{error:?}");
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn nobody_there_is_known_not_to_have_been_applied() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let client = TaskClient::builder(nobody).retry(RetryBudget::none()).build().expect("a client");
    let error = client.execute_task(Uuid::nil()).await.expect_err("nobody listens");
    assert!(!error.may_have_been_applied() && error.is_retryable());
    assert!(!error.to_string().contains(&Uuid::nil().to_string()), "ids stay out of messages: {error}");
}
