//! Claims that wait for work, whatever makes it ready, and callers that go away while they wait.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::doc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};

use crate::fail_point::FailPoint;
use crate::verbs::{
    claim, claim_one, claim_unheard, create_many, id, ids, post, queue, settle, tasks, until, with,
};

/// Long enough that a claim answered at its end would be noticed by [`in_time`].
const WAIT_MS: u64 = 28_000;

/// Fails the test unless the call is answered long before [`WAIT_MS`] are over.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), call).await.expect("an answer before the wait is over")
}

/// Lets a claim wait in that queue, does something, and returns the one task that the claim was given.
async fn woken_by(server: &TestServer, task_type: &str, make_ready: impl Future<Output = ()>) -> Value {
    let is_answered = AtomicBool::new(false);
    let waiting = async {
        let claimed = in_time(claim(server, task_type, json!({"wait_ms": WAIT_MS, "limit": 5}))).await;
        is_answered.store(true, Ordering::Release);
        claimed
    };
    let (claimed, ()) = tokio::join!(waiting, async {
        // What time makes ready may come before the claim does.
        let waits = async || server.waiting_claims(task_type) == 1 || is_answered.load(Ordering::Acquire);
        eventually("the claim waits", waits).await;
        make_ready.await;
    });
    assert_eq!(tasks(&claimed).len(), 1, "one task is ready, and the call is answered with it: {claimed}");
    tasks(&claimed)[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_gets_what_is_created() {
    let server = TestServer::start().await;
    let (one, batch) = (unique_type(), unique_type());
    let first = woken_by(&server, &one, async {
        server.create(json!({"task_type": one, "request": {"n": 1}})).await;
    });
    let second =
        woken_by(&server, &batch, async {
            create_many(&server, 3, |n| {
            json!({"task_type": if n == 1 { batch.clone() } else { unique_type() }, "request": {"n": 2}})
        })
        .await;
        });
    let (first, second) = tokio::join!(first, second);
    assert_eq!((&first["request"], &second["request"]), (&json!({"n": 1}), &json!({"n": 2})));
    for task in [&first, &second] {
        assert_eq!((&task["status"], &task["attempt"]), (&json!("processing"), &json!(1)));
        settle(&server, task, "complete", json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_gets_what_becomes_ready_in_any_other_way() {
    let server = &TestServer::start().await;
    let in_an_hour = json!({"delay_seconds": 3600});

    let released = server.create(json!({})).await;
    let held = claim_one(server, &released, json!({})).await;
    let on_release = woken_by(server, queue(&released), async {
        settle(server, &held, "release", json!({})).await.ok();
    });

    let retried = server.create(json!({})).await;
    let failing = claim_one(server, &retried, json!({})).await;
    let on_retry = woken_by(server, queue(&retried), async {
        settle(server, &failing, "fail", json!({"retry_after_seconds": 1})).await.ok();
    });

    let expiring = server.create(json!({"lease_seconds": 1})).await;
    claim_one(server, &expiring, json!({})).await;
    let on_loss = woken_by(server, queue(&expiring), async {});

    let timing_out = json!({"backoff": "fixed", "base_seconds": 1, "jitter": 0});
    let timed = server.create(json!({"timeout_seconds": 1, "retry": timing_out})).await;
    claim_one(server, &timed, json!({})).await;
    let on_timeout = woken_by(server, queue(&timed), async {});

    let executed = server.create(in_an_hour.clone()).await;
    let on_execute = woken_by(server, queue(&executed), async {
        post(server, &executed, "execute", json!({})).await.ok();
    });

    let cancelled = server.create(json!({})).await;
    post(server, &cancelled, "cancel", json!({})).await.ok();
    let on_execute_again = woken_by(server, queue(&cancelled), async {
        post(server, &cancelled, "execute", json!({})).await.ok();
    });

    let edited = server.create(in_an_hour).await;
    let on_edit = woken_by(server, queue(&edited), async {
        server.put(&format!("/tasks/{}", id(&edited))).json(&json!({"run_at": null})).send().await.ok();
    });

    let due = server.create(json!({"delay_seconds": 1})).await;
    let on_time = woken_by(server, queue(&due), async {});

    let (released_to, retried_to, lost_to, timed_to) =
        tokio::join!(on_release, on_retry, on_loss, on_timeout);
    let (executed_to, again_to, edited_to, due_to) =
        tokio::join!(on_execute, on_execute_again, on_edit, on_time);
    for (task, claimed, attempt) in [
        (released, released_to, 1),
        (retried, retried_to, 2),
        (expiring, lost_to, 2),
        (timed, timed_to, 2),
        (executed, executed_to, 1),
        (cancelled, again_to, 1),
        (edited, edited_to, 1),
        (due, due_to, 1),
    ] {
        assert_eq!((id(&claimed), &claimed["attempt"]), (id(&task), &json!(attempt)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_waiting_caller_gets_a_task_of_its_own() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let waiting = join_all((0..20).map(|_| in_time(claim(&server, &queue, json!({"wait_ms": WAIT_MS})))));
    let (answers, ()) = tokio::join!(waiting, async {
        server.until_claims_wait(&queue, 20).await;
        for _ in 0..10 {
            server.create(json!({"task_type": queue})).await;
        }
        create_many(&server, 10, |_| json!({"task_type": queue})).await;
    });
    let given: HashSet<&str> = answers.iter().flat_map(ids).collect();
    assert!(answers.iter().all(|answer| tasks(answer).len() == 1), "one each");
    assert_eq!(given.len(), 20, "nobody shares a task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_is_not_woken_by_what_it_may_not_have() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let claim_as = async |user: Option<&str>, more: Value| {
        let body =
            with(json!({"task_types": [queue], "worker_id": "w1", "limit": 10, "wait_ms": WAIT_MS}), more);
        let request = server.post("/tasks/claim").json(&body);
        let request = if let Some(user) = user { request.user(user) } else { request };
        in_time(request.send()).await.ok()
    };
    let (tagged, owned, ()) =
        tokio::join!(claim_as(None, json!({"tags": {"k": "v"}})), claim_as(Some("ann"), json!({})), async {
            server.until_claims_wait(&queue, 2).await;
            server.create(json!({"task_type": queue, "priority": 100})).await;
            server.create(json!({"task_type": queue, "user_id": "bob", "tags": {"k": "w"}})).await;
            server.create(json!({"task_type": queue, "user_id": "ann", "name": "ann's"})).await;
            server.create(json!({"task_type": queue, "tags": {"k": "v", "x": "y"}, "name": "tagged"})).await;
        });
    assert_eq!(tasks(&tagged).iter().map(|task| &task["name"]).collect::<Vec<_>>(), ["tagged"]);
    assert_eq!(tasks(&owned).iter().map(|task| &task["name"]).collect::<Vec<_>>(), ["ann's"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_does_not_stay_for_more_while_more_is_created() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let is_answered = AtomicBool::new(false);
    let claimed = async {
        let claimed = in_time(claim(&server, &queue, json!({"wait_ms": WAIT_MS, "limit": 1000}))).await;
        is_answered.store(true, Ordering::Relaxed);
        claimed
    };
    // Together they create more than the claim could take, unless it is answered before.
    let producers = join_all((0..6).map(|_| async {
        for created in 0..250 {
            if is_answered.load(Ordering::Relaxed) {
                return created;
            }
            server.create(json!({"task_type": queue})).await;
        }
        250
    }));
    let (claimed, created) = tokio::join!(claimed, producers);
    let (taken, created) = (tasks(&claimed).len(), created.iter().sum::<usize>());
    assert!(taken >= 1 && taken <= created, "{taken} of {created}");
    assert!(
        taken < 1000 && created < 1500,
        "the first task is not kept waiting for others: {taken} of {created}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_wait_ends_with_an_empty_list() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let begun = Instant::now();
    let waited = claim(&server, &queue, json!({"wait_ms": 400})).await;
    assert!(begun.elapsed() >= Duration::from_millis(400), "the wait was cut short");
    assert_eq!(waited, json!({"tasks": []}));
    for wait in [json!({"wait_ms": 0}), json!({})] {
        assert_eq!(in_time(claim(&server, &queue, wait)).await, json!({"tasks": []}));
    }

    // What is created after the wait has ended is not given to it.
    let task = server.create(json!({"task_type": queue})).await;
    assert_eq!(ids(&claim(&server, &queue, json!({"wait_ms": 0})).await), [id(&task)]);
}

/// Claims until at least that many have come, checks that no attempt was lost on the way, and completes them.
async fn collect(server: &TestServer, queue: &str, at_least: usize) {
    let mut seen = HashSet::new();
    let claimed = until("what was created has been claimed by callers that are there", async || {
        let claimed = claim(server, queue, json!({"limit": 100, "wait_ms": 500})).await;
        for task in tasks(&claimed) {
            assert!(seen.insert(id(task).to_owned()), "a task was given out twice");
            assert_eq!(task["attempt"], 1, "who has gone away was given nothing: {task}");
            settle(server, task, "complete", json!({})).await.ok();
        }
        (seen.len() >= at_least).then_some(())
    });
    claimed.await;
}

/// How many tasks of the queue are held by anyone.
async fn count_held(server: &TestServer, queue: &str) -> usize {
    let filter = [("status", "processing"), ("task_type", queue), ("limit", "100")];
    tasks(&server.get("/tasks").query(&filter).send().await.ok()).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_went_away_while_waiting_is_given_nothing() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["worker"], json!({})).await;
    let queue = unique_type();
    let body = json!({"task_types": [queue], "worker_id": "gone", "limit": 2, "wait_ms": 30_000});
    let callers = join_all((0..10).map(|_| claim_unheard(&server, &key, &body))).await;
    server.until_claims_wait(&queue, 10).await;
    drop(callers);
    create_many(&server, 10, |_| json!({"task_type": queue})).await;
    collect(&server, &queue, 10).await;
    assert_eq!(count_held(&server, &queue).await, 0, "nothing stays with a caller that has gone");

    // The same when the call, its end and the task come one right after the other.
    for _ in 0..10 {
        drop(claim_unheard(&server, &key, &body).await);
        server.create(json!({"task_type": queue})).await;
    }
    collect(&server, &queue, 10).await;
    assert_eq!(count_held(&server, &queue).await, 0, "nothing stays with a caller that has gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_went_away_before_its_answer_is_given_nothing() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["worker"], json!({})).await;
    let queue = unique_type();
    create_many(&server, 40, |_| json!({"task_type": queue})).await;
    let body = json!({"task_types": [queue], "worker_id": "gone", "limit": 2});
    // The write of the leases takes a while, so that all callers have gone before any of them could be answered.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 1500};
    let fail_point = FailPoint::set(&server, "update", doc! {"times": 1}, slow).await;
    let callers = join_all((0..15).map(|_| claim_unheard(&server, &key, &body))).await;
    server.until_in_flight(15).await;
    fail_point.has_hit(1).await;
    drop(callers);
    collect(&server, &queue, 40).await;
    assert_eq!(fail_point.end().await, 1);
    assert_eq!(count_held(&server, &queue).await, 0, "what was claimed for callers that went away goes back");
}
