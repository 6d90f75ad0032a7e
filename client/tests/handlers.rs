//! Handlers that do not return, that block, that give tasks back, that wait for one another; and a worker that is refused.

mod stub;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use stub::queue::{Told, all_lost, leased, leased_briefly, outcomes, queue};
use stub::{Asked, Reply};
use task_repo_client::{
    CancelReason, ErrorCode, HandlerOptions, TaskContext, TaskFailure, WorkerError, WorkerEvent, WorkerHandle,
};

const SHORT: Duration = Duration::from_millis(30);

fn plain(_: &Asked) -> Option<Reply> {
    None
}

fn start(worker: task_repo_client::WorkerBuilder) -> WorkerHandle {
    worker.build().expect("a worker").start()
}

/// Waits for ever with the first task, and returns at once with the others.
async fn first_never_returns(ctx: TaskContext, (): ()) -> Result<u128, TaskFailure> {
    if ctx.id().as_u128() == 1 {
        std::future::pending::<()>().await;
    }
    Ok(ctx.id().as_u128())
}

#[tokio::test]
async fn a_handler_that_never_returns_frees_its_slot_after_its_timeout() {
    let stub = queue([leased(1, &Value::Null), leased(2, &Value::Null)], plain);
    let told = Told::default();
    let options = HandlerOptions::new().timeout(SHORT);
    let worker = start(told.worker(&stub).register_with("a", options, first_never_returns));
    told.until("Settled", 2).await;
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.failed, report.completed, report.stuck), (1, 1, 0));
    assert_eq!(outcomes(&stub)[0]["error"]["code"], "timeout");
}

#[tokio::test]
async fn the_task_s_own_timeout_ends_its_handler() {
    let mut first = leased(1, &Value::Null);
    first["timeout_seconds"] = json!(1);
    let stub = queue([first, leased(2, &Value::Null)], plain);
    let told = Told::default();
    let worker = start(told.worker(&stub).register("a", first_never_returns));
    told.until("Settled", 2).await;
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.failed, report.completed), (1, 1));
}

#[tokio::test]
async fn a_lost_lease_ends_its_handler() {
    let stub = queue([leased_briefly(1), leased(2, &Value::Null)], |request: &Asked| {
        (request.path() == "/tasks/heartbeat").then(|| all_lost(request))
    });
    let told = Told::default();
    let worker = start(told.worker(&stub).register("a", first_never_returns));
    told.until("Settled", 1).await;
    assert_eq!(told.count("Lost"), 1);
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.lost, report.completed, report.failed), (1, 1, 0));
}

#[tokio::test]
async fn a_handler_is_told_before_it_is_aborted_and_may_still_finish() {
    let stub = queue([leased(1, &Value::Null)], plain);
    let told = Told::default();
    let options = HandlerOptions::new().timeout(SHORT);
    let handler = async |ctx: TaskContext, (): ()| {
        ctx.cancelled().await;
        assert_eq!(ctx.cancel_reason(), Some(CancelReason::Timeout));
        tokio::time::sleep(SHORT).await; // tidy: sleep — saving takes a while
        Ok("saved what there was")
    };
    let patient = told.worker(&stub).stop_patience(Duration::from_secs(20));
    let worker = start(patient.register_with("a", options, handler));
    told.until("Settled", 1).await;
    worker.stop().await.expect("it works");
    assert_eq!(outcomes(&stub)[0]["result"], "saved what there was");
}

