//! What becomes of finished results when something between worker and service answers, or finds them too large.

mod stub;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stub::queue::{Told, leased, outcomes, queue};
use stub::{Asked, Reply};
use task_repo_client::{TaskContext, UsageReport, WorkerReport};
use tokio::sync::Barrier;

fn text(status: u16, body: &str) -> Reply {
    Reply::Answer { status, body: body.to_owned() }
}

/// A worker with one task, whose first deliveries are answered with `answers`.
async fn delivered_after(answers: Vec<Reply>) {
    let failures = answers.len();
    let mut answers = answers.into_iter();
    let stub = queue([leased(1, &Value::Null)], move |request: &Asked| {
        if request.path() == "/tasks/outcomes" { answers.next() } else { None }
    });
    let (told, runs) = (Told::default(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&runs);
    let worker = told.worker(&stub).register("a", async move |_: TaskContext, (): ()| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok("done")
    });
    let worker = worker.build().expect("a worker").start();
    told.until("Settled", 1).await;
    assert_eq!(told.count("DeliveryFailed"), failures, "{:?}", told.all());
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.claimed, report.completed, report.unsettled, report.lost), (1, 1, 0, 0));
    assert_eq!(runs.load(Ordering::SeqCst), 1, "the handler runs once");
    assert_eq!(outcomes(&stub)[failures]["result"], "done");
}

#[tokio::test]
async fn a_page_of_somebody_else_ends_no_delivery() {
    delivered_after(vec![text(404, "no such route"), text(200, "<html>welcome</html>")]).await;
}

#[tokio::test]
async fn a_login_ends_no_delivery() {
    delivered_after(vec![text(302, ""), text(401, r#"{"message":"log in first"}"#)]).await;
}

#[tokio::test]
async fn an_answer_that_is_half_there_ends_no_delivery() {
    let short = json!({ "results": [], "tasks": [] });
    delivered_after(vec![
        Reply::json(200, &short),
        Reply::json(200, &json!({ "results": [{}], "tasks": [] })),
    ])
    .await;
}

#[tokio::test]
async fn what_a_proxy_finds_too_large_alone_is_tried_again() {
    delivered_after(vec![text(413, "too large")]).await;
}

/// Runs a worker that finishes `count` results of that many bytes at once; the stub takes bodies of up to `limit` bytes.
async fn deliver(count: u128, bytes: usize, limit: usize) -> (Vec<usize>, WorkerReport) {
    let tasks = (1..=count).map(|number| leased(number, &Value::Null));
    let stub = queue(tasks, move |request: &Asked| {
        (request.body.len() > limit).then(|| text(413, "<html>413 Request Entity Too Large</html>"))
    });
    let told = Told::default();
    let slots = usize::try_from(count).expect("few");
    let barrier = Arc::new(Barrier::new(slots));
    let worker = told.worker(&stub).concurrency(slots).register("a", async move |_: TaskContext, (): ()| {
        barrier.wait().await;
        Ok("x".repeat(bytes))
    });
    let worker = worker.build().expect("a worker").start();
    told.until("Settled", slots).await;
    let report = worker.stop().await.expect("it works");
    let sizes = stub.requests_for("/tasks/outcomes").iter().map(|asked| asked.body.len()).collect();
    (sizes, report)
}

#[tokio::test]
async fn deliveries_stay_below_what_proxies_take() {
    let (sizes, report) = deliver(12, 400_000, usize::MAX).await;
    assert!(sizes.len() >= 6 && sizes.iter().all(|size| *size < 1 << 20), "{sizes:?}");
    assert_eq!((report.completed, report.unsettled), (12, 0));
}

#[tokio::test]
async fn what_is_too_large_together_goes_in_halves() {
    let (sizes, report) = deliver(8, 100_000, 150_000).await;
    assert_eq!((report.completed, report.unsettled), (8, 0));
    assert_eq!(sizes.iter().filter(|size| **size < 150_000).count(), 8, "{sizes:?}");
    // One body with all is refused, or some of different sizes, but what was learned is kept.
    let refused = sizes.iter().filter(|size| **size > 150_000).count();
    assert!((1..=7).contains(&refused), "{sizes:?}");
}

/// A firewall objects to one result of many: the others are not kept back by it.
#[tokio::test]
async fn a_result_that_something_objects_to_keeps_no_other_back() {
    let tasks = (1..=8).map(|number| leased(number, &json!(if number == 3 { "drop table" } else { "fine" })));
    let stub = queue(tasks, |request: &Asked| {
        let is_wicked = String::from_utf8_lossy(&request.body).contains("drop table");
        is_wicked.then(|| text(403, "<html>Forbidden</html>"))
    });
    let (told, barrier) = (Told::default(), Arc::new(Barrier::new(8)));
    let worker =
        told.worker(&stub).concurrency(8).register("a", async move |_: TaskContext, text: String| {
            barrier.wait().await;
            Ok(text)
        });
    let worker = worker.build().expect("a worker").start();
    told.until("Settled", 7).await;
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.completed, report.unsettled, report.still_running), (7, 0, 0));
}

#[tokio::test]
async fn a_result_larger_than_a_delivery_goes_alone() {
    let (sizes, report) = deliver(2, 1_000_000, usize::MAX).await;
    assert_eq!((sizes.len(), report.completed), (2, 2));
}

/// Runs a handler once and returns how its task was settled.
async fn settled(
    handler: impl FnOnce(TaskContext) -> Result<Value, task_repo_client::TaskFailure>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Value {
    let stub = queue([leased(1, &Value::Null)], |_: &Asked| None);
    let told = Told::default();
    let worker = told.worker(&stub).register("a", async move |ctx: TaskContext, (): ()| handler(ctx));
    let worker = worker.build().expect("a worker").start();
    told.until("Settled", 1).await;
    worker.stop().await.expect("it works");
    outcomes(&stub).remove(0)
}

#[tokio::test]
async fn a_result_is_not_lost_for_what_goes_with_it() {
    let outcome = settled(|ctx| {
        ctx.add_usage(UsageReport { credits_consumed: f64::NAN, tokens_used: i64::MAX, api_calls_made: -1 });
        ctx.set_result_id("");
        Ok(json!(7))
    })
    .await;
    assert_eq!((&outcome["outcome"], &outcome["result"]), (&json!("completed"), &json!(7)));
    assert_eq!(outcome.get("result_id"), None);
    let usage =
        json!({ "credits_consumed": 0.0, "tokens_used": 1_000_000_000_000_000_i64, "api_calls_made": 0 });
    assert_eq!(outcome["usage"], usage);
}

#[tokio::test]
async fn a_result_that_is_no_number_is_the_handler_s_error() {
    let stub = queue([leased(1, &Value::Null)], |_: &Asked| None);
    let told = Told::default();
    let worker = told.worker(&stub).register("a", async |_: TaskContext, (): ()| Ok([1.0, f64::NAN]));
    let worker = worker.build().expect("a worker").start();
    told.until("Settled", 1).await;
    worker.stop().await.expect("it works");
    let outcome = outcomes(&stub).remove(0);
    assert_eq!(
        (&outcome["outcome"], &outcome["error"]["code"]),
        (&json!("failed"), &json!("invalid_result"))
    );
    assert!(outcome["error"]["message"].as_str().is_some_and(|message| message.contains("NaN")), "{outcome}");
}
