//! `max_pending`, and the figures of task types: how many tasks wait, and how old the oldest is.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, eventually, unique_type};

use crate::profiler;
use crate::verbs::{claim, create_many, id, post, settle, tasks, until};

async fn limit(server: &TestServer, queue: &str, most: u32) {
    server.put(&format!("/task-types/{queue}")).json(&json!({"max_pending": most})).send().await.ok();
}

async fn create(server: &TestServer, queue: &str) -> HttpAnswer {
    server.post("/tasks").json(&json!({"task_type": queue})).send().await
}

#[track_caller]
fn refused(answer: &HttpAnswer, limit: u32) {
    let problem = answer.problem(429, "limit_exceeded");
    assert_eq!(
        [&problem["limit_type"], &problem["limit"], &problem["current"]],
        [&json!("max_pending"), &json!(limit), &json!(limit)]
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_beyond_it_are_refused_and_nothing_else_is() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let before = create_many(&server, 2, |_| json!({"task_type": queue})).await;
    limit(&server, &queue, 5).await;
    // What was there before the limit counts.
    until("the tasks are counted", async || {
        let shown = server.get(&format!("/task-types/{queue}")).send().await.ok();
        (shown["pending"] == 2).then_some(())
    })
    .await;
    let scheduled = server.create(json!({"task_type": queue, "delay_seconds": 3600})).await;
    create(&server, &queue).await.ok();
    let last = create(&server, &queue).await.ok();
    refused(&create(&server, &queue).await, 5);
    let delayed = json!({"task_type": queue, "delay_seconds": 60});
    refused(&server.post("/tasks").json(&delayed).send().await, 5);
    let batch = json!({"tasks": [{"task_type": queue}, {"task_type": unique_type()}]});
    let results = server.post("/tasks/batch").json(&batch).send().await.ok();
    assert_eq!(results["results"][0]["problem"]["limit_type"], "max_pending");
    assert!(results["results"][1]["task"].is_object());

    // Room that is made here is there at once.
    let held = claim(&server, &queue, json!({})).await;
    create(&server, &queue).await.ok();
    refused(&create(&server, &queue).await, 5);
    post(&server, &scheduled, "cancel", json!({})).await.ok();
    create(&server, &queue).await.ok();
    server.delete(&format!("/tasks/{}", id(&last))).send().await.success();
    create(&server, &queue).await.ok();
    // Only creates are refused: what comes back, and what is executed again, goes beyond.
    settle(&server, &tasks(&held)[0], "release", json!({})).await.ok();
    post(&server, &scheduled, "execute", json!({})).await.ok();
    server.put(&format!("/tasks/{}", id(&before[1]))).json(&json!({"priority": 9})).send().await.ok();
    create(&server, &queue).await.problem(429, "limit_exceeded");
    // It holds as long as the counts of the feed take the place of what this server counts itself.
    until("the tasks are counted", async || {
        let shown = server.get(&format!("/task-types/{queue}")).send().await.ok();
        (shown["pending"] == 7).then_some(())
    })
    .await;
    create(&server, &queue).await.problem(429, "limit_exceeded");
    server.delete(&format!("/task-types/{queue}")).send().await.success();
    create(&server, &queue).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_do_not_go_beyond_it_and_a_batch_is_filled() {
    let server = TestServer::start().await;
    let queue = unique_type();
    limit(&server, &queue, 20).await;
    let answers = join_all((0..60).map(|_| create(&server, &queue))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 20);
    limit(&server, &queue, 30).await;
    let batch: Vec<_> = (0..50).map(|_| json!({"task_type": queue})).collect();
    let answer = server.post("/tasks/batch").json(&json!({"tasks": batch})).send().await.ok();
    let is_created: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|result| result["task"].is_object()).collect();
    assert_eq!(is_created, [vec![true; 10], vec![false; 40]].concat(), "the first ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_answered_though_no_more_may_wait() {
    let server = TestServer::start().await;
    let queue = unique_type();
    limit(&server, &queue, 1).await;
    let body = json!({"task_type": queue});
    let call = |key: &'static str| server.post("/tasks").header("Idempotency-Key", key).json(&body).send();
    let first = call("one").await.ok();
    refused(&call("two").await, 1);
    let again = call("one").await;
    assert_eq!((again.header("idempotent-replayed"), again.ok()), (Some("true"), first.clone()));
    // A refused key stays free.
    post(&server, &first, "cancel", json!({})).await.ok();
    assert_eq!(call("two").await.header("idempotent-replayed"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_over_all_servers_within_2_s() {
    let one = TestServer::start().await;
    let other = one.sibling().await;
    let queue = unique_type();
    limit(&one, &queue, 10).await;
    create_many(&one, 10, |_| json!({"task_type": queue})).await;
    let mut overshoot = 0;
    let begun = std::time::Instant::now();
    eventually("the other server refuses too", async || {
        let answer = create(&other, &queue).await;
        overshoot += u32::from(answer.status == 201);
        answer.status == 429
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}, {overshoot} beyond", begun.elapsed());
    // Room made there is there for this one soon.
    claim(&other, &queue, json!({"limit": 1000})).await;
    eventually("there is room", async || create(&one, &queue).await.status == 201).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_are_right_within_2_s_and_cost_no_scan() {
    let server = TestServer::start().await;
    let (queue, other) = (unique_type(), unique_type());
    let tasks = create_many(&server, 9, |n| json!({"task_type": queue, "priority": n * 10})).await;
    let held = claim(&server, &queue, json!({"limit": 3})).await;
    let held = held["tasks"].as_array().unwrap();
    settle(&server, &held[0], "complete", json!({})).await.ok();
    settle(&server, &held[1], "fail", json!({"retry": "never"})).await.ok();
    post(&server, &tasks[0], "cancel", json!({})).await.ok();
    server.create(json!({"task_type": queue, "delay_seconds": 900})).await;
    server.create(json!({"task_type": other})).await;
    let shown = until("all is counted", async || {
        // Until it is counted it is no type yet.
        let answer = server.get(&format!("/task-types/{queue}")).send().await;
        (answer.status == 200).then(|| answer.ok()).filter(|shown| shown["scheduled"] == 1)
    })
    .await;
    let figures = |names: [&str; 9]| names.map(|name| shown[name].clone());
    assert_eq!(
        figures([
            "pending",
            "scheduled",
            "processing",
            "completed",
            "failed",
            "cancelled",
            "created_last_hour",
            "completed_last_hour",
            "failed_last_hour",
        ]),
        [5, 1, 1, 1, 1, 1, 10, 1, 1].map(Value::from)
    );
    assert_eq!(
        (&shown["settings"], &shown["version"], &shown["paused"]),
        (&json!({}), &json!(0), &Value::Null)
    );
    assert!(shown["oldest_pending_seconds"].as_u64().is_some_and(|age| age < 60), "{shown}");
    server.let_pass(Duration::from_secs(30)).await;
    let later = server.get(&format!("/task-types/{queue}")).send().await.ok();
    assert!(later["oldest_pending_seconds"].as_u64().is_some_and(|age| (29..90).contains(&age)), "{later}");
    // The oldest ready task is looked for by one look at each priority, however many tasks there are.
    let many = unique_type();
    create_many(&server, 600, |n| json!({"task_type": many, "priority": n % 3})).await;
    until("they are counted", async || {
        let answer = server.get(&format!("/task-types/{many}")).send().await;
        (answer.status == 200 && answer.ok()["pending"] == 600).then_some(())
    })
    .await;
    profiler::start(&server).await;
    server.get(&format!("/task-types/{many}")).send().await.ok();
    let seen = profiler::stop(&server).await;
    let looks: Vec<_> = seen.iter().filter(|entry| entry.to_string().contains("$first")).collect();
    assert_eq!(looks.len(), 1, "{seen:?}");
    let examined = |of: &str| looks[0].get_i32(of).unwrap_or_default();
    assert!(examined("keysExamined") < 20 && examined("docsExamined") < 20, "{}", looks[0]);
    claim(&server, &many, json!({"limit": 1000})).await;

    let page = server.get("/task-types").send().await.ok();
    let names: Vec<_> =
        page["task_types"].as_array().unwrap().iter().map(|it| it["task_type"].clone()).collect();
    assert_eq!(names, [json!(queue), json!(other), json!(many)]);
    let limited = server.issue_key(&["viewer"], json!({"task_types": [other]})).await;
    let page = server.get("/task-types").key(&limited).send().await.ok();
    assert_eq!(page["task_types"].as_array().unwrap().len(), 1);
    assert_eq!(page["task_types"][0]["pending"], 1);
}
