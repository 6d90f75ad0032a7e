//! The worker runtime of the client: handlers, what becomes of their ends, heartbeats, limits and the graceful stop.

#![allow(clippy::unused_async, reason = "a handler is async whether or not it waits for anything")]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use task_repo_client::worker::{WorkerBuilder, WorkerError, WorkerReport};
use task_repo_client::{
    CancelReason, HandlerOptions, TaskContext, TaskFailure, UsageReport, Worker, WorkerEvent,
};
use task_repo_tests::{TestServer, eventually, unique_type};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::verbs::{assert_in_seconds, create_many, executions, id, post, shown, until_status};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(25);

/// A worker at work, until it is stopped.
struct Running {
    stop: CancellationToken,
    work: JoinHandle<Result<WorkerReport, WorkerError>>,
}

impl Running {
    /// Claims may wait only briefly, so that tests need not wait for them at the end.
    fn start(worker: WorkerBuilder) -> Self {
        let worker = worker.wait(Duration::from_secs(2)).build().expect("a worker");
        let stop = CancellationToken::new();
        let work = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
        Self { stop, work }
    }

    async fn stop(self) -> WorkerReport {
        self.stop.cancel();
        let ended = tokio::time::timeout(SOON, self.work).await.expect("the worker stops");
        ended.expect("the worker did not panic").expect("the worker was not refused")
    }
}

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
struct Parcel {
    label: String,
}

