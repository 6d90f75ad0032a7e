//! Callers who come together are carried together, and each has what is its own: its work, and its error.

use bson::{Document, doc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};

use crate::fail_point::FailPoint;
use crate::profiler;
use crate::verbs::{claim, claim_one, create_many, id, ids, pass_until_status, settle, tasks};

/// Callers at once.
const CALLERS: usize = 40;

/// A server that gives its calls all the time they need.
async fn patient() -> TestServer {
    TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 60_000).await
}

/// The next commands of that name take long enough for all callers to come meanwhile: two, since the second place is not
/// kept for a command that seems to hang.
async fn hold_next(server: &TestServer, command: &str) -> FailPoint {
    let slow = doc! {"blockConnection": true, "blockTimeMS": 3000};
    FailPoint::set(server, command, doc! {"times": 2}, slow).await
}

/// How many commands the database has had that change tasks, or read ready ones to hand them out.
async fn commands(server: &TestServer) -> usize {
    let counts = |entry: &&Document| {
        let command = entry.get_document("command").unwrap();
        let is_look = command.get_document("sort").is_ok_and(|sort| sort.contains_key("ready_at"));
        is_look || entry.get_str("op").is_ok_and(|op| ["insert", "update"].contains(&op))
    };
    profiler::stop(server).await.iter().filter(counts).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_come_together_share_commands() {
    let server = patient().await;
    let queue = unique_type();
    let task = json!({"task_type": queue});

    profiler::start(&server).await;
    let held = hold_next(&server, "insert").await;
    join_all((0..CALLERS).map(|_| server.create(task.clone()))).await;
    assert!(held.end().await > 0);
    let creates = commands(&server).await;

    profiler::start(&server).await;
    let held = hold_next(&server, "update").await;
    let claimed = join_all((0..CALLERS).map(|_| claim(&server, &queue, json!({})))).await;
    assert!(held.end().await > 0);
    let claims = commands(&server).await;
    let claimed: Vec<_> = claimed.iter().flat_map(|answer| tasks(answer).clone()).collect();
    assert_eq!(claimed.len(), CALLERS);

    profiler::start(&server).await;
    let held = hold_next(&server, "update").await;
    join_all(claimed.iter().map(async |task| settle(&server, task, "complete", json!({})).await.ok())).await;
    assert!(held.end().await > 0);
    let settlements = commands(&server).await;

    // Beside the one that was held there are those of who came a moment before or after the others.
    for (what, count) in [("creates", creates), ("claims", claims), ("settlements", settlements)] {
        assert!(count < CALLERS / 3, "{count} commands for {CALLERS} {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_higher_priority_waits_for_one_round_even_when_nothing_is_read_ahead() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let queue = unique_type();
    // So large that each look brings one, and the next begins behind it.
    let large = "x".repeat(700_000);
    create_many(&server, 8, |_| json!({"task_type": queue, "request": large})).await;
    let urgent = other.create(json!({"task_type": queue, "priority": 90})).await;
    // The look at the front is the one that finds it; only now does it go back to where nobody looks.
    let first = claim(&server, &queue, json!({})).await;
    assert_eq!(ids(&first), [id(&urgent)]);
    claim(&server, &queue, json!({})).await;
    settle(&other, &tasks(&first)[0], "release", json!({})).await.ok();
    let next = [claim(&server, &queue, json!({})).await, claim(&server, &queue, json!({})).await];
    assert!(next.iter().any(|claimed| ids(claimed) == [id(&urgent)]), "not among the next two");
}

/// A task that was lost with a worker: it is handed out alone.
async fn suspect(server: &TestServer, queue: &str, priority: i32) -> Value {
    let task = server.create(json!({"task_type": queue, "priority": priority, "lease_seconds": 1})).await;
    claim_one(server, &task, json!({})).await;
    pass_until_status(server, &task, "pending").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_caller_may_not_have_beside_its_task_is_there_for_the_next() {
    let server = patient().await;
    let queue = unique_type();
    let (first, second) = tokio::join!(suspect(&server, &queue, 95), suspect(&server, &queue, 90));
    create_many(&server, 10, |_| json!({"task_type": queue})).await;

    // While the first one's round is held up the others come: they are served together.
    let held = hold_next(&server, "update").await;
    let many = json!({"limit": 1000, "lease_seconds": 60});
    let calls = async {
        held.has_hit(1).await;
        tokio::join!(claim(&server, &queue, many.clone()), claim(&server, &queue, many.clone()))
    };
    let (one, others) = tokio::join!(claim(&server, &queue, json!({"lease_seconds": 60})), calls);
    assert!(held.end().await > 0);
    assert_eq!(ids(&one), [id(&first)]);
    let mut counts = [tasks(&others.0).len(), tasks(&others.1).len()];
    counts.sort_unstable();
    assert_eq!(counts, [1, 10], "{} is alone, and nothing else is left behind: {others:#?}", id(&second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_s_error_is_not_that_of_others_who_wait() {
    let server = TestServer::start_with(|settings| {
        settings.database.mongodb_timeout_ms = 1000;
        settings.tasks.sweep_interval_ms = 900;
    })
    .await;
    let other = server.sibling().await;
    let queue = unique_type();
    let body = json!({"task_types": [queue], "worker_id": "w", "wait_ms": 25_000});
    let call = async || server.post("/tasks/claim").json(&body).send().await;
    let create = async {
        server.until_claims_wait(&queue, 2).await;
        // The sweeper's own write, with which it makes sure that leases can be renewed, must not be the one that is slow.
        for server in [&server, &other] {
            eventually("the sweeper has made its first round", async || {
                let health = server.get("/api/v1/health/detailed").send().await.ok();
                health["background"]["sweeper"]["last_success_ms_ago"].is_number()
            })
            .await;
        }
        // The lease's write is not heard of in time.
        let slow = doc! {"blockConnection": true, "blockTimeMS": 1500};
        let failing = FailPoint::set(&server, "update", doc! {"times": 1}, slow).await;
        (failing, other.create(json!({"task_type": queue})).await)
    };
    let (one, two) = (call(), call());
    tokio::pin!(one, two);
    // Both wait when the task comes, and one of them is to have it.
    let create = async {
        tokio::select! {
            created = create => created,
            _ = &mut one => panic!("the first is answered before there is work"),
            _ = &mut two => panic!("the second is answered before there is work"),
        }
    };
    let (failing, task) = create.await;
    let (failed, waiting) = futures_util::future::select(one, two).await.factor_first();
    failed.problem(503, "outcome_unknown");
    assert_eq!(ids(&waiting.await.ok()), [id(&task)]);
    assert_eq!(failing.end().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shortest_deadline_leaves_time_for_a_claim() {
    let server = TestServer::start_with(|settings| settings.database.mongodb_timeout_ms = 100).await;
    let body = json!({"task_types": [unique_type()], "worker_id": "w"});
    // On a slow machine some may be late.
    eventually("a claim is answered in time", async || {
        server.post("/tasks/claim").json(&body).send().await.status == 200
    })
    .await;
}
