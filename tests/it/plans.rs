//! How the database carries out what the service asks of it: never by reading everything, never by sorting in memory.

use bson::{Bson, Document};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};
use uuid::Uuid;

use crate::profiler;
use crate::verbs::{
    claim, claim_one, create_many, id, pass_until_status, post, put_status, settle, tasks, with,
};

const USERS: [&str; 4] = ["ann", "bob", "eve", "kim"];

/// Tasks of all kinds, enough that reading them all would not be the cheapest way.
async fn populate(server: &TestServer, types: &[String]) {
    let nth = |n: usize| {
        let mut task = json!({
            "task_type": types[n % types.len()],
            "priority": n % 11,
            "tags": {"parity": (n % 2).to_string(), "colour": (n % 7).to_string()},
        });
        if n.is_multiple_of(3) {
            task["user_id"] = json!(USERS[n % USERS.len()]);
        }
        if n.is_multiple_of(5) {
            task["delay_seconds"] = json!(3600);
        }
        task
    };
    create_many(server, 500, nth).await;
    for (n, queue) in types.iter().enumerate() {
        let held = claim(server, queue, json!({"limit": 20, "claim_id": Uuid::now_v7()})).await;
        let held = tasks(&held);
        for (place, task) in held.iter().enumerate() {
            match place % 4 {
                0 => drop(
                    settle(server, task, "complete", json!({"result_id": format!("r-{n}-{place}")}))
                        .await
                        .ok(),
                ),
                1 => drop(settle(server, task, "fail", json!({"retry": "never"})).await.ok()),
                2 => drop(settle(server, task, "fail", json!({})).await.ok()),
                _ => {}
            }
        }
    }
}

/// Why the operation should not be carried out like that, if it should not.
fn objection(entry: &Document) -> Option<&'static str> {
    let text = entry.to_string();
    // A change stream reads the database's own log, in order. The driver's own look at indexes is no query.
    if text.contains("$changeStream") || text.contains("listIndexes") || text.contains("createIndexes") {
        return None;
    }
    if entry.get_str("planSummary").is_ok_and(|plan| plan.contains("COLLSCAN")) {
        return Some("reads the whole collection");
    }
    let count = |field| entry.get_i32(field).unwrap_or_default();
    let by_claim = text.contains("\"hint\": \"claims\"");
    if by_claim && count("docsExamined") > count("nreturned") {
        return Some("reads the tasks of other claims");
    }
    // A page that was found by id is sorted: it is at most 101 tasks.
    let is_by_id = text.contains("\"hint\": \"_id_\"") && count("docsExamined") <= 101;
    (entry.get("hasSortStage") == Some(&Bson::Boolean(true)) && !is_by_id).then_some("sorts in memory")
}

