//! `GET /tasks`: by id, by the time of the end, and pages that are bounded in bytes.

use bson::doc;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, unique_type};
use uuid::Uuid;

use crate::fail_point::FailPoint;
use crate::verbs::{ids, tasks};

const FINAL: [&str; 3] = ["completed", "failed", "cancelled"];

async fn list(server: &TestServer, query: &[(&str, &str)]) -> Value {
    server.get("/tasks").query(query).send().await.ok()
}

/// The ids of every page, and how many pages there were.
async fn walk(server: &TestServer, query: &[(&str, &str)]) -> (Vec<String>, usize) {
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    for pages in 1..100 {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = list(server, &query).await;
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            None => return (found, pages),
            Some(next) => cursor = Some(next.to_owned()),
        }
    }
    panic!("the pages never end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_id() {
    let server = TestServer::start().await;
    let mut all = Vec::new();
    for status in ["pending", "scheduled", "processing", "completed", "failed", "cancelled"] {
        all.push(id_of(&server.create_in(status, json!({"user_id": "ann"})).await).to_owned());
    }
    let foreign = server.post("/tasks").tenant("other").json(&json!({"task_type": "a"})).send().await.ok();
    let gone = id_of(&server.create(json!({})).await).to_owned();
    assert_eq!(server.delete(&format!("/tasks/{gone}")).send().await.status, 204);
    let (unknown, upper) = (Uuid::now_v7().to_string(), all[0].to_uppercase());
    let named = [all[3].as_str(), &upper, &all[4], &all[3], id_of(&foreign), &gone, &unknown, "none", ""];
    let named: Vec<_> = named.into_iter().map(|id| ("id", id)).collect();
    let found = list(&server, &named).await;
    assert_eq!(ids(&found), [&all[4], &all[3], &all[0]], "any status, newest first");
    assert!(found.get("status").is_none() && found["next_cursor"].is_null(), "{found}");
    let with = |more: &[(&'static str, &'static str)]| [named.clone(), more.to_vec()].concat();
    assert_eq!(ids(&list(&server, &with(&[("status", "failed")])).await), [&all[4]]);
    assert_eq!(ids(&list(&server, &with(&[("status", "pending")])).await), [&all[0]]);
    assert!(ids(&list(&server, &with(&[("user_id", "bob")])).await).is_empty());
    assert_eq!(
        walk(&server, &with(&[("limit", "2")])).await,
        (vec![all[4].clone(), all[3].clone(), all[0].clone()], 2)
    );
    assert_eq!(walk(&server, &with(&[("limit", "1"), ("include", "payload")])).await.0.len(), 3);
    for id in ["none", "", "$ne"] {
        let found = list(&server, &[("id", id)]).await;
        assert_eq!((tasks(&found).len(), &found["next_cursor"]), (0, &Value::Null), "{id:?}");
    }
    let times = |count: usize| vec![("id", unknown.as_str()); count];
    list(&server, &times(100)).await;
    let refused = server.get("/tasks").query(&times(101)).send().await.problem(400, "invalid_parameter");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("100")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_time_of_the_end() {
    let server = TestServer::start().await;
    let mut ended = Vec::new();
    for status in ["pending", "scheduled", "processing", "completed", "failed", "cancelled"] {
        let task = server.create_in(status, json!({})).await;
        if FINAL.contains(&status) {
            ended.push(server.task(id_of(&task)).await);
        }
    }
    let id = |nth: usize| id_of(&ended[nth]);
    let at = |nth: usize| ended[nth]["completed_at"].as_str().expect("a time");
    let found = list(&server, &[("completed_after", "2001-01-01T00:00:00+02:00")]).await;
    assert_eq!(ids(&found), [id(2), id(1), id(0)]);
    assert!(found.get("status").is_none(), "{found}");
    // Exclusive, like the times of creation.
    let after = list(&server, &[("completed_after", at(1))]).await;
    assert!(!ids(&after).contains(&id(1)), "{after}");
    let before = list(&server, &[("completed_before", at(1))]).await;
    assert!(!ids(&before).contains(&id(1)), "{before}");
    let failed = [("completed_after", "2001-01-01T00:00:00Z"), ("status", "failed"), ("status", "pending")];
    assert_eq!(ids(&list(&server, &failed).await), [id(1)]);
    for status in ["pending", "processing"] {
        let none = list(&server, &[("completed_after", "2001-01-01T00:00:00Z"), ("status", status)]).await;
        assert_eq!((tasks(&none).len(), &none["next_cursor"]), (0, &Value::Null), "{status} is not final");
    }
    // Executed again, a task has not ended.
    crate::verbs::post(&server, &ended[0], "execute", json!({})).await.ok();
    let left = list(&server, &[("completed_before", "2100-01-01T00:00:00Z")]).await;
    assert_eq!(ids(&left), [id(2), id(1)]);
    let page = list(&server, &[("completed_before", "2100-01-01T00:00:00Z"), ("limit", "1")]).await;
    let cursor = ("cursor", page["next_cursor"].as_str().expect("there is more"));
    for other in [("completed_before", "2100-01-02T00:00:00Z"), ("completed_after", "2001-01-01T00:00:00Z")] {
        server.get("/tasks").query(&[other, cursor]).send().await.problem(400, "invalid_parameter");
    }
    for wrong in ["yesterday", "2030-01-01", ""] {
        for name in ["completed_after", "completed_before"] {
            server.get("/tasks").query(&[(name, wrong)]).send().await.problem(400, "invalid_parameter");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_that_only_pending_was_listed() {
    let server = TestServer::start().await;
    server.create_in("completed", json!({})).await;
    let silent = list(&server, &[]).await;
    assert_eq!((&silent["tasks"], &silent["status"]), (&json!([]), &json!(["pending"])));
    assert_eq!(list(&server, &[("limit", "3"), ("user_id", "ann")]).await["status"], json!(["pending"]));
    for status in ["pending", "any", "failed"] {
        let named = list(&server, &[("status", status)]).await;
        assert!(named.get("status").is_none(), "{named}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_bounded_in_bytes_whatever_fills_it() {
    let server = TestServer::start().await;
    let (queue, other) = (unique_type(), unique_type());
    let mut all = Vec::new();
    let text = "x".repeat(1_000_000);
    for n in 0..20 {
        // A list shows templates without `include`.
        let template = json!({"service_type": "s", "parameters": {"text": text}});
        let task_type = if n % 2 == 0 { &queue } else { &other };
        let task =
            json!({"task_type": task_type, "template": template, "user_id": "ann", "tags": {"a": "b"}});
        all.push(id_of(&server.create(task).await).to_owned());
    }
    let by_id: Vec<_> = all.iter().map(|id| ("id", id.as_str())).collect();
    let types = [("task_type", queue.as_str()), ("task_type", other.as_str())];
    for query in [
        vec![],
        vec![("status", "any")],
        vec![("status", "pending"), ("status", "failed")],
        vec![("user_id", "ann"), ("created_after", "2001-01-01T00:00:00Z")],
        vec![("tag", "a:b"), ("status", "pending"), ("status", "failed")],
        types.to_vec(),
        [types.to_vec(), vec![("status", "any")]].concat(),
        by_id,
    ] {
        let query = [query, vec![("limit", "100")]].concat();
        let page = server.get("/tasks").query(&query).send().await;
        let first = page.ok();
        assert!(page.text().len() <= 17 << 20, "{query:?}: {} bytes", page.text().len());
        assert!(
            tasks(&first).len() >= 15 && first["next_cursor"].is_string(),
            "{query:?}: {}",
            tasks(&first).len()
        );
        let (mut found, pages) = walk(&server, &query).await;
        found.sort();
        let mut expected = all.clone();
        expected.sort();
        assert_eq!((found, pages), (expected, 2), "{query:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_tasks_take_no_places() {
    let server = TestServer::start().await;
    let mut all = Vec::new();
    for _ in 0..12 {
        all.push(id_of(&server.create(json!({"task_type": "gone", "user_id": "ann"})).await).to_owned());
    }
    for id in &all[4..] {
        assert_eq!(server.delete(&format!("/tasks/{id}")).send().await.status, 204);
    }
    let left: Vec<_> = all[..4].iter().rev().cloned().collect();
    for filter in [vec![], vec![("task_type", "gone")], vec![("user_id", "ann")]] {
        let query = [vec![("status", "any"), ("limit", "2")], filter].concat();
        assert_eq!(walk(&server, &query).await, (left.clone(), 2), "{query:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_takes_too_long_is_followed_by_one_at_few_tasks() {
    let server = TestServer::start().await;
    let kept = server.create_in("processing", json!({})).await;
    for _ in 0..3 {
        let gone = server.create(json!({})).await;
        assert_eq!(server.delete(&format!("/tasks/{}", id_of(&gone))).send().await.status, 204);
    }
    // What a look meets that has had its time.
    let late = doc! {"errorCode": 50};
    for query in [[("status", "any"), ("limit", "2")], [("status", "processing"), ("limit", "2")]] {
        let broken = FailPoint::set(&server, "aggregate", doc! {"times": 1}, late.clone()).await;
        let found = walk(&server, &query).await.0;
        assert_eq!(broken.end().await, 1, "{query:?}");
        assert_eq!(found, [id_of(&kept)], "{query:?}");
    }
}
