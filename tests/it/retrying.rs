//! What follows a failed attempt: backoff, the attempts that are left, and what the worker says about it.

use chrono::Utc;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};

use crate::verbs::{
    assert_in_seconds, claim, claim_one, create_many, pass_until_status, post, settle, shown, tasks, time,
};

/// A policy without jitter.
fn policy(backoff: &str, base_seconds: i64, cap_seconds: i64) -> Value {
    json!({"backoff": backoff, "base_seconds": base_seconds, "cap_seconds": cap_seconds, "jitter": 0})
}

/// Fails one attempt after the other, and checks that each is put off by that many seconds.
async fn assert_backoff(server: &TestServer, retry: Value, seconds: &[i64]) {
    let task = server.create(json!({"retry": retry, "max_attempts": 50})).await;
    for (n, seconds) in seconds.iter().enumerate() {
        let held = claim_one(server, &task, json!({})).await;
        assert_eq!(held["attempt"], n + 1);
        let receipt = settle(server, &held, "fail", json!({})).await.ok();
        assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("scheduled"), &json!("retry")));
        assert_in_seconds(&receipt["run_at"], *seconds);
        post(server, &task, "execute", json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_jitter_the_backoff_is_exact() {
    let server = TestServer::start().await;
    tokio::join!(
        assert_backoff(&server, policy("fixed", 500, 86_400), &[500, 500, 500]),
        assert_backoff(&server, policy("linear", 500, 86_400), &[500, 1000, 1500, 2000]),
        assert_backoff(&server, policy("exponential", 500, 86_400), &[500, 1000, 2000, 4000, 8000]),
        assert_backoff(&server, policy("exponential", 500, 3000), &[500, 1000, 2000, 3000, 3000]),
        assert_backoff(&server, policy("linear", 500, 1200), &[500, 1000, 1200, 1200]),
        assert_backoff(&server, policy("fixed", 500, 100), &[100, 100]),
        assert_backoff(&server, policy("exponential", 86_400, 86_400), &[86_400; 40]),
        // What a policy leaves out: exponential from 5 seconds to an hour.
        assert_backoff(&server, json!({"base_seconds": 1000, "jitter": 0}), &[1000, 2000, 3600, 3600]),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jitter_spreads_the_backoff_within_its_bounds() {
    let server = TestServer::start().await;
    for (retry, from, to) in [
        (
            json!({"backoff": "fixed", "base_seconds": 10_000, "cap_seconds": 86_400, "jitter": 0.5}),
            5_000,
            15_000,
        ),
        (json!({"base_seconds": 50_000, "cap_seconds": 10_000, "jitter": 0.2}), 8_000, 12_000),
        (json!({"base_seconds": 10_000, "cap_seconds": 10_000, "jitter": 1}), 0, 20_000),
    ] {
        let queue = unique_type();
        create_many(&server, 20, |_| json!({"task_type": queue, "retry": retry})).await;
        let mut waits = Vec::new();
        for task in tasks(&claim(&server, &queue, json!({"limit": 20})).await) {
            let receipt = settle(&server, task, "fail", json!({})).await.ok();
            let now = Utc::now();
            // With the whole of it as jitter it may be ready at once, and then there is nothing to wait for.
            let run_at = if receipt["run_at"].is_null() { now } else { time(&receipt["run_at"]) };
            waits.push((run_at - now).num_seconds());
        }
        assert_eq!(waits.len(), 20);
        assert!(waits.iter().all(|wait| (from - 10..=to + 10).contains(wait)), "{retry}: {waits:?}");
        waits.sort_unstable();
        assert!(waits[0] + 10 < waits[19], "a spread is expected, not {waits:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_may_say_when() {
    let server = TestServer::start().await;
    let retry = json!({"backoff": "fixed", "base_seconds": 100, "cap_seconds": 100, "jitter": 0});
    for seconds in [2000, 31_536_000] {
        let task = server.create(json!({"retry": retry})).await;
        let held = claim_one(&server, &task, json!({})).await;
        let receipt = settle(&server, &held, "fail", json!({"retry_after_seconds": seconds})).await.ok();
        assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("scheduled"), &json!("retry")));
        assert_in_seconds(&receipt["run_at"], seconds);
    }

    // At once is also when.
    let task = server.create(json!({"retry": retry})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "fail", json!({"retry_after_seconds": 0})).await.ok();
    assert_eq!(pass_until_status(&server, &task, "pending").await["attempt"], 1);
    assert_eq!(claim_one(&server, &task, json!({})).await["attempt"], 2);

    // With `never` there is no when.
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let never = json!({"retry": "never", "retry_after_seconds": 60});
    let receipt = settle(&server, &held, "fail", never).await.ok();
    assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("failed"), &json!("error")));
    assert_eq!(receipt["run_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_run_out() {
    let server = TestServer::start().await;
    for max_attempts in [1, 2, 3] {
        let task = server.create(json!({"max_attempts": max_attempts})).await;
        for attempt in 1..=max_attempts {
            let held = claim_one(&server, &task, json!({})).await;
            assert_eq!(held["attempt"], attempt);
            let error = json!({"message": "no", "code": "E7", "details": {"n": attempt}});
            // Asking for another attempt does not make one.
            let receipt = settle(&server, &held, "fail", json!({"error": error, "retry": "auto"})).await.ok();
            let now = shown(&server, &task).await;
            assert_eq!(now["error"], error, "the latest error is kept");
            if attempt == max_attempts {
                assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("failed"), &json!("exhausted")));
                assert!(now["completed_at"].is_string());
            } else {
                assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("scheduled"), &json!("retry")));
                post(&server, &task, "execute", json!({})).await.ok();
            }
        }
    }

    // The default is three.
    let task = server.create(json!({})).await;
    assert_eq!(task["max_attempts"], 3);

    // `retry_after_seconds` does not make one either.
    let task = server.create(json!({"max_attempts": 1})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let receipt = settle(&server, &held, "fail", json!({"retry_after_seconds": 1})).await.ok();
    assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("failed"), &json!("exhausted")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_attempt_does_not_count() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 1})).await;
    for _ in 0..4 {
        let held = claim_one(&server, &task, json!({})).await;
        assert_eq!(held["attempt"], 1);
        settle(&server, &held, "release", json!({"delay_seconds": 0})).await.ok();
        let now = shown(&server, &task).await;
        assert_eq!((&now["attempt"], &now["losses"]), (&json!(0), &json!(0)));
    }
    let held = claim_one(&server, &task, json!({})).await;
    let receipt = settle(&server, &held, "release", json!({"delay_seconds": 500})).await.ok();
    assert_eq!((&receipt["status"], &receipt["reason"]), (&json!("scheduled"), &json!("delayed")));
    assert_in_seconds(&receipt["run_at"], 500);

    // The one that does count is still there.
    post(&server, &task, "execute", json!({})).await.ok();
    let held = claim_one(&server, &task, json!({})).await;
    assert_eq!(settle(&server, &held, "fail", json!({})).await.ok()["reason"], "exhausted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_comes_by_itself_when_its_time_has_come() {
    let server = TestServer::start().await;
    let retry = json!({"backoff": "fixed", "base_seconds": 1, "jitter": 0});
    let task = server.create(json!({"retry": retry})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let receipt = settle(&server, &held, "fail", json!({})).await.ok();
    let queue = held["task_type"].as_str().expect("a type");
    let again = server.while_time_passes(claim(&server, queue, json!({"wait_ms": 20_000}))).await;
    let again = &tasks(&again)[0];
    assert_eq!((&again["id"], &again["attempt"]), (&task["id"], &json!(2)));
    assert_eq!(again["reason"], Value::Null);
    assert!(time(&again["started_at"]) >= time(&receipt["run_at"]), "not before its time: {again}");
}
