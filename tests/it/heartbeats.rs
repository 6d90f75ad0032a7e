//! Heartbeats: what keeps a lease alive, what a worker learns by them, and progress.

use std::time::Duration;

use serde_json::{Value, json};
use task_repo_tests::{TestServer, assert_problem, eventually};
use uuid::Uuid;

use crate::verbs::{
    STRANGE_TOKEN, assert_in_seconds, assert_lease_lost, assert_seconds_after, claim_one, id,
    pass_until_status, post, settle, shown, time, token, with,
};

async fn held(server: &TestServer, task: Value, claim: Value) -> Value {
    let task = server.create(task).await;
    claim_one(server, &task, claim).await
}

/// Waits until the task shows that progress: a server may store it a moment after it has answered.
async fn until_progress(server: &TestServer, task: &Value, progress: Value) -> Value {
    eventually("progress shows", async || shown(server, task).await["progress"] == progress).await;
    shown(server, task).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_a_lease_alive() {
    let server = TestServer::start().await;
    let kept = held(&server, json!({}), json!({"lease_seconds": 4})).await;
    let left = held(&server, json!({}), json!({"lease_seconds": 4})).await;
    for _ in 0..6 {
        settle(&server, &kept, "heartbeat", json!({})).await.ok();
        server.let_pass(Duration::from_secs(2)).await;
    }
    let still = shown(&server, &kept).await;
    assert_eq!((&still["status"], &still["losses"]), (&json!("processing"), &json!(0)));
    assert_eq!(still["version"], kept["version"], "heartbeats are no change of the task");
    pass_until_status(&server, &left, "pending").await;
    settle(&server, &kept, "complete", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_do_not_outlast_the_timeout() {
    let server = TestServer::start().await;
    let held = held(&server, json!({"timeout_seconds": 2}), json!({"lease_seconds": 60})).await;
    let end = time(&held["lease"]["expires_at"]);
    let times_out = eventually("the attempt times out in spite of its heartbeats", async || {
        let beat = settle(&server, &held, "heartbeat", json!({"lease_seconds": 600})).await;
        if beat.status == 200 {
            assert_eq!(time(&beat.ok()["expires_at"]), end, "the timeout is the end");
            return false;
        }
        let now = shown(&server, &held).await;
        assert_lease_lost(&beat, &now);
        assert_eq!((&now["status"], &now["error"]["code"]), (&json!("scheduled"), &json!("timeout")));
        true
    });
    server.while_time_passes(times_out).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_renews_for_as_long_as_it_says_or_as_the_lease_was() {
    let server = TestServer::start().await;
    let long = json!({"timeout_seconds": 100_000, "lease_seconds": 200});
    for (claim, beat, seconds) in [
        (json!({}), json!({}), 200),
        (json!({"lease_seconds": 500}), json!({}), 500),
        (json!({"lease_seconds": 500}), json!({"lease_seconds": 1000}), 1000),
        (json!({"lease_seconds": 500}), json!({"lease_seconds": 30}), 30),
    ] {
        let held = held(&server, long.clone(), claim).await;
        let receipt = settle(&server, &held, "heartbeat", beat).await.ok();
        assert_in_seconds(&receipt["expires_at"], seconds);
        assert_eq!(receipt["cancel_requested"], false);
        let now = shown(&server, &held).await;
        assert_eq!(now["lease"]["expires_at"], receipt["expires_at"]);
        assert_eq!(now["version"], held["version"]);
    }
    let short = held(&server, json!({"timeout_seconds": 100}), json!({})).await;
    let receipt = settle(&server, &short, "heartbeat", json!({"lease_seconds": 5000})).await.ok();
    assert_seconds_after(&receipt["expires_at"], time(&short["started_at"]), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_a_change_only_when_it_is_new() {
    let server = TestServer::start().await;
    let held = held(&server, json!({}), json!({})).await;
    let mut version = held["version"].as_u64().expect("a version");
    for (said, progress, is_new) in [
        (json!({"value": 0.25, "text": "read"}), json!({"value": 0.25, "text": "read"}), true),
        (json!({"value": 0.25, "text": "read"}), json!({"value": 0.25, "text": "read"}), false),
        (json!({"value": 0.5}), json!({"value": 0.5, "text": "read"}), true),
        (json!({"text": "written"}), json!({"value": 0.5, "text": "written"}), true),
        (json!({"text": "written"}), json!({"value": 0.5, "text": "written"}), false),
        (json!({"value": 1}), json!({"value": 1.0, "text": "written"}), true),
        (json!({"value": 0}), json!({"value": 0.0, "text": "written"}), true),
    ] {
        settle(&server, &held, "heartbeat", json!({"progress": said})).await.ok();
        version += u64::from(is_new);
        assert_eq!(until_progress(&server, &held, progress).await["version"], version, "{said}");
    }
    settle(&server, &held, "heartbeat", json!({})).await.ok();
    assert_eq!(
        shown(&server, &held).await["version"],
        version,
        "a heartbeat that says nothing changes nothing"
    );
    let status = server.get(&format!("/tasks/{}/status", id(&held))).send().await.ok();
    assert_eq!(status["progress"], json!({"value": 0.0, "text": "written"}));

    for (wrong, field) in [
        (json!({}), "progress"),
        (json!({"value": null, "text": null}), "progress"),
        (json!({"value": 1.1}), "progress"),
        (json!({"value": -0.1}), "progress"),
        (json!({"value": "half"}), "progress"),
        (json!({"value": 0.5, "of": 3}), "progress"),
        (json!(0.5), "progress"),
    ] {
        let refused = settle(&server, &held, "heartbeat", json!({"progress": wrong})).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"][1], field, "{wrong}");
    }
    assert_eq!(shown(&server, &held).await["version"], version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_hears_of_a_cancellation() {
    let server = TestServer::start().await;
    let held = held(&server, json!({}), json!({})).await;
    assert_eq!(settle(&server, &held, "heartbeat", json!({})).await.ok()["cancel_requested"], false);
    post(&server, &held, "cancel", json!({})).await.ok();
    for _ in 0..2 {
        assert_eq!(settle(&server, &held, "heartbeat", json!({})).await.ok()["cancel_requested"], true);
    }
    let beats = json!({"heartbeats": [{"id": id(&held), "lease_token": token(&held)}]});
    let answer = server.post("/tasks/heartbeat").json(&beats).send().await.ok();
    assert_eq!(answer["results"][0]["cancel_requested"], true);
    assert_eq!(settle(&server, &held, "cancel", json!({})).await.ok()["status"], "cancelled");
    let ended = shown(&server, &held).await;
    assert_lease_lost(&settle(&server, &held, "heartbeat", json!({})).await, &ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_heartbeats_are_answered_in_order_each_for_itself() {
    let server = TestServer::start().await;
    let long = json!({"timeout_seconds": 100_000});
    let mut all = Vec::new();
    for seconds in [100, 200, 300] {
        all.push(held(&server, long.clone(), json!({"lease_seconds": seconds})).await);
    }
    let [first, second, gone] = &all[..] else { panic!("three tasks") };
    let deleted = server.delete(&format!("/tasks/{}", id(gone))).query(&[("force", "true")]).send().await;
    assert_eq!(deleted.status, 204);

    let beat = |task: &Value, more: Value| with(json!({"id": id(task), "lease_token": token(task)}), more);
    let heartbeats = json!([
        beat(first, json!({})),
        beat(second, json!({"lease_token": STRANGE_TOKEN})),
        {"id": "no-uuid", "lease_token": STRANGE_TOKEN},
        {"id": Uuid::now_v7(), "lease_token": STRANGE_TOKEN},
        beat(gone, json!({})),
        beat(first, json!({"lease_seconds": 0})),
        beat(first, json!({"progress": {"value": 2}})),
        beat(first, json!({"status": "processing"})),
        {"id": id(first)},
        17,
        beat(second, json!({"lease_seconds": 5000, "progress": {"value": 0.5}})),
    ]);
    let answer = server.post("/tasks/heartbeat").json(&json!({"heartbeats": heartbeats})).send().await.ok();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 11);

    for (place, seconds) in [(0, 100), (10, 5000)] {
        assert_in_seconds(&results[place]["expires_at"], seconds);
        assert_eq!(results[place]["cancel_requested"], false);
        assert!(results[place].get("problem").is_none(), "{answer}");
    }
    assert_problem(&results[1]["problem"], 409, "lease_lost");
    assert_eq!(results[1]["problem"]["attempt"], 1);
    for place in [2, 3, 4] {
        assert_problem(&results[place]["problem"], 404, "task_not_found");
    }
    for (place, loc) in [
        (5, json!(["body", "heartbeats", 5, "lease_seconds"])),
        (6, json!(["body", "heartbeats", 6, "progress", "value"])),
        (7, json!(["body", "heartbeats", 7, "status"])),
        (8, json!(["body", "heartbeats", 8, "lease_token"])),
        (9, json!(["body", "heartbeats", 9])),
    ] {
        assert_problem(&results[place]["problem"], 422, "validation_failed");
        assert_eq!(results[place]["problem"]["errors"][0]["loc"], loc);
    }
    for result in &results[1..10] {
        assert!(result.get("expires_at").is_none() && result.get("cancel_requested").is_none(), "{result}");
    }
    assert_eq!(shown(&server, first).await["version"], first["version"]);
    until_progress(&server, second, json!({"value": 0.5, "text": null})).await;
}
