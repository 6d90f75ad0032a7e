//! A server of a later release beside this one, on one database: it stores fields and words that this one does not know.
//! Nothing is lost, nothing is stripped from a document, and nothing is refused that this one could do alone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use task_repo_client::{
    Backoff, Claim, ClaimedTask, Json, NewRetryPolicy, NewTask, ProgressUpdate, Status, Task, TaskClient,
    TaskEdit, TaskFailure, UsageReport, Uuid,
};
use task_repo_tests::{TestServer, eventually};
use tokio_util::sync::CancellationToken;

/// Workers at each server.
const WORKERS: usize = 4;
/// What workers of the later server call themselves.
const LATER: &str = "later";

/// How many tasks each of the producers makes; with `LATER_RELEASE_SECONDS` it goes on for that long instead.
const TASKS: usize = 150;

fn lasts() -> Option<Duration> {
    let seconds = std::env::var("LATER_RELEASE_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("a number of seconds")))
}

/// The n-th task of a producer. The number says what is done to it.
fn task(n: usize) -> NewTask {
    NewTask {
        request: Some(Json::of(&n).expect("a number")),
        retry: Some(NewRetryPolicy { backoff: Backoff::Fixed, base_seconds: 1, cap_seconds: 1, jitter: 0.0 }),
        max_attempts: Some(50),
        delay_seconds: n.is_multiple_of(7).then_some(1),
        user_id: n.is_multiple_of(3).then(|| "ann".to_owned()),
        ..NewTask::new("t")
    }
}

/// Makes tasks at one server and does to some at the other what owners do.
async fn produce(here: TaskClient, there: TaskClient, began: Instant) -> Vec<Task> {
    let mut made = Vec::new();
    while lasts().map_or(made.len() < TASKS, |lasts| began.elapsed() < lasts) {
        let n = made.len();
        let created = here.create_task(&task(n)).await.expect("it is created");
        if n.is_multiple_of(5) {
            // Unless a worker was faster.
            let edit = TaskEdit { name: Some(Some(format!("edited {n}"))), ..TaskEdit::default() };
            allow(there.edit_task(created.id, &edit).await, "invalid_transition");
        }
        if n.is_multiple_of(11) {
            allow(there.cancel_task(created.id).await, "invalid_transition");
            let status = here.get_task_status(created.id).await.expect("it is there").status;
            if status == Status::Cancelled {
                there.execute_task(created.id).await.expect("a cancelled task starts over");
            }
        }
        made.push(created);
    }
    made
}

/// A call that may come too late for its task, and fail in no other way.
fn allow<T>(result: Result<T, task_repo_client::ClientError>, code: &str) {
    if let Err(error) = result {
        assert_eq!(error.code().map(|code| code.to_string()).as_deref(), Some(code), "{error}");
    }
}

/// Tasks that were given back once.
type GivenBack = Arc<Mutex<HashSet<Uuid>>>;

/// Takes tasks at one server, and settles them at the other.
async fn work(
    name: String,
    here: TaskClient,
    there: TaskClient,
    given_back: GivenBack,
    is_over: CancellationToken,
) {
    let claim = Claim {
        task_types: vec!["t".to_owned()],
        worker_id: name,
        limit: Some(5),
        wait_ms: Some(200),
        ..Claim::default()
    };
    while !is_over.is_cancelled() {
        for task in here.claim(&claim).await.expect("a claim is answered") {
            settle(task, &there, &given_back).await;
        }
    }
}

async fn settle(claimed: ClaimedTask, there: &TaskClient, given_back: &GivenBack) {
    let (n, attempt): (usize, _) = (claimed.request().expect("its number"), claimed.task().attempt as usize);
    let progress = ProgressUpdate { value: Some(0.5), text: Some("half".to_owned()) };
    let beat = claimed.heartbeat(Some(progress)).await.expect("it is held");
    if beat.cancel_requested {
        there.fail_task(claimed, TaskFailure::cancelled()).await.expect("the cancellation is acknowledged");
        return;
    }
    let usage = UsageReport { tokens_used: 1, ..UsageReport::default() };
    let is_first = given_back.lock().expect("nobody panicked").insert(claimed.id());
    match n % 5 {
        0 if attempt < 3 => {
            let failure = TaskFailure::retry_after("not yet", Duration::ZERO).with_usage(usage);
            let _ = there.fail_task(claimed, failure).await.expect("it may fail");
        }
        1 if is_first => {
            let _ = claimed.release(Duration::ZERO).await.expect("it is given back");
        }
        _ => {
            let _ = there.complete_task(claimed, &n).await.expect("it is completed");
        }
    }
}

/// What is missing from a document that the later server has written to, if anything is.
fn stripped(task: &Document) -> Option<String> {
    let has = |part: &Document| part.contains_key("later");
    let named = |name: &str, part: &Document| (!has(part)).then(|| name.to_owned());
    let attempts = task.get_array("attempts").map(Vec::as_slice).unwrap_or_default();
    let is_later =
        |attempt: &&Document| attempt.get_str("worker_id").is_ok_and(|worker| worker.starts_with(LATER));
    let attempts: Vec<_> = attempts.iter().filter_map(Bson::as_document).filter(is_later).collect();
    let of_attempts = attempts.iter().find_map(|attempt| {
        let trigger = attempt.get_str("trigger").unwrap_or_default();
        let renamed = (trigger == "claim").then(|| "the trigger of an attempt".to_owned());
        named("an attempt", attempt).or(renamed)
    });
    if task.contains_key("later") {
        of_attempts
    } else {
        // The later server has claimed it, so it has written to it.
        (!attempts.is_empty()).then(|| "the whole task".to_owned())
    }
}

/// Has both servers make tasks and work on each other's until all are over; says how many were made.
pub(crate) async fn share_the_load(server: &TestServer, this: TaskClient, other: TaskClient) -> usize {
    let (is_over, given_back) = (CancellationToken::new(), GivenBack::default());
    let workers: Vec<_> = (0..2 * WORKERS)
        .map(|n| {
            let (name, here, there) =
                if n % 2 == 0 { ("this", &this, &other) } else { (LATER, &other, &this) };
            let (name, given_back) = (format!("{name}-{n}"), Arc::clone(&given_back));
            tokio::spawn(work(name, here.clone(), there.clone(), given_back, is_over.clone()))
        })
        .collect();
    let began = Instant::now();
    let producers = [(&this, &other), (&other, &this)]
        .map(|(here, there)| tokio::spawn(produce(here.clone(), there.clone(), began)));
    let made =
        join_all(producers).await.into_iter().map(|made| made.expect("no producer panicked").len()).sum();
    let tasks = server.database().collection::<Document>("tasks");
    let unfinished = doc! { "status": { "$nin": ["completed", "cancelled"] } };
    eventually("all tasks are over", async || {
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker has panicked");
        tasks.count_documents(unfinished.clone()).await.expect("an answer") == 0
    })
    .await;
    is_over.cancel();
    for worker in workers {
        worker.await.expect("no worker panicked");
    }
    let stored = tasks.count_documents(doc! {}).await.expect("an answer");
    assert_eq!(stored, made as u64, "nothing is lost and nothing made twice");
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_server_beside_this_one_loses_strips_and_refuses_nothing() {
    let this = TestServer::start().await;
    let later = this.sibling_with(|settings| settings.database.stores_later_form = true).await;
    let began = Instant::now();
    let made = share_the_load(&this, this.client(), later.client()).await;

    let tasks = this.database().collection::<Document>("tasks");
    let stored: Vec<Document> =
        tasks.find(doc! {}).await.expect("all tasks").try_collect().await.expect("all tasks");
    let stripped: Vec<_> = stored.iter().filter_map(stripped).collect();
    assert!(stripped.is_empty(), "{} documents have lost something: {stripped:?}", stripped.len());
    for (server, what) in [(&this, "this"), (&later, "the later")] {
        let health = server.client().detailed_health().await.expect("an answer");
        assert_eq!(health.unreadable.count, 0, "{what} server: {:?}", health.unreadable);
        assert_eq!(health.status, "healthy", "{what} server");
        assert_eq!(health.servers.len(), 2, "both are in the registry");
    }
    let by_later = stored.iter().filter(|task| task.contains_key("later")).count();
    println!("{made} tasks in {:?}, {by_later} written by the later server", began.elapsed());
    assert!(by_later * 2 > made, "the later server has written to most: {by_later} of {made}");
}