/// Fails the test if anything was carried out badly, or nothing was seen at all.
async fn assert_good_plans(server: &TestServer, at_least: usize) {
    let entries = profiler::stop(server).await;
    let planned = entries.iter().filter(|entry| entry.contains_key("planSummary")).count();
    assert!(planned >= at_least, "the profiler saw {planned} plans, {at_least} or more are expected");
    let objections: Vec<String> = entries
        .iter()
        .filter_map(|entry| {
            let why = objection(entry)?;
            let plan = entry.get_str("planSummary").unwrap_or_default();
            let command = entry.get_document("command").map(ToString::to_string).unwrap_or_default();
            Some(format!("{why}: {plan}\n  {command}"))
        })
        .collect();
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

async fn start() -> (TestServer, Vec<String>) {
    let server = TestServer::start().await;
    let types: Vec<String> = (0..6).map(|_| unique_type()).collect();
    populate(&server, &types).await;
    profiler::start(&server).await;
    (server, types)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_read_only_what_they_take() {
    let (server, types) = start().await;
    for filter in [
        json!({}),
        json!({"limit": 7}),
        json!({"tags": {"parity": "1"}}),
        json!({"limit": 5, "tags": {"parity": "0", "colour": "4"}}),
        json!({"claim_id": Uuid::now_v7(), "limit": 2}),
        json!({"wait_ms": 100, "tags": {"parity": "none"}}),
    ] {
        for named in [&types[..1], &types[1..4], &types[..]] {
            for user in [None, Some("ann")] {
                let body = with(json!({"task_types": named, "worker_id": "w1"}), filter.clone());
                let call = server.post("/tasks/claim").json(&body);
                let call = if let Some(user) = user { call.user(user) } else { call };
                call.send().await.ok();
            }
        }
    }
    // Their ids are looked up together.
    let at_once = (0..12).map(|_| claim(&server, &types[0], json!({"claim_id": Uuid::now_v7()})));
    futures_util::future::join_all(at_once).await;
    let empty = unique_type();
    claim(&server, &empty, json!({"wait_ms": 400})).await;
    assert_good_plans(&server, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_every_kind_follow_an_index() {
    let (server, types) = start().await;
    let hour_ago = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    let soon = (Utc::now() + TimeDelta::hours(1)).to_rfc3339();
    let (one, two) = (types[0].as_str(), types[1].as_str());
    let filters: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("task_type", one)],
        vec![("task_type", one), ("task_type", two)],
        vec![("user_id", "ann")],
        vec![("user_id", "ann"), ("task_type", one)],
        vec![("tag", "parity:1")],
        vec![("tag", "parity:1"), ("tag", "colour:3")],
        vec![("tag", "parity:1"), ("task_type", one)],
        vec![("tag", "parity:1"), ("task_type", one), ("task_type", two), ("user_id", "bob")],
        vec![("created_after", hour_ago.as_str())],
        vec![("created_before", soon.as_str())],
        vec![("created_after", hour_ago.as_str()), ("created_before", soon.as_str()), ("task_type", one)],
        vec![("completed_after", hour_ago.as_str()), ("completed_before", soon.as_str())],
        vec![("completed_after", hour_ago.as_str()), ("task_type", one), ("task_type", two)],
    ];
    let statuses: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("status", "any")],
        vec![("status", "completed")],
        vec![("status", "scheduled")],
        vec![("status", "completed"), ("status", "failed")],
        vec![("status", "pending"), ("status", "processing"), ("status", "scheduled")],
    ];
    let limited = server.issue_key(&["viewer"], json!({"task_types": [one, two]})).await;
    for status in &statuses {
        for filter in &filters {
            let list = || server.get("/tasks").query(status).query(filter).query(&[("limit", "3")]);
            let page = list().send().await.ok();
            if let Some(cursor) = page["next_cursor"].as_str() {
                list().query(&[("cursor", cursor)]).send().await.ok();
            }
        }
        let list = || server.get("/tasks").query(status).query(&[("limit", "3"), ("include", "payload")]);
        list().user("kim").send().await.ok();
        list().key(&limited).send().await.ok();
        list().key(&limited).user("kim").send().await.ok();
    }
    assert_good_plans(&server, statuses.len() * filters.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_tasks_and_background_work_follow_an_index() {
    let (server, types) = start().await;
    server.get("/tasks/by-result/r-0-0").send().await.ok();
    server.get("/tasks/by-result/no-such").send().await.problem(404, "task_not_found");
    for _ in 0..2 {
        let create =
            server.post("/tasks").header("idempotency-key", "once").json(&json!({"task_type": types[0]}));
        create.send().await.ok();
    }
    let create_mine = server.post("/tasks").user("ann").header("idempotency-key", "once");
    create_mine.json(&json!({"task_type": types[0]})).send().await.ok();

    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5}})).await.ok();
    settle(&server, &held, "fail", json!({})).await.ok();
    post(&server, &task, "execute", json!({})).await.ok();
    server.put(&format!("/tasks/{}", id(&task))).json(&json!({"priority": 3})).send().await.ok();
    put_status(&server, &task, json!({"status": "processing"})).await.ok();
    post(&server, &task, "cancel", json!({})).await.ok();
    server.get(&format!("/tasks/{}/status", id(&task))).send().await.ok();
    server.get(&format!("/tasks/{}/executions", id(&task))).send().await.ok();
    assert_eq!(server.delete(&format!("/tasks/{}", id(&task))).send().await.status, 204);

    let many = tasks(&claim(&server, &types[2], json!({"limit": 10})).await).clone();
    let outcomes: Vec<Value> = many
        .iter()
        .map(|task| json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": "completed"}))
        .collect();
    let next = json!({"task_types": types, "worker_id": "w1", "limit": 5});
    server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes, "claim": next})).send().await.ok();

    // The loops that run beside the requests: tasks that come due, leases and attempts that run out, waiting calls.
    let due = server.create(json!({"delay_seconds": 1})).await;
    let lost = server.create(json!({"lease_seconds": 1})).await;
    let slow = server.create(json!({"timeout_seconds": 1})).await;
    for task in [&lost, &slow] {
        claim_one(&server, task, json!({})).await;
    }
    let waiting = format!("/tasks/{}?wait_ms=700", id(&due));
    tokio::join!(
        pass_until_status(&server, &due, "pending"),
        pass_until_status(&server, &lost, "pending"),
        pass_until_status(&server, &slow, "scheduled"),
        async { drop(server.get(&waiting).send().await.ok()) },
    );
    for path in ["/health/ready", "/health/detailed", "/metrics"] {
        assert_eq!(server.get(path).send().await.status, 200, "{path}");
    }
    assert_good_plans(&server, 30).await;
}

