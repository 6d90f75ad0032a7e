//! A claim that brings a task which cannot be read: the other tasks count, that one is reported as failed, and the claim
//! is not repeated.

mod stub;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use stub::{Asked, Reply, Stub, problem, receipt, task};
use task_repo_client::{
    Claim, ClaimedTask, ClientError, Completion, Ending, ErrorCode, RetryBudget, TaskClient, TaskContext,
    Uuid, Worker, WorkerEvent, WorkerHandle,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

fn client(stub: &Stub) -> TaskClient {
    let quick = RetryBudget { first_pause: Duration::from_millis(1), ..RetryBudget::default() };
    TaskClient::builder(stub.url()).api_key("key").retry(quick).build().expect("a client")
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn leased(number: u128) -> Value {
    let mut task = task("processing", Some(&format!("token-{number}")));
    task["id"] = json!(id(number));
    task
}

/// Its id and its lease can be read, and it does not fit.
fn broken(number: u128) -> Value {
    let mut task = leased(number);
    task["attempt"] = json!("x");
    task
}

/// What is no text where a token should be.
fn without_token(number: u128) -> Value {
    let mut task = leased(number);
    task["lease"]["token"] = json!(7);
    task
}

fn fail_path(number: u128) -> String {
    format!("/tasks/{}/fail", id(number))
}

/// The reply to an outcome of one task.
fn moved(request: &Asked) -> Reply {
    let id = request.path().split('/').nth(2).expect("a task's path").to_owned();
    Reply::json(200, &receipt(&id, "scheduled"))
}

/// Receipts for all outcomes, and `tasks` as the next work.
fn settled(request: &Asked, tasks: &[Value]) -> Reply {
    let outcomes = request.json()["outcomes"].as_array().cloned().expect("a list");
    let receipt =
        |outcome: &Value| json!({ "receipt": receipt(outcome["id"].as_str().expect("a text"), "completed") });
    let results: Vec<Value> = outcomes.iter().map(receipt).collect();
    Reply::json(200, &json!({ "results": results, "tasks": tasks }))
}

fn assert_reported(stub: &Stub, number: u128) {
    let reports = stub.requests_for(&fail_path(number));
    assert_eq!(reports.len(), 1, "is reported once");
    let report = reports[0].json();
    assert_eq!(report["lease_token"], json!(format!("token-{number}")));
    assert_eq!(report["error"]["code"], "invalid_answer");
    assert_eq!(report.get("retry"), None, "is tried again as usual");
    let message = report["error"]["message"].as_str().expect("a text");
    assert!(message.contains("invalid type: string \"x\", expected u32"), "{message}");
}

fn ids(claimed: &[ClaimedTask]) -> Vec<Uuid> {
    claimed.iter().map(ClaimedTask::id).collect()
}

fn claim() -> Claim {
    Claim { task_types: vec!["a".into()], worker_id: "w".into(), limit: Some(3), ..Claim::default() }
}

#[tokio::test]
async fn a_claim_keeps_what_can_be_read() {
    let stub = Stub::answering(|request| match request.path() {
        "/tasks/claim" => Reply::json(200, &json!({ "tasks": [leased(1), broken(2), leased(3)] })),
        _ => moved(request),
    });
    let claimed = client(&stub).claim(&claim()).await.expect("is claimed");
    assert_eq!(ids(&claimed), [id(1), id(3)]);
    assert_eq!(claimed[1].lease_token(), "token-3");
    assert_reported(&stub, 2);
    assert_eq!(stub.requests_for("/tasks/claim").len(), 1);
    assert_eq!(stub.requests().len(), 2);
}

#[tokio::test]
async fn the_report_is_repeated_and_its_refusal_does_not_cost_the_others() {
    let mut replies = vec![Reply::problem(ErrorCode::LeaseLost), Reply::problem(ErrorCode::Overloaded)];
    let stub = Stub::answering(move |request| match request.path() {
        "/tasks/claim" => Reply::json(200, &json!({ "tasks": [broken(1), leased(2)] })),
        _ => replies.pop().unwrap_or(Reply::Close),
    });
    let claimed = client(&stub).claim(&claim()).await.expect("is claimed");
    assert_eq!(ids(&claimed), [id(2)]);
    assert_eq!(stub.requests_for(&fail_path(1)).len(), 2);
    assert_eq!(stub.requests_for("/tasks/claim").len(), 1);
}

#[tokio::test]
async fn what_cannot_even_be_named_does_not_cost_the_others() {
    let strange =
        [json!(null), json!("x"), json!([1]), json!({}), json!({ "id": 7, "lease": [] }), without_token(1)];
    let stub = Stub::answering(move |_| {
        let tasks: Vec<Value> = strange.iter().cloned().chain([leased(2)]).collect();
        Reply::json(200, &json!({ "tasks": tasks }))
    });
    let claimed = client(&stub).claim(&claim()).await.expect("is claimed");
    assert_eq!(ids(&claimed), [id(2)]);
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn next_work_keeps_what_can_be_read() {
    let stub = Stub::answering(|request| match request.path() {
        "/tasks/claim" => Reply::json(200, &json!({ "tasks": [leased(1)] })),
        "/tasks/outcomes" => settled(request, &[leased(2), broken(3), leased(4)]),
        _ => moved(request),
    });
    let client = client(&stub);
    let first = client.claim(&claim()).await.expect("is claimed").remove(0);
    let settlements = vec![first.ending(Ending::Completed(Completion::default()))];
    let settled = client.settle(settlements, Some(claim())).await.expect("is settled");
    assert!(settled.results[0].is_ok());
    assert_eq!(ids(&settled.next), [id(2), id(4)]);
    assert_reported(&stub, 3);
    assert_eq!(stub.requests_for("/tasks/outcomes").len(), 1);
}

#[tokio::test]
async fn a_known_task_that_cannot_be_read_is_reported_and_an_error() {
    let stub = Stub::answering(|request| match request.path().rsplit('/').next() {
        Some("claim") => {
            let mut task = broken(1);
            task["id"] = json!(null);
            Reply::json(200, &task)
        }
        _ => moved(request),
    });
    let error = client(&stub).claim_task(id(1), "w").await.expect_err("cannot be read");
    assert!(matches!(error, ClientError::Decode { .. }), "{error:?}");
    let reports = stub.requests_for(&fail_path(1));
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].json()["error"]["code"], "invalid_answer");
    assert_eq!(stub.requests().len(), 2);
}

/// Tells of every request, after it was remembered.
fn telling(mut reply: impl FnMut(&Asked) -> Reply + Send + 'static) -> (Stub, UnboundedReceiver<Asked>) {
    let (tell, told) = unbounded_channel();
    let stub = Stub::answering(move |request| {
        // The test may be over.
        let _ = tell.send(request.clone());
        reply(request)
    });
    (stub, told)
}

/// Waits for a request that `what` is looking for.
async fn until(told: &mut UnboundedReceiver<Asked>, mut what: impl FnMut(&Asked) -> bool) {
    let search = async { while !what(&told.recv().await.expect("the stub lives")) {} };
    tokio::time::timeout(Duration::from_secs(10), search).await.expect("is asked for in time");
}

/// A worker with `concurrency` slots, and where it tells what it cannot read.
fn worker(stub: &Stub, concurrency: usize, unread: UnboundedSender<(Option<Uuid>, String)>) -> WorkerHandle {
    Worker::builder(&client(stub))
        .concurrency(concurrency)
        .on_event(move |event| {
            if let WorkerEvent::Undecodable { id, error } = event {
                let _ = unread.send((id, error.to_string()));
            }
        })
        .register("a", async |_: TaskContext, (): ()| Ok(()))
        .build()
        .expect("is built")
        .start()
}

fn claim_ids(requests: &[Asked]) -> Vec<String> {
    let of = |request: &Asked| request.json()["claim_id"].as_str().expect("a text").to_owned();
    requests.iter().map(of).collect()
}

#[tokio::test]
async fn a_worker_works_on_what_its_claim_brought_otherwise() {
    let mut claims = [json!({ "tasks": [leased(1), broken(2), leased(3)] })].into_iter();
    let (stub, mut told) = telling(move |request| match request.path() {
        "/tasks/claim" => claims.next().map_or(Reply::Hang, |claimed| Reply::json(200, &claimed)),
        "/tasks/outcomes" => settled(request, &[]),
        _ => moved(request),
    });
    let (tell, mut unread) = unbounded_channel();
    let worker = worker(&stub, 3, tell);
    let (mut settled, mut reported) = (0, false);
    until(&mut told, |request| {
        reported |= request.path() == fail_path(2);
        if request.path() == "/tasks/outcomes" {
            settled += request.json()["outcomes"].as_array().map_or(0, Vec::len);
        }
        reported && settled == 2
    })
    .await;
    let report = worker.stop().await.expect("stops");
    assert_eq!((report.claimed, report.completed, report.undecodable), (2, 2, 1));
    assert_eq!((report.failed, report.unsettled, report.lost), (0, 0, 0));
    assert_reported(&stub, 2);
    let (told_of, error) = unread.recv().await.expect("was told");
    assert_eq!((told_of, error.as_str()), (Some(id(2)), "/tasks/claim: the answer cannot be read"));
    assert!(unread.recv().await.is_none(), "once");
    let claims = claim_ids(&stub.requests_for("/tasks/claim"));
    assert_eq!(claims.iter().filter(|claim_id| **claim_id == claims[0]).count(), 1, "{claims:?}");
}

#[tokio::test]
async fn a_worker_reports_what_came_with_a_delivery_and_claims_anew() {
    let mut claims = [json!({ "tasks": [leased(1)] })].into_iter();
    let mut next = vec![broken(2)];
    let (stub, mut told) = telling(move |request| match request.path() {
        "/tasks/claim" => claims.next().map_or(Reply::Hang, |claimed| Reply::json(200, &claimed)),
        "/tasks/outcomes" => settled(request, &std::mem::take(&mut next)),
        _ => moved(request),
    });
    let (tell, mut unread) = unbounded_channel();
    let worker = worker(&stub, 1, tell);
    let (mut claimed, mut reported) = (0, false);
    until(&mut told, |request| {
        reported |= request.path() == fail_path(2);
        claimed += usize::from(request.path() == "/tasks/claim");
        // Its only slot is free again.
        reported && claimed == 2
    })
    .await;
    let report = worker.stop().await.expect("stops");
    assert_eq!((report.claimed, report.completed, report.undecodable), (1, 1, 1));
    assert_reported(&stub, 2);
    assert_eq!(unread.recv().await.map(|(told_of, _)| told_of), Some(Some(id(2))));
    let delivered = stub.requests_for("/tasks/outcomes")[0].json();
    let mut claims = claim_ids(&stub.requests_for("/tasks/claim"));
    claims.push(delivered["claim"]["claim_id"].as_str().expect("it asked for work").to_owned());
    assert_eq!(claims.iter().collect::<HashSet<_>>().len(), 3, "no claim is repeated: {claims:?}");
}

#[tokio::test]
async fn a_worker_counts_what_it_cannot_report() {
    let mut claims = [json!({ "tasks": [without_token(1)] })].into_iter();
    let (stub, mut told) =
        telling(move |_| claims.next().map_or(Reply::Hang, |claimed| Reply::json(200, &claimed)));
    let (tell, mut unread) = unbounded_channel();
    let worker = worker(&stub, 1, tell);
    let mut claimed = 0;
    until(&mut told, |request| {
        claimed += usize::from(request.path() == "/tasks/claim");
        claimed == 2
    })
    .await;
    let report = worker.stop().await.expect("stops");
    assert_eq!((report.claimed, report.undecodable), (0, 1));
    assert_eq!(unread.recv().await.map(|(told_of, _)| told_of), Some(Some(id(1))));
    let claims = claim_ids(&stub.requests_for("/tasks/claim"));
    assert_ne!(claims[0], claims[1]);
    assert_eq!(stub.requests().len(), 2, "nothing is reported");
}

#[tokio::test]
async fn a_worker_that_stops_delivers_its_reports_first() {
    let mut claims = [json!({ "tasks": [broken(1)] })].into_iter();
    // Longer than a stopping worker waits for its claims.
    let mut busy = problem(ErrorCode::Overloaded);
    busy["retry_after_seconds"] = json!(1);
    let mut refusals = [Reply::json(503, &busy)].into_iter();
    let stub = Stub::answering(move |request| match request.path() {
        "/tasks/claim" => claims.next().map_or(Reply::Hang, |claimed| Reply::json(200, &claimed)),
        _ => refusals.next().unwrap_or_else(|| moved(request)),
    });
    let (tell, mut unread) = unbounded_channel();
    let worker = worker(&stub, 1, tell);
    unread.recv().await.expect("was told");
    let report = worker.stop().await.expect("stops");
    assert_eq!(report.undecodable, 1);
    let reports = stub.requests_for(&fail_path(1));
    assert_eq!(reports.len(), 2, "the first was refused");
    assert_eq!(reports[0].body, reports[1].body);
}