/// A handler that blocks until it is let go, and how many of it run.
#[derive(Clone)]
struct Blocking {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    starts: Arc<AtomicUsize>,
    go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Blocking {
    fn new() -> (mpsc::Sender<()>, Self) {
        let (let_go, go) = mpsc::channel();
        let (running, most, starts) = (Arc::default(), Arc::default(), Arc::default());
        (let_go, Self { running, most, starts, go: Arc::new(Mutex::new(go)) })
    }

    fn run(&self) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Until it is let go, or the test is over.
        let _ = self.go.lock().map(|go| go.recv());
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Six tasks for a handler that takes far longer than its timeout, at a concurrency of 1.
async fn blocked(
    told: &Told,
    worker: task_repo_client::WorkerBuilder,
    blocking: Blocking,
    let_go: mpsc::Sender<()>,
) {
    let worker = start(worker);
    told.until("HandlerStuck", 1).await;
    told.until("Settled", 1).await;
    assert_eq!(told.all().iter().filter(|name| *name == "AttemptFailed").count(), 1);
    // The attempt is over, and its handler still has the only slot.
    assert_eq!((blocking.starts.load(Ordering::SeqCst), told.count("Claimed")), (1, 1));
    let_go.send(()).expect("it waits");
    told.until("HandlerStuck", 2).await;
    assert_eq!(blocking.most.load(Ordering::SeqCst), 1, "never two at once");
    let report = worker.stop().await.expect("it works");
    assert!(report.stuck >= 2 && report.still_running >= 1, "{report:?}");
    drop(let_go);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_async_handler_that_blocks_keeps_its_slot_and_is_counted() {
    let stub = queue((1..=6).map(|number| leased(number, &Value::Null)), plain);
    let ((let_go, blocking), told) = (Blocking::new(), Told::default());
    let (options, handler) = (HandlerOptions::new().timeout(SHORT), blocking.clone());
    let work = async move |_: TaskContext, (): ()| {
        handler.run();
        Ok(())
    };
    let worker = told.worker(&stub).register_with("a", options, work);
    blocked(&told, worker, blocking, let_go).await;
}

#[tokio::test]
async fn a_blocking_handler_keeps_its_slot_and_is_counted() {
    let stub = queue((1..=6).map(|number| leased(number, &Value::Null)), plain);
    let ((let_go, blocking), told) = (Blocking::new(), Told::default());
    let (options, handler) = (HandlerOptions::new().timeout(SHORT), blocking.clone());
    let work = move |_: TaskContext, (): ()| {
        handler.run();
        Ok(())
    };
    let worker = told.worker(&stub).register_blocking_with("a", options, work);
    blocked(&told, worker, blocking, let_go).await;
}

#[tokio::test]
async fn a_blocking_handler_takes_a_request_and_gives_a_result_or_panics() {
    let stub = queue([leased(1, &json!(20)), leased(2, &json!(0))], plain);
    let told = Told::default();
    let worker = start(told.worker(&stub).register_blocking("a", |ctx: TaskContext, number: u32| {
        ctx.send_progress_text("counting");
        assert!(number > 0, "no number");
        // It is within the worker's runtime.
        tokio::runtime::Handle::current().block_on(async { tokio::task::yield_now().await });
        Ok(number + 1)
    }));
    told.until("Settled", 2).await;
    worker.stop().await.expect("it works");
    let outcomes = outcomes(&stub);
    assert_eq!(outcomes[0]["result"], 21);
    assert_eq!(
        outcomes[1]["error"],
        json!({"message": "the handler panicked: no number", "code": "panic", "details": null})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_never_gives_back_what_is_still_worked_on() {
    let stub = queue([leased(1, &Value::Null)], plain);
    let ((let_go, blocking), told) = (Blocking::new(), Told::default());
    let handler = blocking.clone();
    let worker = start(told.worker(&stub).register("a", async move |_: TaskContext, (): ()| {
        handler.run();
        Ok(())
    }));
    told.until("Claimed", 1).await;
    worker.request_stop();
    told.until("HandlerStuck", 1).await;
    assert!(outcomes(&stub).is_empty());
    let_go.send(()).expect("it waits");
    let report = worker.wait().await.expect("it works");
    assert_eq!((report.released, report.completed, report.stuck, report.still_running), (0, 1, 1, 0));
}

#[tokio::test]
async fn handlers_hear_of_a_stop_at_once_and_may_use_the_grace() {
    let stub = queue([leased(1, &Value::Null)], plain);
    let told = Told::default();
    let worker = told.worker(&stub).grace(Duration::from_secs(20));
    let worker = start(worker.register("a", async |ctx: TaskContext, (): ()| {
        ctx.stopping().await;
        assert!(ctx.is_stopping() && !ctx.is_cancelled());
        Ok(())
    }));
    told.until("Claimed", 1).await;
    assert_eq!(worker.stop().await.expect("it works").completed, 1);
}

#[tokio::test]
async fn a_request_of_another_version_is_given_back_a_few_times() {
    let of_release = |number, releases| {
        let mut task = leased(number, &json!({ "new": true }));
        task["releases"] = json!(releases);
        task
    };
    let stub = queue([of_release(1, 0), of_release(2, 4), of_release(3, 5)], plain);
    let told = Told::default();
    let options = HandlerOptions::new().release_unreadable(5);
    let worker = told.worker(&stub).register_with("a", options, async |_: TaskContext, _: u32| Ok(()));
    let worker = start(worker);
    told.until("Settled", 3).await;
    worker.stop().await.expect("it works");
    let outcomes = outcomes(&stub);
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome["outcome"].as_str().expect("a text")).collect();
    assert_eq!(kinds, ["released", "released", "failed"]);
    assert_eq!(outcomes[2]["error"]["code"], "invalid_request");
    assert_eq!(outcomes[2]["retry"], "never");
}

#[tokio::test]
async fn releases_in_a_row_are_counted_and_say_why() {
    let stub = queue((1..=4).map(|number| leased(number, &json!(number == 3))), plain);
    let rows: Arc<Mutex<Vec<(String, u32)>>> = Arc::default();
    let (told, seen) = (Told::default(), Arc::clone(&rows));
    let (done, settled) = tokio::sync::mpsc::unbounded_channel();
    let worker = told.worker(&stub).on_event(move |event| match event {
        WorkerEvent::GivenBack { why, in_a_row, .. } => {
            seen.lock().expect("nobody panicked").push((why.to_owned(), in_a_row));
        }
        WorkerEvent::Settled { .. } => drop(done.send(())),
        _ => {}
    });
    let worker = start(worker.register("a", async |_: TaskContext, can: bool| {
        if can { Ok(()) } else { Err(TaskFailure::release("no licence here", Duration::from_secs(3))) }
    }));
    let mut settled = settled;
    for _ in 0..4 {
        settled.recv().await.expect("it is settled");
    }
    let report = worker.stop().await.expect("it works");
    assert_eq!((report.released, report.completed), (3, 1));
    let why = || "no licence here".to_owned();
    assert_eq!(*rows.lock().expect("nobody panicked"), [(why(), 1), (why(), 2), (why(), 1)]);
    assert_eq!(outcomes(&stub)[0]["delay_seconds"], 3);
}

#[tokio::test]
async fn a_parent_that_waits_for_a_child_of_its_own_type_is_told() {
    let child = stub::task("pending", None);
    let stub = queue([leased(1, &Value::Null)], move |request: &Asked| {
        request.path().starts_with("/tasks/0000").then(|| Reply::json(200, &child))
    });
    let told = Told::default();
    let worker = start(told.worker(&stub).register("a", async |ctx: TaskContext, (): ()| {
        ctx.client().wait_for_task(task_repo_client::Uuid::nil(), Duration::from_secs(60)).await?;
        Ok(())
    }));
    told.until("WaitsForItself", 1).await;
    worker.stop().await.expect("it works");
}

#[tokio::test]
async fn a_parent_whose_child_has_a_slot_is_not_told() {
    let mut asked = 0;
    let stub = queue([leased(1, &Value::Null)], move |request: &Asked| {
        request.path().starts_with("/tasks/0000").then(|| {
            asked += 1;
            Reply::json(200, &stub::task(if asked < 3 { "pending" } else { "completed" }, None))
        })
    });
    let told = Told::default();
    let worker = told.worker(&stub).concurrency(2);
    let worker = start(worker.register("a", async |ctx: TaskContext, (): ()| {
        ctx.client().wait_for_task(task_repo_client::Uuid::nil(), Duration::from_secs(60)).await?;
        Ok(())
    }));
    told.until("Settled", 1).await;
    worker.stop().await.expect("it works");
    assert_eq!(told.count("WaitsForItself"), 0);
}

#[tokio::test]
async fn a_worker_that_is_refused_says_so() {
    for code in [ErrorCode::Unauthenticated, ErrorCode::Forbidden, ErrorCode::NotFound] {
        let stub = queue([], move |_: &Asked| Some(Reply::problem(code)));
        let told = Told::default();
        let worker = start(told.worker(&stub).register("a", first_never_returns));
        let ended = worker.wait().await;
        assert!(matches!(ended, Err(WorkerError::Refused(_))), "{ended:?}");
        assert_eq!(told.count("Refused"), 1);
    }
}

#[tokio::test]
async fn a_dropped_handle_stops_the_worker_gracefully_while_its_runtime_lives() {
    let stub = queue([leased(1, &Value::Null)], plain);
    let told = Told::default();
    let worker = start(told.worker(&stub).grace(Duration::from_secs(20)).register(
        "a",
        async |ctx: TaskContext, (): ()| {
            ctx.stopping().await;
            Ok(())
        },
    ));
    told.until("Claimed", 1).await;
    drop(worker);
    told.until("Settled", 1).await;
}

/// Handlers in the forms that people try first.
#[tokio::test]
async fn a_handler_shares_what_it_is_given() {
    struct Shop {
        stock: Mutex<u32>,
    }
    impl Shop {
        #[expect(clippy::unused_async, reason = "a handler is async whether or not it waits for anything")]
        async fn sell(self: Arc<Self>, _: TaskContext, count: u32) -> Result<u32, TaskFailure> {
            let mut stock = self.stock.lock().map_err(|_| "somebody panicked")?;
            *stock = stock.checked_sub(count).ok_or_else(|| format!("{count} are too many"))?;
            Ok(*stock)
        }
    }
    let shop = Arc::new(Shop { stock: Mutex::new(5) });
    let (first, second, third) = (Arc::clone(&shop), Arc::clone(&shop), Arc::clone(&shop));
    let of_type = |number, task_type| {
        let mut task = leased(number, &json!(1));
        task["task_type"] = json!(task_type);
        task
    };
    let stub = queue([of_type(1, "a"), of_type(2, "b"), of_type(3, "c"), of_type(4, "d")], plain);
    let told = Told::default();
    let worker = told
        .worker(&stub)
        .register("a", async move |ctx: TaskContext, count: u32| first.sell(ctx, count).await)
        .register("b", move |ctx, count| async move { second.sell(ctx, count).await })
        .register("c", move |ctx, count| third.sell(ctx, count))
        .register("d", move |ctx, count| {
            let shop = Arc::clone(&shop);
            async move { shop.sell(ctx, count).await }
        });
    let worker = start(worker);
    told.until("Settled", 4).await;
    assert_eq!(worker.stop().await.expect("it works").completed, 4);
    let left: Vec<_> = outcomes(&stub).iter().map(|outcome| outcome["result"].clone()).collect();
    assert_eq!(left, [4, 3, 2, 1]);
}
