//! Ending a lease: receipts, repeats, what a spent token may not do, and what becomes of a cancellation asked for.

use serde_json::{Value, json};
use task_repo_tests::TestServer;

use crate::verbs::{
    STRANGE_TOKEN, assert_lease_lost, assert_receipt, claim_one, executions, id, pass_until_status, post,
    settle, shown, with,
};

const VERBS: [(&str, &str); 4] =
    [("complete", "completed"), ("fail", "scheduled"), ("release", "pending"), ("cancel", "cancelled")];

/// A fresh task that is held.
async fn held(server: &TestServer, task: Value) -> Value {
    let task = server.create(task).await;
    claim_one(server, &task, json!({})).await
}

/// Makes a task that its worker has let go of ready again and has another worker claim it.
async fn claimed_by_another(server: &TestServer, task: &Value) -> Value {
    if shown(server, task).await["status"] != "pending" {
        post(server, task, "execute", json!({})).await.ok();
    }
    claim_one(server, task, json!({"worker_id": "w2"})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_where_the_task_stands() {
    let server = TestServer::start().await;
    for (verb, more, status, reason, attempt) in [
        ("complete", json!({}), "completed", json!(null), 1),
        ("fail", json!({}), "scheduled", json!("retry"), 1),
        ("fail", json!({"retry": "auto"}), "scheduled", json!("retry"), 1),
        ("fail", json!({"retry": "never"}), "failed", json!("error"), 1),
        ("release", json!({}), "pending", json!(null), 0),
        ("release", json!({"delay_seconds": 0}), "pending", json!(null), 0),
        ("release", json!({"delay_seconds": 3600}), "scheduled", json!("delayed"), 0),
        ("cancel", json!({}), "cancelled", json!(null), 1),
    ] {
        let task = held(&server, json!({})).await;
        let receipt = settle(&server, &task, verb, more).await.ok();
        let now = shown(&server, &task).await;
        assert_receipt(&receipt, &now);
        assert_eq!((&now["status"], &now["reason"]), (&json!(status), &reason), "{verb}");
        assert_eq!(now["attempt"], attempt, "{verb}");
        assert_eq!(now["lease"], Value::Null);
        let is_final = ["completed", "failed", "cancelled"].contains(&status);
        assert_eq!(now["completed_at"].is_string(), is_final, "{verb}");
        assert_eq!(now["run_at"].is_string(), status == "scheduled", "{verb}: {now}");
    }

    // Verbs without a token.
    let task = server.create(json!({"delay_seconds": 60})).await;
    for (verb, status) in [("execute", "pending"), ("cancel", "cancelled"), ("execute", "pending")] {
        let receipt = post(&server, &task, verb, json!({})).await.ok();
        assert_receipt(&receipt, &shown(&server, &task).await);
        assert_eq!(receipt["status"], status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_again_gets_the_same_receipt_and_anything_else_is_refused() {
    let server = TestServer::start().await;
    for (first, status) in VERBS {
        let task = held(&server, json!({})).await;
        let receipt = settle(&server, &task, first, json!({})).await.ok();
        assert_eq!(receipt["status"], status);
        let settled = shown(&server, &task).await;
        for (second, _) in VERBS {
            let answer = settle(&server, &task, second, json!({})).await;
            if second == first {
                assert_eq!(answer.ok(), receipt, "{first} again");
            } else {
                let problem = answer.problem(409, "lease_lost");
                assert_eq!(problem["current_status"], status, "{first}, then {second}");
            }
            assert_eq!(shown(&server, &task).await, settled, "{first}, then {second}");
        }
        settle(&server, &task, "heartbeat", json!({})).await.problem(409, "lease_lost");
        assert_eq!(shown(&server, &task).await, settled, "{first}, then a heartbeat");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_repeated_whoever_holds_the_task_now() {
    let server = TestServer::start().await;
    for (first, _) in VERBS {
        let task = held(&server, json!({"max_attempts": 5})).await;
        let receipt = settle(&server, &task, first, json!({})).await.ok();
        let second = claimed_by_another(&server, &task).await;
        let holding = shown(&server, &task).await;
        for (verb, _) in VERBS {
            let answer = settle(&server, &task, verb, json!({})).await;
            if verb == first {
                assert_eq!(answer.ok(), receipt, "{first} again, while another holds the task");
            } else {
                assert_lease_lost(&answer, &holding);
            }
            assert_eq!(shown(&server, &task).await, holding, "{first}, then {verb}");
        }
        assert_lease_lost(&settle(&server, &task, "heartbeat", json!({})).await, &holding);

        // And once the other has settled it, each has the receipt of its own attempt.
        let other = settle(&server, &second, "complete", json!({})).await.ok();
        assert_eq!(settle(&server, &task, first, json!({})).await.ok(), receipt, "{first} after all");
        assert_eq!(settle(&server, &second, "complete", json!({})).await.ok(), other);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_token_settles() {
    let server = TestServer::start().await;
    let task = held(&server, json!({})).await;
    let other = held(&server, json!({})).await;
    let before = shown(&server, &task).await;
    for (verb, _) in VERBS {
        for token in [STRANGE_TOKEN, "", "$lease", other["lease"]["token"].as_str().expect("a token")] {
            let mut body = json!({"lease_token": token});
            if verb == "fail" {
                body = with(body, json!({"error": {"message": "it broke"}}));
            }
            assert_lease_lost(&post(&server, &task, verb, body).await, &before);
        }
    }
    // Where a task has a lease the token has to be there.
    for (verb, body) in [
        ("complete", json!({})),
        ("release", json!({})),
        ("heartbeat", json!({})),
        ("fail", json!({"error": {"message": "it broke"}})),
        ("complete", json!({"lease_token": null})),
        ("complete", json!({"lease_token": 7})),
    ] {
        let problem = post(&server, &task, verb, body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], json!(["body", "lease_token"]), "{verb}");
    }
    assert_eq!(shown(&server, &task).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reporting_on_a_task_deleted_under_the_worker_is_not_found() {
    let server = TestServer::start().await;
    for (verb, _) in VERBS.into_iter().chain([("heartbeat", "")]) {
        let task = held(&server, json!({})).await;
        let gone = server.delete(&format!("/tasks/{}", id(&task))).query(&[("force", "true")]).send().await;
        assert_eq!(gone.status, 204);
        settle(&server, &task, verb, json!({})).await.problem(404, "task_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_asked_for_takes_effect_unless_the_work_is_done() {
    let server = TestServer::start().await;
    for (verb, more, status) in [
        ("complete", json!({"result": {"done": true}}), "completed"),
        ("fail", json!({}), "cancelled"),
        ("fail", json!({"retry": "never"}), "cancelled"),
        ("fail", json!({"retry_after_seconds": 5}), "cancelled"),
        ("release", json!({}), "cancelled"),
        ("release", json!({"delay_seconds": 60}), "cancelled"),
        ("cancel", json!({}), "cancelled"),
    ] {
        let task = held(&server, json!({})).await;
        let asked = post(&server, &task, "cancel", json!({})).await.ok();
        assert_eq!(asked["status"], "processing", "a worker has it: it is only told");
        let told = shown(&server, &task).await;
        assert_receipt(&asked, &told);
        assert!(told["cancel_requested_at"].is_string());

        let receipt = settle(&server, &task, verb, more.clone()).await.ok();
        assert_eq!(receipt["status"], status, "cancel, then {verb} {more}");
        let ended = shown(&server, &task).await;
        assert_receipt(&receipt, &ended);
        assert_eq!((&ended["reason"], &ended["lease"]), (&Value::Null, &Value::Null), "{ended}");
        assert_eq!(ended["run_at"], Value::Null, "{ended}");
        assert!(ended["completed_at"].is_string());
        assert_eq!(settle(&server, &task, verb, more).await.ok(), receipt, "and again");
        assert_eq!(executions(&server, &task).await.len(), 1);
    }

    // Lost, or out of time.
    let lost = held(&server, json!({"lease_seconds": 1})).await;
    let timed_out = held(&server, json!({"timeout_seconds": 1})).await;
    for task in [&lost, &timed_out] {
        post(&server, task, "cancel", json!({})).await.ok();
        let ended = pass_until_status(&server, task, "cancelled").await;
        assert_eq!(ended["reason"], Value::Null);
        assert!(ended["completed_at"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_twice_is_cancelling_once() {
    let server = TestServer::start().await;
    for task in [
        server.create(json!({})).await,
        server.create(json!({"delay_seconds": 60})).await,
        held(&server, json!({})).await,
    ] {
        let receipt = post(&server, &task, "cancel", json!({})).await.ok();
        let once = shown(&server, &task).await;
        assert_eq!(post(&server, &task, "cancel", json!({})).await.ok(), receipt);
        assert_eq!(shown(&server, &task).await, once);

        // The body may be left out.
        let bare = server.post(&format!("/tasks/{}/cancel", id(&task))).send().await;
        assert_eq!(bare.ok(), receipt);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_again_gets_the_first_receipt_whatever_the_worker_says_meanwhile() {
    let server = TestServer::start().await;
    let task = held(&server, json!({})).await;
    let receipt = post(&server, &task, "cancel", json!({})).await.ok();
    for progress in [json!({"value": 0.5}), json!({"value": 0.7, "text": "still at it"})] {
        let heard = settle(&server, &task, "heartbeat", json!({"progress": progress})).await.ok();
        assert_eq!(heard["cancel_requested"], true);
        let now = shown(&server, &task).await;
        assert!(now["version"].as_u64() > receipt["version"].as_u64(), "progress is a change: {now}");
        assert_eq!(post(&server, &task, "cancel", json!({})).await.ok(), receipt);
        assert_eq!(shown(&server, &task).await, now, "cancelling again changes nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_makes_the_task_too_large_is_refused() {
    let server = TestServer::start().await;
    let half = "x".repeat(600 << 10);
    let task = held(&server, json!({"request": half})).await;
    let alone = held(&server, json!({})).await;
    let (before, before_alone) = (shown(&server, &task).await, shown(&server, &alone).await);

    let sum = settle(&server, &task, "complete", json!({"result": half})).await;
    sum.problem(413, "payload_too_large");
    let too_large = "x".repeat((1 << 20) + 1);
    settle(&server, &alone, "complete", json!({"result": too_large})).await.problem(413, "payload_too_large");
    let deep = (0..33).fold(json!(1), |inner, _| json!([inner]));
    let too_deep = settle(&server, &alone, "complete", json!({"result": deep})).await;
    assert_eq!(too_deep.problem(422, "validation_failed")["errors"][0]["loc"], json!(["body", "result"]));
    assert_eq!(shown(&server, &task).await, before, "the worker still holds it");
    assert_eq!(shown(&server, &alone).await, before_alone);

    // The worker can still settle, with something smaller.
    let deep = (0..32).fold(json!(1), |inner, _| json!([inner]));
    settle(&server, &task, "complete", json!({"result": "x".repeat(400 << 10)})).await.ok();
    settle(&server, &alone, "complete", json!({"result": deep})).await.ok();
    assert_eq!(shown(&server, &alone).await["result"], deep);
}
