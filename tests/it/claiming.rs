//! Who gets what by claiming: order, limits, filters, and what a key or a user may claim.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};

use crate::verbs::{
    claim, claim_one, create_many, id, ids, pass_until_status, post, put_status, settle, shown, tasks, time,
    token,
};

/// Claims from several queues.
async fn claim_any(server: &TestServer, types: &[&str], limit: usize) -> Value {
    let body = json!({"task_types": types, "worker_id": "w1", "limit": limit});
    server.post("/tasks/claim").json(&body).send().await.ok()
}

/// Where a task that has never been delayed stands in its queue.
fn place(task: &Value) -> (i64, DateTime<Utc>) {
    (-task["priority"].as_i64().expect("a priority"), time(&task["created_at"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn higher_priority_goes_first_and_then_age() {
    let server = TestServer::start().await;
    let queue = unique_type();
    for priority in [10, 90, 50, 50, 0, 100, 50, 90] {
        server.create(json!({"task_type": queue, "priority": priority})).await;
    }
    let first = claim(&server, &queue, json!({})).await;
    assert_eq!(tasks(&first).len(), 1, "a claim that names no limit is for one task");
    assert_eq!(tasks(&first)[0]["priority"], 100);

    let rest = claim(&server, &queue, json!({"limit": 100})).await;
    let places: Vec<_> = tasks(&rest).iter().map(place).collect();
    assert_eq!(places.iter().map(|place| -place.0).collect::<Vec<_>>(), [90, 90, 50, 50, 50, 10, 0]);
    assert!(places.is_sorted(), "of one priority the older goes first: {places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_over_all_named_types() {
    let server = TestServer::start().await;
    let types = [unique_type(), unique_type(), unique_type()];
    let [a, b, c] = types.each_ref().map(String::as_str);
    for (queue, priority) in [(a, 20), (b, 60), (c, 40), (a, 60), (b, 20), (c, 99), (a, 40), (b, 99), (a, 60)]
    {
        server.create(json!({"task_type": queue, "priority": priority})).await;
    }
    let mut places = Vec::new();
    for limit in [1, 1, 3] {
        let claimed = claim_any(&server, &[a, b, c], limit).await;
        assert_eq!(tasks(&claimed).len(), limit);
        places.extend(tasks(&claimed).iter().map(place));
    }
    assert_eq!(places.iter().map(|place| -place.0).collect::<Vec<_>>(), [99, 99, 60, 60, 60]);
    assert!(places.is_sorted(), "{places:?}");

    // A claim brings only what it names.
    let of_two = claim_any(&server, &[a, c], 100).await;
    let mut left: Vec<_> =
        tasks(&of_two).iter().map(|task| (&task["task_type"], &task["priority"])).collect();
    left.sort_by_key(|(_, priority)| priority.as_i64());
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(left[0], (&json!(a), &json!(20)));
    assert!(tasks(&of_two).iter().all(|task| task["task_type"] != b));
    assert!(tasks(&of_two).iter().map(place).is_sorted(), "{of_two}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn age_is_run_at_unless_that_was_past_already() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let long_ago = Utc::now() - TimeDelta::hours(1);
    let delayed = server.create(json!({"task_type": queue, "delay_seconds": 1})).await;
    let plain = server.create(json!({"task_type": queue})).await;
    let past = server.create(json!({"task_type": queue, "run_at": long_ago})).await;
    assert_eq!(past["status"], "pending", "a run_at in the past does not wait");
    assert_eq!(delayed["status"], "scheduled");

    pass_until_status(&server, &delayed, "pending").await;
    let claimed = claim(&server, &queue, json!({"limit": 10})).await;
    assert_eq!(ids(&claimed), [id(&plain), id(&past), id(&delayed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_filled_to_its_limit_when_that_much_is_ready() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 1000, |_| json!({"task_type": queue})).await;
    let mut seen = HashSet::new();
    for (limit, expected) in [(1, 1), (299, 299), (500, 500), (1000, 200), (1000, 0)] {
        let claimed = claim(&server, &queue, json!({"limit": limit})).await;
        assert_eq!(tasks(&claimed).len(), expected, "limit {limit}");
        seen.extend(ids(&claimed).into_iter().map(str::to_owned));
    }
    assert_eq!(seen.len(), 1000, "every task was given out once");

    let full = unique_type();
    create_many(&server, 1000, |_| json!({"task_type": full})).await;
    assert_eq!(tasks(&claim(&server, &full, json!({"limit": 1000})).await).len(), 1000);

    // The same over several types, none of which has enough alone.
    let types: Vec<String> = (0..5).map(|_| unique_type()).collect();
    create_many(&server, 50, |n| json!({"task_type": types[n % 5], "priority": n})).await;
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    for (limit, expected) in [(33, 33), (33, 17), (33, 0)] {
        assert_eq!(tasks(&claim_any(&server, &types, limit).await).len(), expected, "limit {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_with_tags_brings_only_tasks_that_have_them_all() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let tags = |n: usize| match n % 3 {
        0 => json!({"region": "eu", "size": "l"}),
        1 => json!({"region": "eu"}),
        _ => json!({"region": "us", "size": "l"}),
    };
    create_many(&server, 60, |n| json!({"task_type": queue, "tags": tags(n), "priority": n})).await;
    let both = claim(&server, &queue, json!({"limit": 15, "tags": {"region": "eu", "size": "l"}})).await;
    let priorities: Vec<_> = tasks(&both).iter().filter_map(|task| task["priority"].as_u64()).collect();
    let expected: Vec<_> = (0..60).rev().filter(|n| n % 3 == 0).take(15).collect();
    assert_eq!(priorities, expected, "filled to the limit, in order");

    let size = claim(&server, &queue, json!({"limit": 100, "tags": {"size": "l"}})).await;
    assert_eq!(tasks(&size).len(), 25, "5 of the first kind are left, and 20 of the third");
    let none = claim(&server, &queue, json!({"tags": {"region": "EU"}})).await;
    assert_eq!(tasks(&none).len(), 0);
    let rest = claim(&server, &queue, json!({"limit": 100})).await;
    assert_eq!(tasks(&rest).len(), 20, "a claim without tags takes any");

    // A list of tags means empty values.
    let listed = server.create(json!({"task_type": queue, "tags": ["urgent"]})).await;
    server.create(json!({"task_type": queue, "tags": {"urgent": "very"}})).await;
    let urgent = claim(&server, &queue, json!({"limit": 10, "tags": ["urgent"]})).await;
    assert_eq!(ids(&urgent), [id(&listed)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_claims_only_what_is_theirs() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let mine = server.create(json!({"task_type": queue, "user_id": "ann", "priority": 1})).await;
    let foreign = server.create(json!({"task_type": queue, "user_id": "bob", "priority": 99})).await;
    let unowned = server.create(json!({"task_type": queue, "priority": 99})).await;

    let body = json!({"task_types": [queue], "worker_id": "w1", "limit": 10});
    let claimed = server.post("/tasks/claim").user("ann").json(&body).send().await.ok();
    assert_eq!(ids(&claimed), [id(&mine)]);
    for other in [&foreign, &unowned] {
        let one = format!("/tasks/{}/claim", id(other));
        let answer = server.post(&one).user("ann").json(&json!({"worker_id": "w1"})).send().await;
        answer.problem(404, "task_not_found");
    }
    let all = claim(&server, &queue, json!({"limit": 10})).await;
    assert_eq!(ids(&all), [id(&foreign), id(&unowned)], "without a user, whoever it belongs to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_claims_only_the_types_it_names() {
    let server = TestServer::start().await;
    let (own, other) = (unique_type(), unique_type());
    let key = server.issue_key(&["worker"], json!({"task_types": [own]})).await;
    let allowed = server.create(json!({"task_type": own})).await;
    let denied = server.create(json!({"task_type": other})).await;

    let ask = async |types: &[&String]| {
        let body = json!({"task_types": types, "worker_id": "w1", "limit": 10});
        server.post("/tasks/claim").key(&key).json(&body).send().await
    };
    ask(&[&other]).await.problem(403, "forbidden");
    ask(&[&own, &other]).await.problem(403, "forbidden");
    assert_eq!(shown(&server, &allowed).await["status"], "pending", "a refused claim takes nothing");
    assert_eq!(ids(&ask(&[&own]).await.ok()), [id(&allowed)]);

    let one = format!("/tasks/{}/claim", id(&denied));
    let answer = server.post(&one).key(&key).json(&json!({"worker_id": "w1"})).send().await;
    answer.problem(404, "task_not_found");

    // In the claim that comes with outcomes it is the same.
    let body = json!({"outcomes": [], "claim": {"task_types": [other], "worker_id": "w1"}});
    server.post("/tasks/outcomes").key(&key).json(&body).send().await.problem(403, "forbidden");
    assert_eq!(shown(&server, &denied).await["status"], "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_counts_the_attempt_and_brings_everything_the_worker_needs() {
    let server = TestServer::start().await;
    let request = json!({"text": "hello", "deep": [[1]]});
    let template = json!({"service_type": "writer", "parameters": {"model": "m"}});
    let task = server.create(json!({"request": request, "template": template, "tags": {"a": "b"}})).await;
    let claimed = server.claim(task["task_type"].as_str().expect("a type")).await;

    assert_eq!((&claimed["id"], &claimed["status"]), (&task["id"], &json!("processing")));
    assert_eq!((&claimed["request"], &claimed["template"]), (&request, &template));
    assert_eq!((&claimed["attempt"], &claimed["losses"]), (&json!(1), &json!(0)));
    assert_eq!(claimed["version"].as_u64(), task["version"].as_u64().map(|version| version + 1));
    assert!(claimed["started_at"].is_string());

    settle(&server, &claimed, "release", json!({})).await.ok();
    let again = claim_one(&server, &task, json!({"worker_id": "w2"})).await;
    assert_ne!(token(&claimed), token(&again), "every claim has a token of its own");
    assert_eq!(again["lease"]["worker_id"], "w2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_answer_to_a_claim_carries_the_token() {
    let server = TestServer::start().await;
    let queue = unique_type();
    for _ in 0..2 {
        server.create(json!({"task_type": queue, "user_id": "ann"})).await;
    }
    let listed = claim(&server, &queue, json!({})).await;
    let by_list = &tasks(&listed)[0];
    let one = server.create(json!({"task_type": queue})).await;
    let by_id = &claim_one(&server, &one, json!({})).await;
    let body = json!({"outcomes": [], "claim": {"task_types": [queue], "worker_id": "w1"}});
    let settled = server.post("/tasks/outcomes").json(&body).send().await.ok();
    let by_outcomes = &tasks(&settled)[0];

    for task in [by_list, by_id, by_outcomes] {
        let secret = token(task);
        assert!(!secret.is_empty());
        let one = format!("/tasks/{}", id(task));
        for path in [
            one.clone(),
            format!("{one}?wait_ms=1"),
            format!("{one}/status"),
            format!("{one}/executions"),
            "/tasks?status=processing&limit=100".to_owned(),
            "/tasks?status=any&include=payload&limit=100".to_owned(),
        ] {
            let text = server.get(&path).send().await.text();
            assert!(text.contains("processing"), "{path} speaks of a task that is held: {text}");
            assert!(!text.contains(secret), "{path} gives the token away: {text}");
        }
        let lease = &shown(&server, task).await["lease"];
        assert_eq!(lease["worker_id"], task["lease"]["worker_id"]);
        assert!(lease["expires_at"].is_string() && lease.get("token").is_none(), "{lease}");

        let refused = post(&server, task, "claim", json!({"worker_id": "w2"})).await;
        assert!(!refused.text().contains(secret), "a refused claim gives the token away");
        let refused = put_status(&server, task, json!({"status": "completed"})).await;
        assert!(!refused.text().contains(secret), "a refused change gives the token away");
        let receipt = settle(&server, task, "complete", json!({})).await;
        assert!(!receipt.text().contains(secret), "a receipt gives the token away");
    }
}