/// What the one operation that goes by that index did: keys and documents it looked at.
#[track_caller]
fn cost_by(entries: &[Document], index: &str, verb: &str) -> (i64, i64) {
    let number = |entry: &Document, field: &str| match entry.get(field) {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        other => panic!("{field} is {other:?}"),
    };
    let by_index: Vec<_> = entries
        .iter()
        .filter(|entry| entry.get_document("command").is_ok_and(|command| command.contains_key(verb)))
        .filter(|entry| entry.get_str("planSummary").is_ok_and(|plan| plan.starts_with(index)))
        .collect();
    assert!(!by_index.is_empty(), "nothing went by {index}: {entries:#?}");
    let most = |field: &str| by_index.iter().map(|entry| number(entry, field)).max().unwrap_or(0);
    (most("keysExamined"), most("docsExamined"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_leads_to_its_tasks_past_all_others() {
    let server = TestServer::start().await;
    let queue = unique_type();
    for _ in 0..2 {
        create_many(&server, 1000, |_| json!({"task_type": queue, "priority": 90})).await;
    }
    let tagged = create_many(
        &server,
        3,
        |n| json!({"task_type": queue, "priority": 10, "tags": {"rare": "yes", "n": n.to_string()}}),
    )
    .await;
    for (status, index) in [
        ("pending", "IXSCAN { tenant: 1, tags: 1, priority: -1"),
        ("any", "IXSCAN { tenant: 1, tags: 1, created_at: -1"),
    ] {
        profiler::start(&server).await;
        let query = [("status", status), ("task_type", &queue), ("tag", "rare:yes")];
        let page = server.get("/tasks").query(&query).send().await.ok();
        assert_eq!(tasks(&page).len(), tagged.len());
        let (keys, documents) = cost_by(&profiler::stop(&server).await, index, "aggregate");
        assert!(keys <= 10 && documents <= 10, "a list of {status}: {keys} keys, {documents} documents");
    }
    profiler::start(&server).await;
    let claimed = claim(&server, &queue, json!({"limit": 2, "tags": {"rare": "yes"}})).await;
    assert_eq!(tasks(&claimed).len(), 2);
    let index = "IXSCAN { tenant: 1, tags: 1, priority: -1";
    let (keys, documents) = cost_by(&profiler::stop(&server).await, index, "find");
    assert!(keys <= 10 && documents <= 10, "a claim: {keys} keys, {documents} documents");
}
