//! `POST /tasks/outcomes`: many tasks settled in one call, each for itself, and the next work with it.

use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, assert_problem, unique_type};
use uuid::Uuid;

use crate::verbs::{
    STRANGE_TOKEN, assert_receipt, claim, create_many, executions, id, ids, pass_until_status, shown, tasks,
    token, with,
};

/// That many tasks of one queue, each of them held.
async fn held(server: &TestServer, count: usize) -> Vec<Value> {
    let queue = unique_type();
    create_many(server, count, |_| json!({"task_type": queue})).await;
    tasks(&claim(server, &queue, json!({"limit": count})).await).clone()
}

/// How a held task ended.
fn outcome(task: &Value, kind: &str, more: Value) -> Value {
    with(json!({"id": id(task), "lease_token": token(task), "outcome": kind}), more)
}

async fn settle_all(server: &TestServer, outcomes: Value) -> HttpAnswer {
    server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await
}

/// The results of a call that settled some, in order.
fn results(answer: &Value) -> &Vec<Value> {
    answer["results"].as_array().unwrap_or_else(|| panic!("results are expected in {answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_of_every_kind_are_settled_in_one_call() {
    let server = TestServer::start().await;
    let held = held(&server, 6).await;
    let error = json!({"message": "no", "code": "E1", "details": [1]});
    let outcomes = json!([
        outcome(
            &held[0],
            "completed",
            json!({"result": {"n": 1}, "result_id": "r-1", "usage": {"tokens_used": 5}})
        ),
        outcome(&held[1], "failed", json!({"error": error})),
        outcome(
            &held[2],
            "failed",
            json!({"error": error, "retry": "never", "usage": {"api_calls_made": 2}})
        ),
        outcome(&held[3], "released", json!({})),
        outcome(&held[4], "released", json!({"delay_seconds": 100})),
        outcome(&held[5], "cancelled", json!({})),
    ]);
    let answer = settle_all(&server, outcomes.clone()).await.ok();
    assert_eq!(answer["tasks"], json!([]), "no claim was made");
    assert_eq!(results(&answer).len(), 6);
    let ends = ["completed", "scheduled", "failed", "pending", "scheduled", "cancelled"];
    for ((result, task), status) in results(&answer).iter().zip(&held).zip(ends) {
        let now = shown(&server, task).await;
        assert_eq!(now["status"], status);
        assert_receipt(&result["receipt"], &now);
        assert!(result.get("problem").is_none(), "{result}");
    }
    let completed = shown(&server, &held[0]).await;
    assert_eq!((&completed["result"], &completed["result_id"]), (&json!({"n": 1}), &json!("r-1")));
    assert_eq!(completed["usage"]["tokens_used"], 5);
    let failed = shown(&server, &held[2]).await;
    assert_eq!((&failed["error"], &failed["usage"]["api_calls_made"]), (&error, &json!(2)));

    // Sent again it is the same, and nothing counts twice.
    let again = settle_all(&server, outcomes).await.ok();
    assert_eq!(results(&again), results(&answer));
    assert_eq!(shown(&server, &held[0]).await, completed);
    assert_eq!(shown(&server, &held[2]).await, failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_outcome_is_its_own_problem() {
    let server = TestServer::start().await;
    let held = held(&server, 9).await;
    let before = shown(&server, &held[1]).await;
    let error = json!({"message": "no"});
    let large = "x".repeat((1 << 20) + 1);
    let at = |place: usize, field: &str| json!(["body", "outcomes", place, field]);
    let cases = [
        (outcome(&held[0], "completed", json!({})), None),
        (outcome(&held[1], "failed", json!({})), Some(at(1, "error"))),
        (outcome(&held[1], "finished", json!({})), Some(at(2, "outcome"))),
        (
            outcome(&held[1], "completed", json!({"usage": {"tokens_used": -1}})),
            Some(json!(["body", "outcomes", 3, "usage", "tokens_used"])),
        ),
        (outcome(&held[1], "failed", json!({"error": error, "retry": "maybe"})), Some(at(4, "retry"))),
        (
            outcome(&held[1], "failed", json!({"error": error, "retry_after_seconds": -1})),
            Some(at(5, "retry_after_seconds")),
        ),
        (outcome(&held[1], "released", json!({"delay_seconds": 31_536_001})), Some(at(6, "delay_seconds"))),
        (outcome(&held[1], "completed", json!({"result_id": ""})), Some(at(7, "result_id"))),
        (outcome(&held[1], "completed", json!({"speed": 1})), Some(at(8, "speed"))),
        (json!({"id": id(&held[1]), "outcome": "completed"}), Some(at(9, "lease_token"))),
        (json!({"lease_token": token(&held[1]), "outcome": "completed"}), Some(at(10, "id"))),
        (json!(17), Some(json!(["body", "outcomes", 11]))),
        (json!(null), Some(json!(["body", "outcomes", 12]))),
        (outcome(&held[2], "released", json!({})), None),
    ];
    let outcomes: Vec<&Value> = cases.iter().map(|(outcome, _)| outcome).collect();
    let answer = settle_all(&server, json!(outcomes)).await.ok();
    assert_eq!(results(&answer).len(), cases.len());
    for (result, (outcome, loc)) in results(&answer).iter().zip(&cases) {
        if let Some(loc) = loc {
            assert_problem(&result["problem"], 422, "validation_failed");
            let errors = result["problem"]["errors"].as_array().expect("a list of errors");
            assert!(
                errors.iter().any(|error| error["loc"] == *loc),
                "{loc} is expected in {result} to {outcome}"
            );
            assert!(result.get("receipt").is_none(), "{result}");
        } else {
            assert!(result["receipt"].is_object(), "the others are settled: {result} to {outcome}");
        }
    }
    assert_eq!(shown(&server, &held[1]).await, before, "what was refused changed nothing");

    // What is well formed and cannot be done has the problem it has by itself.
    let missing = json!({"id": Uuid::now_v7(), "lease_token": STRANGE_TOKEN, "outcome": "completed"});
    let nonsense = json!({"id": "no-uuid", "lease_token": STRANGE_TOKEN, "outcome": "completed"});
    let gone = server.delete(&format!("/tasks/{}", id(&held[3]))).query(&[("force", "true")]).send().await;
    assert_eq!(gone.status, 204);
    let answer = settle_all(
        &server,
        json!([
            nonsense,
            missing,
            outcome(&held[3], "completed", json!({})),
            outcome(&held[4], "completed", json!({"lease_token": STRANGE_TOKEN})),
            outcome(&held[5], "completed", json!({"lease_token": ""})),
            outcome(&held[0], "failed", json!({"error": error})),
            outcome(&held[6], "completed", json!({"result": large})),
            outcome(&held[7], "completed", json!({})),
        ]),
    )
    .await
    .ok();
    let results = results(&answer);
    for place in [0, 1, 2] {
        assert_problem(&results[place]["problem"], 404, "task_not_found");
    }
    for (place, task, status) in [(3, 4, "processing"), (4, 5, "processing"), (5, 0, "completed")] {
        let problem = &results[place]["problem"];
        assert_problem(problem, 409, "lease_lost");
        assert_eq!((&problem["task_id"], &problem["attempt"]), (&held[task]["id"], &json!(1)));
        assert_eq!(problem["current_status"], status);
    }
    assert_problem(&results[6]["problem"], 413, "payload_too_large");
    assert_eq!(results[7]["receipt"]["status"], "completed");
    assert_eq!(shown(&server, &held[6]).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_named_twice_ends_once() {
    let server = TestServer::start().await;
    let held = held(&server, 2).await;
    let usage = json!({"usage": {"tokens_used": 5}});
    let answer = settle_all(
        &server,
        json!([
            outcome(&held[0], "completed", usage.clone()),
            outcome(&held[0], "completed", usage),
            outcome(&held[1], "completed", json!({})),
            outcome(&held[1], "cancelled", json!({})),
        ]),
    )
    .await
    .ok();
    let results = results(&answer);
    assert!(results[0]["receipt"].is_object(), "{answer}");
    assert_eq!(results[0]["receipt"], results[1]["receipt"]);
    assert_eq!(shown(&server, &held[0]).await["usage"]["tokens_used"], 5, "what it used counts once");

    let receipts: Vec<_> = results[2..].iter().filter(|result| result["receipt"].is_object()).collect();
    let problems: Vec<_> = results[2..].iter().filter(|result| result["problem"].is_object()).collect();
    assert_eq!((receipts.len(), problems.len()), (1, 1), "{answer}");
    assert_problem(&problems[0]["problem"], 409, "lease_lost");
    assert_eq!(receipts[0]["receipt"]["status"], shown(&server, &held[1]).await["status"]);
    assert_eq!(executions(&server, &held[1]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_work_comes_in_the_same_call() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let created = create_many(&server, 5, |n| json!({"task_type": queue, "priority": 90 - n})).await;
    let first = server.claim(&queue).await;
    let claim = json!({"task_types": [queue], "worker_id": "w1", "limit": 3});
    let body = json!({"outcomes": [outcome(&first, "completed", json!({}))], "claim": claim});
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    assert_eq!(answer["results"][0]["receipt"]["status"], "completed");
    assert_eq!(ids(&answer), [id(&created[1]), id(&created[2]), id(&created[3])]);
    for task in tasks(&answer) {
        assert!(!token(task).is_empty());
        assert_eq!((&task["status"], &task["attempt"]), (&json!("processing"), &json!(1)));
    }

    // What was just given back can be what comes next.
    let held = tasks(&answer);
    let body = json!({
        "outcomes": [outcome(&held[0], "released", json!({})), outcome(&held[1], "completed", json!({}))],
        "claim": {"task_types": [queue], "worker_id": "w2", "limit": 10},
    });
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    assert_eq!(ids(&answer), [id(&created[1]), id(&created[4])], "{answer}");
    assert_ne!(token(&tasks(&answer)[0]), token(&held[0]));

    // A call with outcomes that cannot be settled still brings work, and a claim that breaks a rule settles nothing.
    let last = server.create(json!({"task_type": queue})).await;
    let body = json!({
        "outcomes": [outcome(&first, "failed", json!({"error": {"message": "no"}}))],
        "claim": {"task_types": [queue], "worker_id": "w2"},
    });
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    assert_problem(&answer["results"][0]["problem"], 409, "lease_lost");
    assert_eq!(ids(&answer), [id(&last)]);

    let body = json!({
        "outcomes": [outcome(&tasks(&answer)[0], "completed", json!({}))],
        "claim": {"task_types": [queue], "worker_id": "w2", "limit": 0},
    });
    let refused = server.post("/tasks/outcomes").json(&body).send().await.problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["loc"], json!(["body", "claim", "limit"]));
    assert_eq!(shown(&server, &last).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_an_expression_stays_text_when_tasks_are_written_together() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 4, |_| json!({"task_type": queue})).await;
    let held = server
        .post("/tasks/claim")
        .json(&json!({"task_types": [queue], "worker_id": "$tenant", "limit": 4}))
        .send()
        .await
        .ok();
    let held = tasks(&held);
    let error = json!({"message": "$$ROOT", "code": "$status", "details": {"$add": ["$version", 1]}});
    let body = json!({"outcomes": [
        outcome(&held[0], "completed", json!({"result": "$request", "result_id": "$name"})),
        outcome(&held[1], "completed", json!({"result": {"$literal": "$_id"}, "result_id": "$$NOW"})),
        outcome(&held[2], "failed", json!({"error": error, "retry": "never"})),
        outcome(&held[3], "failed", json!({"error": error, "retry": "never"})),
    ]});
    server.post("/tasks/outcomes").json(&body).send().await.ok();
    for (task, result, result_id) in
        [(&held[0], json!("$request"), "$name"), (&held[1], json!({"$literal": "$_id"}), "$$NOW")]
    {
        let now = shown(&server, task).await;
        assert_eq!((&now["result"], &now["result_id"]), (&result, &json!(result_id)), "{now:#}");
        assert_eq!(executions(&server, task).await[0]["worker_id"], "$tenant");
    }
    for task in &held[2..] {
        assert_eq!(shown(&server, task).await["error"], error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_comes_late_but_in_time_is_not_handed_out_again_by_its_own_call() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 5, |_| json!({"task_type": queue, "lease_seconds": 1})).await;
    let held = tasks(&claim(&server, &queue, json!({"limit": 5})).await).clone();
    for task in &held {
        pass_until_status(&server, task, "pending").await;
    }
    let outcomes: Vec<_> = held.iter().map(|task| outcome(task, "completed", json!({}))).collect();
    let next = json!({"task_types": [queue], "worker_id": "w", "limit": 5});
    let body = json!({"outcomes": outcomes, "claim": next});
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    assert!(results(&answer).iter().all(|result| result["receipt"]["status"] == "completed"), "{answer:#}");
    assert_eq!(answer["tasks"], json!([]));
}
