//! Pauses of task types: claims get nothing of a paused type, everything else goes on.

use std::time::Duration;

use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, in_seconds, unique_type};

use crate::verbs::{claim, claim_one, create_many, id, ids, post, put_status, settle, shown, tasks, with};

/// Longest a call may wait, in milliseconds, and less than that: an answer by then was not the end of the wait.
const WAIT_MS: u64 = 28_000;
const EARLY: Duration = Duration::from_secs(15);

async fn pause(server: &TestServer, queue: &str, body: Value) -> Value {
    server.post(&format!("/task-types/{queue}/pause")).json(&body).send().await.ok()
}

async fn resume(server: &TestServer, queue: &str) -> Value {
    server.post(&format!("/task-types/{queue}/resume")).send().await.ok()
}

async fn claim_of(server: &TestServer, queues: &[&String], more: Value) -> Value {
    let body = with(json!({"task_types": queues, "worker_id": "w1"}), more);
    server.post("/tasks/claim").json(&body).send().await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_get_nothing_of_a_paused_type_and_everything_else_goes_on() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let running = server.create(json!({"task_type": queue})).await;
    let held = claim_one(&server, &running, json!({})).await;
    let waiting = server.create(json!({"task_type": queue})).await;

    let shown_now = pause(&server, &queue, json!({"reason": "upgrade"})).await;
    assert_eq!(shown_now["paused"]["reason"], "upgrade");
    assert!(shown_now["paused"]["until"].is_null() && shown_now["paused"]["since"].is_string());
    assert_eq!((&shown_now["settings"], &shown_now["version"]), (&json!({}), &json!(0)));
    assert_eq!(claim(&server, &queue, json!({"limit": 10})).await["tasks"], json!([]));
    assert_eq!(claim(&server, &queue, json!({"wait_ms": 300})).await["tasks"], json!([]));
    let by_id = post(&server, &waiting, "claim", json!({"worker_id": "w"})).await;
    assert_eq!(by_id.problem(409, "task_not_claimable")["current_status"], "pending");
    let refused = put_status(&server, &waiting, json!({"status": "processing"})).await;
    refused.problem(409, "invalid_transition");
    assert_eq!(shown(&server, &waiting).await, waiting, "refused calls change nothing");
    let missing = server.post(&format!("/tasks/{}/claim", uuid::Uuid::now_v7()));
    missing.json(&json!({"worker_id": "w"})).send().await.problem(404, "task_not_found");

    // Running work goes on, also work that a service runs itself; creates and edits are taken.
    let heartbeat = server.post(&format!("/tasks/{}/heartbeat", id(&held)));
    heartbeat.json(&json!({"lease_token": held["lease"]["token"]})).send().await.ok();
    settle(&server, &held, "complete", json!({})).await.ok();
    let created = server.create(json!({"task_type": queue, "priority": 90})).await;
    server.put(&format!("/tasks/{}", id(&created))).json(&json!({"priority": 10})).send().await.ok();
    let outcomes = json!({"outcomes": [], "claim": {"task_types": [queue], "worker_id": "w", "limit": 9}});
    assert_eq!(server.post("/tasks/outcomes").json(&outcomes).send().await.ok()["tasks"], json!([]));

    // A pause is no setting: it outlives PUT and DELETE, and is replaced by the next one.
    server.put(&format!("/task-types/{queue}")).json(&json!({})).send().await.ok();
    server.delete(&format!("/task-types/{queue}")).send().await.success();
    assert_eq!(claim(&server, &queue, json!({})).await["tasks"], json!([]));
    let again = pause(&server, &queue, json!({})).await;
    assert!(again["paused"]["reason"].is_null(), "{again}");

    assert!(resume(&server, &queue).await["paused"].is_null());
    let claimed = claim(&server, &queue, json!({"limit": 10})).await;
    assert_eq!(ids(&claimed), [id(&waiting), id(&created)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waits_goes_on_waiting_and_is_served_when_the_type_is_resumed() {
    let one = TestServer::start().await;
    let other = one.sibling().await;
    for (resumed_at, narrow) in [(&one, false), (&other, false), (&one, true), (&other, true)] {
        let queue = unique_type();
        let more = if narrow { json!({"tags": {"k": "v"}}) } else { json!({}) };
        pause(&one, &queue, json!({})).await;
        let waits = with(json!({"wait_ms": WAIT_MS}), more);
        let waiting = tokio::time::timeout(EARLY, claim(&one, &queue, waits));
        let (claimed, first) = tokio::join!(waiting, async {
            one.until_claims_wait(&queue, 1).await;
            // Neither the task that is created here nor the one from elsewhere goes to the claim that waits.
            let first = one.create(json!({"task_type": queue, "tags": {"k": "v"}})).await;
            let second = other.create(json!({"task_type": queue, "tags": {"k": "v"}, "priority": 90})).await;
            assert_eq!((&first["status"], &second["status"]), (&json!("pending"), &json!("pending")));
            one.until_claims_wait(&queue, 1).await;
            assert_eq!(shown(&one, &second).await["status"], "pending");
            resume(resumed_at, &queue).await;
            second
        });
        let claimed = claimed.expect("an answer before the wait is over");
        assert_eq!(ids(&claimed), [id(&first)], "the first in claim order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_ends_by_itself() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let until = in_seconds(5);
    let paused = pause(&server, &queue, json!({"until": until})).await;
    assert_eq!(paused["paused"]["until"], until);
    let task = server.create(json!({"task_type": queue})).await;
    let waiting = tokio::time::timeout(EARLY, claim(&server, &queue, json!({"wait_ms": WAIT_MS})));
    let (claimed, ()) = tokio::join!(waiting, async {
        server.until_claims_wait(&queue, 1).await;
        server.let_pass(Duration::from_secs(6)).await;
    });
    assert_eq!(ids(&claimed.expect("an answer before the wait is over")), [id(&task)]);
    for body in [json!({"until": in_seconds(-60)}), json!({"reason": ""}), json!({"reason": "r".repeat(256)})]
    {
        let answer = server.post(&format!("/task-types/{queue}/pause")).json(&body).send().await;
        answer.problem(422, "validation_failed");
    }
    let strange = server.post(&format!("/task-types/{queue}/resume")).json(&json!({"until": null}));
    strange.send().await.problem(422, "validation_failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_several_types_gets_the_others_in_claim_order() {
    let server = TestServer::start().await;
    let [a, b, c] = [unique_type(), unique_type(), unique_type()];
    let queues = [&a, &b, &c];
    let created = create_many(
        &server,
        30,
        |n| json!({"task_type": queues[n % 3], "priority": if n % 2 == 0 { 80 } else { 20 }}),
    )
    .await;
    // What was read ahead before the pause is not given out after it.
    let first = claim_of(&server, &queues, json!({"limit": 1})).await;
    assert_eq!(ids(&first), [id(&created[0])]);
    pause(&server, &b, json!({})).await;
    let expected: Vec<_> = [80, 20]
        .into_iter()
        .flat_map(|priority| created.iter().filter(move |task| task["priority"] == priority))
        .filter(|task| task["task_type"] != b.as_str() && id(task) != id(&created[0]))
        .map(id)
        .collect();
    let mut got = Vec::new();
    loop {
        let claimed = claim_of(&server, &queues, json!({"limit": 4})).await;
        if tasks(&claimed).is_empty() {
            break;
        }
        got.extend(ids(&claimed).into_iter().map(str::to_owned));
    }
    assert_eq!(got, expected);
    resume(&server, &b).await;
    let rest = claim_of(&server, &queues, json!({"limit": 100})).await;
    assert_eq!(tasks(&rest).len(), 10, "all of the type that was paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_several_types_is_served_of_those_that_are_not_paused() {
    let server = TestServer::start().await;
    let (a, b) = (unique_type(), unique_type());
    pause(&server, &a, json!({})).await;
    let queues = [&a, &b];
    let waiting = tokio::time::timeout(EARLY, claim_of(&server, &queues, json!({"wait_ms": WAIT_MS})));
    let (claimed, of_b) = tokio::join!(waiting, async {
        server.until_claims_wait(&b, 1).await;
        server.create(json!({"task_type": a, "priority": 100})).await;
        server.create(json!({"task_type": b})).await
    });
    assert_eq!(ids(&claimed.expect("an answer before the wait is over")), [id(&of_b)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_holds_on_every_server() {
    let one = TestServer::start().await;
    let other = one.sibling().await;
    let queue = unique_type();
    create_many(&one, 200, |_| json!({"task_type": queue})).await;
    pause(&one, &queue, json!({})).await;
    assert_eq!(claim(&one, &queue, json!({})).await["tasks"], json!([]));
    let begun = std::time::Instant::now();
    eventually("the pause holds there", async || tasks(&claim(&other, &queue, json!({})).await).is_empty())
        .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    resume(&other, &queue).await;
    assert_eq!(tasks(&claim(&other, &queue, json!({})).await).len(), 1);
    let page = one.get("/task-types").send().await.ok();
    assert!(page["task_types"].as_array().unwrap().iter().all(|it| it["paused"].is_null()));
}
