//! `POST /tasks/batch`: every item has its own answer, in order.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, as_shown_later, assert_problem, id_of, unique_type};

async fn batch(server: &TestServer, tasks: &[Value]) -> Vec<Value> {
    let answer = server.post("/tasks/batch").json(&json!({"tasks": tasks})).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.ok()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), tasks.len());
    for result in &results {
        let members = result.as_object().unwrap();
        assert_eq!(members.len(), 1, "a task or a problem: {result:#}");
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_item_does_not_stop_the_others() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let good = |n: usize| json!({"task_type": task_type, "name": format!("task {n}")});
    let bad = [
        (json!({"task_type": "bad type"}), 422, "task_type"),
        (json!({"task_type": task_type, "priority": 101}), 422, "priority"),
        (json!({"task_type": task_type, "nonsense": 1}), 422, "nonsense"),
        (json!({"task_type": task_type, "status": "pending"}), 422, "status"),
        (json!({}), 422, "task_type"),
        (json!(null), 422, ""),
        (json!(1), 422, ""),
        (json!("text"), 422, ""),
        (json!([]), 422, ""),
        (json!({"task_type": task_type, "request": "x".repeat(1 << 20)}), 413, ""),
        (json!({"task_type": task_type, "metadata": {"a": "x".repeat(16_384)}}), 422, "metadata"),
        (json!({"task_type": task_type, "retry": {"jitter": 2}}), 422, "retry"),
    ];
    let tasks: Vec<_> = bad.iter().enumerate().flat_map(|(n, (item, ..))| [good(n), item.clone()]).collect();
    let results = batch(&server, &tasks).await;
    for (n, (_, status, field)) in bad.iter().enumerate() {
        let task = &results[2 * n]["task"];
        assert_eq!(task["name"], format!("task {n}"));
        assert_eq!(server.task(id_of(task)).await, as_shown_later(task.clone()));
        let problem = &results[2 * n + 1]["problem"];
        let code = if *status == 413 { "payload_too_large" } else { "validation_failed" };
        assert_problem(problem, *status, code);
        if *status == 422 {
            let loc = problem["errors"][0]["loc"].as_array().unwrap();
            assert_eq!(loc[..3], [json!("body"), json!("tasks"), json!(2 * n + 1)], "{problem:#}");
            assert_eq!(loc.get(3).and_then(Value::as_str).unwrap_or_default(), *field, "{problem:#}");
        }
    }
    let all = server.get("/tasks?status=any&limit=100").send().await.ok();
    assert_eq!(all["tasks"].as_array().unwrap().len(), bad.len(), "a refused item is not stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_no_text_is_its_items_problem() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let good = format!(r#"{{"task_type":"{task_type}"}}"#);
    let bad = [
        r#"{"task_type":"t","name":"\ud800"}"#,
        r#"{"task_type":"t","request":["\udfff"]}"#,
        r#"{"task_type":"\ud800"}"#,
        r#"{"task_type":"t","priority":1e400}"#,
        r#"{"task_type":"t","metadata":{"a":1e400}}"#,
        r#"{"\ud800":1}"#,
        r#""\ud800""#,
        "1e400",
        r#"["t"]"#,
    ];
    let items: Vec<_> = bad.iter().flat_map(|item| [*item, good.as_str()]).collect();
    let answer =
        server.post("/tasks/batch").json_text(format!(r#"{{"tasks":[{}]}}"#, items.join(","))).send().await;
    let results = answer.ok();
    for n in 0..bad.len() {
        assert_problem(&results["results"][2 * n]["problem"], 422, "validation_failed");
        assert_eq!(results["results"][2 * n + 1]["task"]["task_type"], task_type.as_str());
    }
    let malformed = server.post("/tasks/batch").json_text(format!(r#"{{"tasks":[{good},{{]}}"#)).send().await;
    malformed.problem(400, "malformed_json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_created_as_if_they_came_alone() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let results = batch(
        &server,
        &[
            json!({"task_type": task_type, "priority": "low", "tags": ["a"]}),
            json!({"task_type": task_type, "delay_seconds": 3600}),
            json!({"task_type": task_type, "priority": 100, "request": {"a": 1}}),
            json!({"task_type": task_type, "user_id": "alice", "due_date": "2100-01-01T01:00:00+01:00"}),
        ],
    )
    .await;
    let task = |n: usize| &results[n]["task"];
    assert_eq!((&task(0)["priority"], &task(0)["tags"]), (&json!(25), &json!({"a": ""})));
    assert_eq!((&task(1)["status"], &task(1)["reason"]), (&json!("scheduled"), &json!("delayed")));
    assert_eq!((&task(2)["version"], &task(2)["request"]), (&json!(1), &json!({"a": 1})));
    assert_eq!(
        (&task(3)["user_id"], &task(3)["due_date"]),
        (&json!("alice"), &json!("2100-01-01T00:00:00.000Z"))
    );
    let claim = json!({"task_types": [task_type], "worker_id": "w", "limit": 10});
    let claimed = server.post("/tasks/claim").json(&claim).send().await.ok();
    let ids: Vec<_> = claimed["tasks"].as_array().unwrap().iter().map(id_of).collect();
    assert_eq!(ids, [id_of(task(2)), id_of(task(3)), id_of(task(0))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_create_what_is_asked_of_each_item() {
    let server = TestServer::start().await;
    let tasks = json!({"tasks": [
        {"task_type": "mine"}, {"task_type": "mine", "user_id": "bob"}, {"task_type": "mine", "user_id": "alice"},
    ]});
    let answer = server.post("/tasks/batch").user("alice").json(&tasks).send().await.ok();
    assert_eq!(answer["results"][0]["task"]["user_id"], "alice");
    assert_problem(&answer["results"][1]["problem"], 403, "forbidden");
    assert_eq!(answer["results"][2]["task"]["user_id"], "alice");

    let key = server.issue_key(&["producer"], json!({"task_types": ["mine"]})).await;
    let tasks = json!({"tasks": [{"task_type": "mine"}, {"task_type": "theirs"}, {"task_type": "mine"}]});
    let answer = server.post("/tasks/batch").key(&key).json(&tasks).send().await.ok();
    assert!(answer["results"][0]["task"].is_object() && answer["results"][2]["task"].is_object());
    assert_problem(&answer["results"][1]["problem"], 403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_items_and_no_more() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let tasks = |count: usize| json!({"tasks": vec![json!({"task_type": task_type}); count]});
    let problem =
        server.post("/tasks/batch").json(&tasks(1001)).send().await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["loc"], json!(["body", "tasks"]));
    let empty = server.get("/tasks?status=any").send().await.ok();
    assert_eq!(empty["tasks"], json!([]), "a refused batch stores nothing");
    let answer = server.post("/tasks/batch").json(&tasks(1000)).send().await.ok();
    let results = answer["results"].as_array().unwrap();
    let mut ids: Vec<_> = results.iter().map(|result| id_of(&result["task"])).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
    let claim = json!({"task_types": [task_type], "worker_id": "w", "limit": 1000});
    let claimed = server.post("/tasks/claim").json(&claim).send().await.ok();
    assert_eq!(claimed["tasks"].as_array().unwrap().len(), 1000);
    assert_eq!(server.post("/tasks/batch").json(&tasks(0)).send().await.ok(), json!({"results": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_mebibytes_and_no_more() {
    let server = TestServer::start().await;
    let most = 16 << 20;
    let padded = |tasks: &str, bytes: usize| {
        let (head, tail) = (r#"{"tasks":["#, format!("{tasks}]}}"));
        format!("{head}{}{tail}", " ".repeat(bytes - head.len() - tail.len()))
    };
    let small = r#"{"task_type":"small"}"#;
    let exact = server.post("/tasks/batch").json_text(padded(small, most)).send().await.ok();
    assert_eq!(exact["results"].as_array().unwrap().len(), 1);
    let beyond = server.post("/tasks/batch").json_text(padded(small, most + 1)).send().await;
    beyond.problem(413, "payload_too_large");

    let large = format!(r#"{{"task_type":"large","request":"{}"}}"#, "x".repeat((1 << 20) - 2));
    let full = vec![large.as_str(); 15].join(",");
    let answer = server.post("/tasks/batch").json_text(padded(&full, most)).send().await.ok();
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["task"].is_object()));
    let listed = server.get("/tasks?task_type=large&limit=100&include=payload").send().await.ok();
    let tasks = listed["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 15);
    assert!(
        tasks.iter().all(|task| task["request"].as_str().is_some_and(|text| text.len() == (1 << 20) - 2))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batch_itself_has_its_form() {
    let server = TestServer::start().await;
    for wrong in [
        json!({"tasks": {}}),
        json!({"tasks": null}),
        json!({"tasks": "x"}),
        json!({"tasks": 1}),
        json!({}),
        json!({"tasks": [], "nonsense": 1}),
        json!([]),
        json!([{"task_type": "t"}]),
        json!({"task_type": "t"}),
    ] {
        server.post("/tasks/batch").json(&wrong).send().await.problem(422, "validation_failed");
    }
    let all_bad = server.post("/tasks/batch").json(&json!({"tasks": [1, 2]})).send().await.ok();
    assert_eq!(all_bad["results"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_batches_keep_to_the_same_rules() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let claimed = server.claim(task["task_type"].as_str().unwrap()).await;
    let held = json!({"id": task["id"], "lease_token": claimed["lease"]["token"]});
    let outcome = |mut item: Value, more: &Value| {
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let completed = json!({"outcome": "completed"});
    let wrong = json!({"nonsense": 1});
    for (path, list, good, bad) in [
        ("/tasks/heartbeat", "heartbeats", held.clone(), outcome(held.clone(), &wrong)),
        (
            "/tasks/outcomes",
            "outcomes",
            outcome(held.clone(), &completed),
            outcome(outcome(held.clone(), &completed), &wrong),
        ),
    ] {
        let send = async |items: Value| server.post(path).json(&json!({list: items})).send().await;
        let items = [json!(null), json!(1), json!([]), json!({}), bad.clone(), good.clone(), bad];
        let answer = send(json!(items)).await.ok();
        for (n, result) in answer["results"].as_array().unwrap().iter().enumerate() {
            if n == 5 {
                assert!(result.get("problem").is_none(), "{path}: {result:#}");
            } else {
                assert_problem(&result["problem"], 422, "validation_failed");
                let loc = &result["problem"]["errors"][0]["loc"];
                assert_eq!((&loc[1], &loc[2]), (&json!(list), &json!(n)), "{path}: {result:#}");
            }
        }
        send(json!(vec![good.clone(); 1001])).await.problem(422, "validation_failed");
        send(json!({})).await.problem(422, "validation_failed");
    }
    let made_up = json!({"heartbeats": [{"id": "no-uuid", "lease_token": "any text"}]});
    let answer = server.post("/tasks/heartbeat").json(&made_up).send().await.ok();
    assert_problem(&answer["results"][0]["problem"], 404, "task_not_found");
    let made_up = json!({"outcomes": [{"id": "", "lease_token": "", "outcome": "cancelled"}]});
    let answer = server.post("/tasks/outcomes").json(&made_up).send().await.ok();
    assert_problem(&answer["results"][0]["problem"], 404, "task_not_found");
}
