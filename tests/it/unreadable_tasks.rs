//! What an operator does about tasks that the server cannot read: list, look, remove.

use std::collections::BTreeSet;

use bson::{Bson, DateTime, Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use task_repo_tests::{HttpCall, TestServer, eventually};

use crate::fail_point::FailPoint;
use crate::profiler;
use crate::verbs::{claim_one, create_many, id, pass_until_status, token};

const LIST: &str = "/unreadable-tasks";

fn key(task: &Value) -> bson::Uuid {
    bson::Uuid::parse_str(id(task)).expect("a UUID")
}

fn stored(server: &TestServer) -> Collection<Document> {
    server.database().collection("tasks")
}

/// Sets fields of a stored task.
async fn set(server: &TestServer, task: &Value, fields: Document) {
    let set = stored(server).update_one(doc! {"_id": key(task)}, doc! {"$set": fields}).await;
    assert_eq!(set.expect("an answer").matched_count, 1);
}

fn at(task: &str) -> String {
    format!("{LIST}/{task}")
}

/// The ids of all pages, and the most that one page had.
async fn listed(server: &TestServer, limit: usize, call: impl Fn(HttpCall) -> HttpCall) -> BTreeSet<String> {
    let (mut all, mut cursor) = (BTreeSet::new(), None::<String>);
    loop {
        let mut get = call(server.get(LIST)).query(&[("limit", &limit.to_string())]);
        if let Some(cursor) = &cursor {
            get = get.query(&[("cursor", cursor)]);
        }
        let page = get.send().await.ok();
        let tasks = page["tasks"].as_array().expect("tasks");
        assert!(tasks.len() <= limit, "{page}");
        for task in tasks {
            assert!(all.insert(id(task).to_owned()), "{task} came twice");
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_them_are_found_shown_and_removed_and_then_all_is_well() {
    let server = TestServer::start().await;
    let long_ago = DateTime::from_millis(1_000_000);
    create_many(&server, 30, |_| json!({"task_type": "good"})).await;
    let made = create_many(&server, 7, |_| json!({"task_type": "bad", "delay_seconds": 3600})).await;
    let held = server.create(json!({"task_type": "bad"})).await;
    let held = claim_one(&server, &held, json!({})).await;
    set(&server, &made[0], doc! {"status": 5}).await;
    set(&server, &made[1], doc! {"attempts": [{"id": "odd"}]}).await;
    set(&server, &made[2], doc! {"attempt": "one", "run_at": long_ago}).await;
    set(&server, &made[3], doc! {"created_at": "yesterday"}).await;
    set(&server, &made[4], doc! {"request": 7}).await;
    set(&server, &made[5], doc! {"created_at": {"odd": [5]}}).await;
    set(&server, &made[6], doc! {"priority": Bson::Null, "stamp": "x"}).await;
    set(&server, &held, doc! {"losses": "many", "lease_until": long_ago}).await;
    let bad: BTreeSet<_> = made.iter().chain([&held]).map(|task| id(task).to_owned()).collect();
    for limit in [1, 3, 100] {
        assert_eq!(listed(&server, limit, |call| call).await, bad, "pages of {limit}");
    }

    let client = server.client();
    let page = client.list_unreadable_tasks(100, None).await.expect("a page");
    let lease = page.tasks.iter().find(|task| task.id == id(&held)).expect("it is listed");
    assert_eq!((&*lease.collection, &*lease.field), ("tasks", "losses"));
    let shown = client.get_unreadable_task(&lease.id).await.expect("it is shown");
    assert_eq!((&shown.field, shown.since), (&lease.field, lease.since));
    let document: Value = serde_json::from_str(shown.document.as_str()).expect("JSON");
    assert_eq!((&document["losses"], &document["task_type"]), (&json!("many"), &json!("bad")));
    assert_eq!(document["lease"]["worker_id"], "w1");
    let raw = stored(&server).find_one(doc! {"_id": key(&held)}).await.expect("an answer").expect("it");
    let raw = raw.get_document("lease").expect("a lease").get("token").expect("a token").to_string();
    let text = shown.document.as_str();
    assert!(!text.contains(token(&held)) && !text.contains(&raw), "no token is shown: {text}");

    eventually("health says what is the matter", async || {
        let health = server.get("/health/detailed").send().await.ok();
        let jobs = &health["background"];
        let unmoved = (&jobs["promoter"]["unmoved"], &jobs["sweeper"]["unmoved"]);
        health["status"] == "degraded" && unmoved == (&json!(1), &json!(1))
    })
    .await;
    for task in &bad {
        client.delete_unreadable_task(task).await.expect("it is removed");
        server.get(&at(task)).send().await.problem(404, "task_not_found");
        server.delete(&at(task)).send().await.problem(404, "task_not_found");
        server.get(&format!("/tasks/{task}")).send().await.problem(404, "task_not_found");
    }
    assert_eq!(stored(&server).count_documents(doc! {}).await.expect("an answer"), 30);
    eventually("all is well again", async || {
        server.get("/health/detailed").send().await.ok()["status"] == "healthy"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_is_not_removed_however_late_it_turns_out() {
    let server = TestServer::start().await;
    let good = server.create(json!({"delay_seconds": 1})).await;
    for answer in [server.get(&at(id(&good))).send().await, server.delete(&at(id(&good))).send().await] {
        let problem = answer.problem(404, "task_not_found");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("can read")), "{problem}");
    }
    // It comes back into shape while its removal is under way.
    let bad = server.create(json!({"delay_seconds": 2})).await;
    set(&server, &bad, doc! {"attempt": "one"}).await;
    let how = doc! {"blockConnection": true, "blockTimeMS": 1000};
    let fault = FailPoint::set(&server, "delete", doc! {"times": 1}, how).await;
    let path = at(id(&bad));
    let (answer, ()) = tokio::join!(server.delete(&path).send(), async {
        fault.has_hit(1).await;
        set(&server, &bad, doc! {"attempt": 0}).await;
    });
    answer.problem(404, "task_not_found");
    fault.end().await;
    pass_until_status(&server, &bad, "pending").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_sees_its_own() {
    let server = TestServer::start().await;
    let create = async |tenant: &str, fields: Value| {
        let task = server.post("/tasks").tenant(tenant).json(&fields).send().await.ok();
        set(&server, &task, doc! {"attempt": "one"}).await;
        task
    };
    let ours = create("ours", json!({"task_type": "a", "user_id": "ann"})).await;
    let other_user = create("ours", json!({"task_type": "a", "user_id": "bob"})).await;
    let other_type = create("ours", json!({"task_type": "b", "user_id": "ann"})).await;
    let theirs = create("theirs", json!({"task_type": "a", "user_id": "ann"})).await;
    let stray = doc! {"status": "scheduled", "run_at": DateTime::from_millis(1_000)};
    let numbered = doc! {"_id": 7, "tenant": 7, "status": "pending"};
    stored(&server).insert_many([stray, numbered]).await.expect("an answer");
    let set_of = |tasks: &[&Value]| tasks.iter().map(|task| id(task).to_owned()).collect::<BTreeSet<_>>();

    let operator = server.issue_key(&["operator"], json!({"tenant_id": "ours"})).await;
    let narrow = server.issue_key(&["operator"], json!({"tenant_id": "ours", "task_types": ["a"]})).await;
    let all = listed(&server, 1, |call| call.key(&operator)).await;
    assert_eq!(all, set_of(&[&ours, &other_user, &other_type]));
    let mine = listed(&server, 1, |call| call.key(&narrow).user("ann")).await;
    assert_eq!(mine, set_of(&[&ours]));
    for (key, task) in [(&operator, &theirs), (&narrow, &other_type)] {
        server.get(&at(id(task))).key(key).send().await.problem(404, "task_not_found");
        server.delete(&at(id(task))).key(key).send().await.problem(404, "task_not_found");
    }
    server.delete(&at(id(&other_user))).key(&narrow).user("ann").send().await.problem(404, "task_not_found");

    // Nobody can tell whose the others are.
    let everything = listed(&server, 1, |call| call.tenant("ours")).await;
    let strays: Vec<_> = everything.difference(&all).cloned().collect();
    assert_eq!(strays.len(), 2, "{everything:?}");
    for stray in &strays {
        server.get(&at(stray)).key(&operator).send().await.problem(404, "task_not_found");
        server.get(&at(stray)).tenant("theirs").send().await.ok();
        assert_eq!(server.delete(&at(stray)).tenant("theirs").send().await.status, 204);
    }
    assert_eq!(listed(&server, 100, |call| call.tenant("ours")).await, all);

    let page = server.get(LIST).tenant("ours").query(&[("limit", "1")]).send().await.ok();
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    for foreign in [cursor, "x", "AAAA", ""] {
        let call = server.get(LIST).tenant("theirs").query(&[("cursor", foreign)]);
        call.send().await.problem(400, "invalid_parameter");
    }
    assert_eq!(stored(&server).count_documents(doc! {}).await.expect("an answer"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_an_index_in_order_and_of_one_tenant() {
    let server = TestServer::start().await;
    create_many(&server, 40, |_| json!({"task_type": "t"})).await;
    let elsewhere = json!({"tasks": vec![json!({"task_type": "t"}); 200]});
    server.post("/tasks/batch").tenant("elsewhere").json(&elsewhere).send().await.ok();
    profiler::start(&server).await;
    listed(&server, 10, |call| call).await;
    let entries = profiler::stop(&server).await;
    let pages: Vec<_> = entries
        .iter()
        .filter(|entry| entry.get_document("command").is_ok_and(|command| command.contains_key("min")))
        .collect();
    let examined: i32 = pages.iter().filter_map(|entry| entry.get_i32("docsExamined").ok()).sum();
    assert!(!pages.is_empty() && examined <= 45, "{examined} documents were read for 40");
    for page in pages {
        assert!(page.get_str("planSummary").is_ok_and(|plan| plan.starts_with("IXSCAN")), "{page}");
        assert_ne!(page.get("hasSortStage"), Some(&Bson::Boolean(true)), "{page}");
    }
}
