//! Two servers on one database are one service.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use task_repo_server::Settings;
use task_repo_server::access::Scope;
use task_repo_server::store::{ReadyFrom, Selection, Store};
use task_repo_server::task::Order;
use task_repo_tests::{TestServer, eventually, unique_type};
use uuid::Uuid;

use crate::verbs::{
    claim, claim_one, create_many, id, ids, post, put_status, settle, shown, tasks, time, token,
    until_status, with,
};

/// Longest a call may wait, in milliseconds, and less than that: an answer by then was not the end of the wait.
const WAIT_MS: u64 = 28_000;
const EARLY: Duration = Duration::from_secs(15);

async fn pair() -> (TestServer, TestServer) {
    let one = TestServer::start().await;
    let other = one.sibling().await;
    (one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_given_out_by_both() {
    let (one, other) = pair().await;
    let queue = unique_type();
    create_many(&one, 300, |n| json!({"task_type": queue, "priority": n % 3})).await;
    let claimers = (0..16).map(async |n| {
        let server = if n % 2 == 0 { &one } else { &other };
        let mut got = Vec::new();
        loop {
            let claimed = claim(server, &queue, json!({"limit": 1 + n % 5})).await;
            if tasks(&claimed).is_empty() {
                return got;
            }
            got.extend(tasks(&claimed).iter().map(|task| id(task).to_owned()));
        }
    });
    let got = join_all(claimers).await.concat();
    let given: HashSet<&String> = got.iter().collect();
    assert_eq!((got.len(), given.len()), (300, 300), "each task once, all of them");

    // The same task, asked for by its id.
    let task = one.create(json!({})).await;
    let calls = (0..20).map(|n| {
        post(if n % 2 == 0 { &one } else { &other }, &task, "claim", json!({"worker_id": format!("w{n}")}))
    });
    let statuses: Vec<u16> = join_all(calls).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 19, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_at_one_gets_what_comes_ready_at_the_other() {
    let (one, other) = pair().await;
    for way in ["create", "release", "execute"] {
        let queue = unique_type();
        let held = if way == "create" {
            None
        } else {
            let task = other.create(json!({"task_type": queue})).await;
            Some(claim_one(&other, &task, json!({})).await)
        };
        let waiting = tokio::time::timeout(EARLY, claim(&one, &queue, json!({"wait_ms": WAIT_MS})));
        let (claimed, expected) = tokio::join!(waiting, async {
            one.until_claims_wait(&queue, 1).await;
            match &held {
                None => other.create(json!({"task_type": queue})).await["id"].clone(),
                Some(held) if way == "release" => {
                    settle(&other, held, "release", json!({})).await.ok()["id"].clone()
                }
                Some(held) => {
                    settle(&other, held, "fail", json!({})).await.ok();
                    post(&other, held, "execute", json!({})).await.ok()["id"].clone()
                }
            }
        });
        let claimed = claimed.expect("an answer before the wait is over");
        assert_eq!(ids(&claimed), [expected.as_str().expect("an id")], "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_one_hears_of_the_end_at_the_other() {
    let (one, other) = pair().await;
    for end in ["completed", "failed", "cancelled", "deleted", "self-managed"] {
        let task = one.create(json!({})).await;
        let path = format!("/tasks/{}", id(&task));
        let waiting = one.get(&path).query(&[("wait_ms", &WAIT_MS.to_string())]).send();
        let (told, ()) = tokio::join!(tokio::time::timeout(EARLY, waiting), async {
            one.until_reads_wait(1).await;
            match end {
                "completed" => {
                    let held = claim_one(&other, &task, json!({})).await;
                    settle(&other, &held, "complete", json!({"result": {"n": 1}})).await.ok();
                }
                "failed" => {
                    let held = claim_one(&other, &task, json!({})).await;
                    settle(&other, &held, "fail", json!({"retry": "never"})).await.ok();
                }
                "cancelled" => drop(post(&other, &task, "cancel", json!({})).await.ok()),
                "deleted" => assert_eq!(other.delete(&path).send().await.status, 204),
                _ => {
                    put_status(&other, &task, json!({"status": "processing"})).await.ok();
                    put_status(&other, &task, json!({"status": "completed"})).await.ok();
                }
            }
        });
        let told = told.expect("an answer before the wait is over");
        if end == "deleted" {
            told.problem(404, "task_not_found");
        } else {
            assert_eq!(told.ok(), shown(&other, &task).await, "{end}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_revoked_at_one_is_refused_by_the_other() {
    let (one, other) = pair().await;
    let issued = one.issue(&["viewer"], json!({})).await;
    let key = issued["key"].as_str().expect("a secret");
    for server in [&one, &other] {
        server.get("/tasks").key(key).send().await.ok();
    }
    assert_eq!(one.delete(&format!("/keys/{}", id(&issued))).send().await.status, 204);
    // Within 5 seconds everywhere, says the contract; the rest is for a slow machine.
    let refused = tokio::time::timeout(
        Duration::from_secs(8),
        eventually("the key is refused", async || {
            let answer = other.get("/tasks").key(key).send().await;
            if answer.status == 401 {
                answer.problem(401, "unauthenticated");
                return true;
            }
            false
        }),
    );
    refused.await.expect("a revoked key is refused in time");
    one.get("/tasks").key(key).send().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_claim_ids_hold_across_servers() {
    let (one, other) = pair().await;
    let queue = unique_type();
    for (n, priority) in [50, 90, 10].into_iter().cycle().take(12).enumerate() {
        let server = if n % 2 == 0 { &one } else { &other };
        server.create(json!({"task_type": queue, "priority": priority})).await;
    }
    let repeated = json!({"claim_id": Uuid::now_v7(), "limit": 5});
    let first = claim(&one, &queue, repeated.clone()).await;
    let again = claim(&other, &queue, repeated).await;
    assert_eq!(first, again, "the same claim, wherever it is sent");
    let rest = claim(&other, &queue, json!({"limit": 100})).await;
    let places: Vec<_> = tasks(&first)
        .iter()
        .chain(tasks(&rest))
        .map(|task| (-task["priority"].as_i64().expect("a priority"), time(&task["created_at"])))
        .collect();
    assert_eq!(places.len(), 12);
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_the_same_at_both() {
    let (one, other) = pair().await;
    let task = one.create(json!({})).await;
    let held = claim_one(&one, &task, json!({})).await;
    assert_eq!(settle(&other, &held, "heartbeat", json!({})).await.ok()["cancel_requested"], false);
    post(&one, &task, "cancel", json!({})).await.ok();
    assert_eq!(settle(&other, &held, "heartbeat", json!({})).await.ok()["cancel_requested"], true);
    let receipt = settle(&other, &held, "complete", json!({})).await.ok();
    assert_eq!(settle(&one, &held, "complete", json!({})).await.ok(), receipt);
    settle(&one, &held, "release", json!({})).await.problem(409, "lease_lost");

    // Settled at once at both, it is settled once.
    for _ in 0..10 {
        let task = one.create(json!({})).await;
        let held = claim_one(&other, &task, json!({})).await;
        let (completed, released) = tokio::join!(
            settle(&one, &held, "complete", json!({})),
            settle(&other, &held, "release", json!({})),
        );
        let mut statuses = [completed.status, released.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_time_does_is_done_once() {
    let (one, other) = pair().await;
    let queue = unique_type();
    create_many(&one, 20, |_| json!({"task_type": queue, "delay_seconds": 1})).await;
    let lost = create_many(&other, 20, |_| json!({"task_type": unique_type(), "lease_seconds": 1})).await;
    let tokens = join_all(lost.iter().map(|task| claim_one(&other, task, json!({})))).await;
    assert!(tokens.iter().all(|task| !token(task).is_empty()));
    let back =
        one.while_time_passes(join_all(lost.iter().map(|task| until_status(&one, task, "pending")))).await;
    for task in &back {
        assert_eq!(
            (&task["losses"], &task["version"]),
            (&json!(1), &json!(3)),
            "one loss, noticed once: {task}"
        );
    }
    let mut due = 0;
    eventually("all that is due has come", async || {
        let claimed = claim(&one, &queue, json!({"limit": 100, "wait_ms": 500})).await;
        for task in tasks(&claimed) {
            assert_eq!(task["version"], 3, "created, made ready once, claimed: {task}");
        }
        due += tasks(&claimed).len();
        due == 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_other_kinds_does_not_hide_what_a_claim_waits_for() {
    let (one, other) = pair().await;
    let (strange, queue) = (format!("a.{}", unique_type()), format!("b.{}", unique_type()));
    // More than one look of a server brings, and all of it would come first.
    for _ in 0..3 {
        let many: Vec<_> = (0..400)
            .map(|_| json!({"task_type": strange, "user_id": "ann", "tags": {"k": "v"}, "priority": 90}))
            .collect();
        one.post("/tasks/batch").json(&json!({"tasks": many})).send().await.ok();
    }
    let body = |more| with(json!({"task_types": [queue], "worker_id": "w", "wait_ms": WAIT_MS}), more);
    for (user, more) in [
        (Some("ann"), json!({})),
        (None, json!({"tags": {"k": "v"}})),
        (Some("ann"), json!({"tags": {"k": "v"}})),
    ] {
        let call = one.post("/tasks/claim").json(&body(more));
        let call = if let Some(user) = user { call.user(user) } else { call };
        let waiting = tokio::time::timeout(EARLY, call.send());
        let (claimed, task) = tokio::join!(waiting, async {
            one.until_claims_wait(&queue, 1).await;
            other.create(json!({"task_type": queue, "user_id": "ann", "tags": {"k": "v"}})).await
        });
        assert_eq!(ids(&claimed.expect("an answer").ok()), [id(&task)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_behind_a_task_can_leave_a_half_to_the_other() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 40, |n| json!({"task_type": queue, "priority": 9 - n % 2})).await;
    let settings = Settings::for_tests(server.mongodb_uri(), server.database().name());
    let store =
        Store::connect(&settings.database, std::sync::Arc::default()).await.expect("the database is there");
    let selection = Selection { scope: Scope::tenant("default"), task_types: vec![queue], tags: Vec::new() };

    let all = store.ready(&selection, ReadyFrom::Front, 100).await.expect("an answer").tasks;
    assert_eq!(all.len(), 40);
    for bit in [None, Some(false), Some(true)] {
        let from = ReadyFrom::After(Order::Claim.position(&all[9]), bit);
        let found = store.ready(&selection, from, 100).await.expect("an answer").tasks;
        let is_wanted = |id: &Uuid| bit.is_none_or(|bit| (id.as_u128() & 1 == 1) == bit);
        let wanted: Vec<_> = all[10..].iter().map(|task| task.id).filter(is_wanted).collect();
        assert_eq!(found.iter().map(|task| task.id).collect::<Vec<_>>(), wanted, "{bit:?}");
    }
    store.close().await;
}