async fn pack(context: TaskContext, order: Order) -> Result<Parcel, TaskFailure> {
    context.send_progress(0.5, "packing");
    context.add_usage(UsageReport { tokens_used: 2, ..UsageReport::default() });
    context.add_usage(UsageReport { tokens_used: 3, ..UsageReport::default() });
    context.set_result_id("shelf-7");
    Ok(Parcel { label: format!("{} × {}", order.count, order.item) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_takes_a_request_and_gives_a_result() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let worker = Worker::builder(&server.client()).worker_id("packer").register(&queue, pack);
    let running = Running::start(worker);

    let order = json!({"item": "cup", "count": 3});
    let task = server.create(json!({"task_type": queue, "request": order})).await;
    let done = until_status(&server, &task, "completed").await;
    assert_eq!((&done["result"], &done["result_id"]), (&json!({"label": "3 × cup"}), &json!("shelf-7")));
    assert_eq!(done["usage"]["tokens_used"], 5);
    assert_eq!(done["progress"], json!({"value": 0.5, "text": "packing"}), "the last progress arrives");
    assert_eq!(executions(&server, &task).await[0]["worker_id"], "packer");

    // A request that does not fit will never fit.
    let task = server.create(json!({"task_type": queue, "request": {"item": 1}})).await;
    let failed = until_status(&server, &task, "failed").await;
    assert_eq!((&failed["reason"], &failed["error"]["code"]), (&json!("error"), &json!("invalid_request")));

    let report = running.stop().await;
    assert_eq!((report.claimed, report.completed, report.failed), (2, 1, 1));
}

/// Fails as the request says.
async fn fail_as_told(_: TaskContext, how: String) -> Result<u32, TaskFailure> {
    match how.as_str() {
        "panic" => panic!("as told"),
        "never" => Err(TaskFailure::never("no use").with_code("E7").with_details(&json!({"n": 1}))),
        "later" => Err(TaskFailure::retry_after("busy", Duration::from_secs(500))),
        number => Ok(number.parse()?),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_what_comes_next() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let running = Running::start(Worker::builder(&server.client()).register(&queue, fail_as_told));
    let retry = json!({"backoff": "fixed", "base_seconds": 100, "jitter": 0});
    let create = async |how: &str, max_attempts: u32| {
        let task = json!({"task_type": queue, "request": how, "max_attempts": max_attempts, "retry": retry});
        server.create(task).await
    };

    let panicked = until_status(&server, &create("panic", 2).await, "scheduled").await;
    assert_eq!((&panicked["reason"], &panicked["error"]["code"]), (&json!("retry"), &json!("panic")));
    assert_in_seconds(&panicked["run_at"], 100);
    let panicked = until_status(&server, &create("panic", 1).await, "failed").await;
    assert_eq!((&panicked["reason"], &panicked["error"]["code"]), (&json!("exhausted"), &json!("panic")));

    let hopeless = until_status(&server, &create("never", 5).await, "failed").await;
    assert_eq!(hopeless["reason"], "error");
    assert_eq!(hopeless["error"], json!({"message": "no use", "code": "E7", "details": {"n": 1}}));

    let put_off = until_status(&server, &create("later", 5).await, "scheduled").await;
    assert_eq!((&put_off["reason"], &put_off["error"]["message"]), (&json!("retry"), &json!("busy")));
    assert_in_seconds(&put_off["run_at"], 500);

    let failed = until_status(&server, &create("x", 5).await, "scheduled").await;
    assert_in_seconds(&failed["run_at"], 100);
    assert_eq!(
        until_status(&server, &create("7", 5).await, "completed").await["result"],
        7,
        "and it goes on"
    );
    assert_eq!(running.stop().await.failed, 5);
}

/// What handlers were told when they were to stop.
type Told = Arc<Mutex<Vec<Option<CancelReason>>>>;
type Work = Pin<Box<dyn Future<Output = Result<(), TaskFailure>> + Send>>;

/// A handler that waits until it is told to stop, and notes why.
fn stoppable(told: Told) -> impl Fn(TaskContext, Value) -> Work + Clone {
    move |context, _| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            context.send_progress_text("waiting");
            context.cancelled().await;
            told.lock().expect("nobody panicked").push(context.cancel_reason());
            Err(TaskFailure::cancelled())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_hears_of_a_cancellation_and_of_a_lost_lease() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let told = Told::default();
    let worker = Worker::builder(&server.client())
        .concurrency(2)
        .lease(Duration::from_secs(3))
        .register(&queue, stoppable(Arc::clone(&told)));
    let running = Running::start(worker);

    let cancelled = server.create(json!({"task_type": queue})).await;
    until_status(&server, &cancelled, "processing").await;
    post(&server, &cancelled, "cancel", json!({})).await.ok();
    let ended = until_status(&server, &cancelled, "cancelled").await;
    assert!(ended["completed_at"].is_string());
    assert_eq!(executions(&server, &cancelled).await[0]["status"], "cancelled");

    let deleted = server.create(json!({"task_type": queue})).await;
    until_status(&server, &deleted, "processing").await;
    let gone = server.delete(&format!("/tasks/{}", id(&deleted))).query(&[("force", "true")]).send().await;
    assert_eq!(gone.status, 204);
    eventually("both were told", async || told.lock().expect("nobody panicked").len() == 2).await;
    assert_eq!(
        *told.lock().expect("nobody panicked"),
        [Some(CancelReason::Requested), Some(CancelReason::LeaseLost)]
    );
    let report = running.stop().await;
    assert_eq!((report.cancelled, report.lost), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_lets_handlers_finish() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        move |_: TaskContext, _: Value| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            async move {
                begun.notify_one();
                go_on.notified().await;
                Ok("done")
            }
        }
    };
    let stopping = Arc::new(Notify::new());
    let heard = Arc::clone(&stopping);
    let worker = Worker::builder(&server.client()).register(&queue, handler).on_event(move |event| {
        if matches!(event, WorkerEvent::Stopping { .. }) {
            heard.notify_one();
        }
    });
    let running = Running::start(worker);
    let task = server.create(json!({"task_type": queue})).await;
    tokio::time::timeout(SOON, begun.notified()).await.expect("the handler begins");
    let later = server.create(json!({"task_type": queue})).await;

    running.stop.cancel();
    tokio::time::timeout(SOON, stopping.notified()).await.expect("the worker begins to stop");
    go_on.notify_one();
    let report = running.stop().await;
    assert_eq!((report.claimed, report.completed), (1, 1));
    assert_eq!(shown(&server, &task).await["status"], "completed");
    assert_eq!(shown(&server, &later).await["status"], "pending", "nothing more was claimed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unfinished_at_the_end_of_the_grace_is_given_back_without_costing_an_attempt() {
    let server = TestServer::start().await;
    let (willing, deaf) = (unique_type(), unique_type());
    let told = Told::default();
    let worker = Worker::builder(&server.client())
        .concurrency(2)
        .grace(Duration::from_millis(100))
        .stop_patience(Duration::from_millis(300))
        .register(&willing, stoppable(Arc::clone(&told)))
        .register(&deaf, |_: TaskContext, _: Value| std::future::pending::<Result<(), TaskFailure>>());
    let running = Running::start(worker);
    let mut held = Vec::new();
    for queue in [&willing, &deaf] {
        let task = server.create(json!({"task_type": queue, "max_attempts": 1})).await;
        held.push(until_status(&server, &task, "processing").await);
    }
    let report = running.stop().await;
    assert_eq!((report.claimed, report.released), (2, 2));
    assert_eq!(*told.lock().expect("nobody panicked"), [Some(CancelReason::Shutdown)]);
    for task in &held {
        let back = shown(&server, task).await;
        assert_eq!((&back["status"], &back["attempt"]), (&json!("pending"), &json!(0)), "{back}");
        assert_eq!((&back["losses"], &back["error"]), (&json!(0), &Value::Null));
        assert_eq!(executions(&server, task).await[0]["status"], "released");
        assert_eq!(server.claim(task["task_type"].as_str().expect("a type")).await["attempt"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_every_worker_gives_back_at_its_stop_waits_from_the_third_time_on() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue})).await;
    for (stop, reason) in [(1, Value::Null), (2, Value::Null), (3, json!("delayed"))] {
        let told: Told = Arc::default();
        let worker = Worker::builder(&server.client())
            .grace(Duration::ZERO)
            .register(&queue, stoppable(Arc::clone(&told)));
        let running = Running::start(worker);
        eventually("the handler is at work", async || {
            let now = shown(&server, &task).await;
            now["status"] == "processing" && now["progress"]["text"] == "waiting"
        })
        .await;
        assert_eq!(running.stop().await.released, 1);
        let back = shown(&server, &task).await;
        assert_eq!((&back["releases"], &back["reason"]), (&json!(stop), &reason), "{back}");
    }
}

async fn block(_: TaskContext, milliseconds: u64) -> Result<(), TaskFailure> {
    #[allow(clippy::disallowed_methods, reason = "a handler that blocks is what is tested")]
    std::thread::sleep(Duration::from_millis(milliseconds)); // tidy: sleep — a handler that blocks is what is tested
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_keeps_its_lease() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let worker = Worker::builder(&server.client()).lease(Duration::from_secs(2)).register(&queue, block);
    let running = Running::start(worker);
    let task = server.create(json!({"task_type": queue, "request": 5000})).await;
    let done = until_status(&server, &task, "completed").await;
    assert_eq!((&done["attempt"], &done["losses"]), (&json!(1), &json!(0)));
    assert_eq!(executions(&server, &task).await.len(), 1);
    assert_eq!(running.stop().await.lost, 0);
}

/// Counts how many run at once, and the most there ever were.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_allowed() {
    let server = TestServer::start().await;
    let (wide, narrow) = (unique_type(), unique_type());
    let (all, single): (Arc<Gauge>, Arc<Gauge>) = (Arc::default(), Arc::default());
    let count = |gauges: Vec<Arc<Gauge>>| {
        move |_: TaskContext, _: Value| {
            let gauges = gauges.clone();
            async move {
                for gauge in &gauges {
                    gauge.enter();
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // tidy: sleep — work that takes a while
                for gauge in &gauges {
                    gauge.leave();
                }
                Ok(())
            }
        }
    };
    for n in 0..60 {
        let queue = if n % 2 == 0 { &wide } else { &narrow };
        server.create(json!({"task_type": queue})).await;
    }
    let worker = Worker::builder(&server.client())
        .concurrency(4)
        .register(&wide, count(vec![Arc::clone(&all)]))
        .register_with(
            &narrow,
            HandlerOptions::new().concurrency(1),
            count(vec![Arc::clone(&all), Arc::clone(&single)]),
        );
    let running = Running::start(worker);
    eventually("all are done", async || {
        let filter = [("status", "pending"), ("status", "processing"), ("limit", "1")];
        server.get("/tasks").query(&filter).send().await.ok()["tasks"] == json!([])
    })
    .await;
    let report = running.stop().await;
    assert_eq!((report.claimed, report.completed), (60, 60));
    assert!(all.most() <= 4, "{} ran at once", all.most());
    assert_eq!(single.most(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_run_at_once_as_are_allowed() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let barrier = Arc::new(Barrier::new(4));
    let together = move |_: TaskContext, _: Value| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Ok(())
        }
    };
    let running = Running::start(Worker::builder(&server.client()).concurrency(4).register(&queue, together));
    // Each waits for three others: with less room none would ever be done.
    let tasks = create_many(&server, 8, |_| json!({"task_type": queue})).await;
    for task in &tasks {
        until_status(&server, task, "completed").await;
    }
    assert_eq!(running.stop().await.completed, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_refused_does_not_go_on() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["viewer"], json!({})).await;
    let client = server.client().with_api_key(&key).expect("a client");
    let worker = Worker::builder(&client).register(unique_type(), pack).build().expect("a worker");
    let ended = tokio::time::timeout(SOON, worker.run()).await.expect("it ends by itself");
    assert!(matches!(ended, Err(WorkerError::Refused(_))), "{ended:?}");
}
