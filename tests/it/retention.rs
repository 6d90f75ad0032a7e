//! How long a task that is over stays in the database, hidden or not, and that one that is not over never goes.

use bson::{Bson, DateTime, Document, doc};
use chrono::{TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_tests::TestServer;

use crate::verbs::{claim_one, id, post, put_status, settle, until_status};

/// The task as it is stored, whatever the service shows of it.
async fn stored(server: &TestServer, task: &Value) -> Option<Document> {
    let key = bson::Uuid::parse_str(id(task)).expect("a UUID");
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find_one(doc! {"_id": key}).await.expect("the database answers")
}

/// When the database may remove the task.
async fn removal(server: &TestServer, task: &Value) -> Option<DateTime> {
    match stored(server, task).await.expect("the task is stored").get("expire_at") {
        None | Some(Bson::Null) => None,
        Some(Bson::DateTime(at)) => Some(*at),
        Some(other) => panic!("only a date is ever removed, not {other}"),
    }
}

async fn assert_stays(server: &TestServer, task: &Value, seconds: Option<i64>, why: &str) {
    let removal = removal(server, task).await.map(DateTime::to_chrono);
    match (removal, seconds) {
        (None, None) => {}
        (Some(at), Some(seconds)) => {
            let off = at - (Utc::now() + TimeDelta::seconds(seconds));
            assert!(off.abs() < TimeDelta::seconds(30), "{why}: {at} should be in about {seconds} s");
        }
        (found, _) => panic!("{why}: {found:?} instead of {seconds:?} seconds"),
    }
}

/// The task, brought to that end.
async fn ended(server: &TestServer, end: &str, mut task: Value) -> Value {
    if end == "lost" || end == "timed-out" {
        task["max_attempts"] = json!(1);
    }
    if end == "timed-out" {
        task["timeout_seconds"] = json!(1);
    }
    let task = server.create(task).await;
    match end {
        "cancelled" => drop(post(server, &task, "cancel", json!({})).await.ok()),
        "self-managed" => {
            put_status(server, &task, json!({"status": "processing"})).await.ok();
            put_status(server, &task, json!({"status": "completed"})).await.ok();
        }
        "lost" | "timed-out" => {
            claim_one(server, &task, json!({"lease_seconds": 1})).await;
            until_status(server, &task, "failed").await;
        }
        verb => {
            let held = claim_one(server, &task, json!({})).await;
            settle(server, &held, verb, if verb == "fail" { json!({"retry": "never"}) } else { json!({}) })
                .await
                .ok();
        }
    }
    task
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_over_is_removed_when_its_retention_ends() {
    let server = TestServer::start().await;
    let check = async |end: &'static str| {
        for (task, seconds) in [
            (json!({}), Some(604_800)),
            (json!({"retention_seconds": 5000}), Some(5000)),
            (json!({"retention_seconds": null}), None),
        ] {
            let task = ended(&server, end, task).await;
            assert_stays(&server, &task, seconds, end).await;
        }
    };
    tokio::join!(
        check("complete"),
        check("fail"),
        check("cancel"),
        check("cancelled"),
        check("self-managed"),
        check("lost"),
        check("timed-out"),
    );
    let at_once = ended(&server, "complete", json!({"retention_seconds": 0})).await;
    if stored(&server, &at_once).await.is_some() {
        assert_stays(&server, &at_once, Some(0), "no retention").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_setting_is_the_default() {
    let server = TestServer::start_with(|settings| settings.tasks.task_retention_seconds = 7000).await;
    let task = ended(&server, "complete", json!({})).await;
    assert_stays(&server, &task, Some(7000), "the setting").await;
    let task = ended(&server, "complete", json!({"retention_seconds": 5000})).await;
    assert_stays(&server, &task, Some(5000), "the task's own").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_not_over_is_never_removed() {
    let server = TestServer::start().await;
    let brief = json!({"retention_seconds": 1});
    let task = server.create(brief.clone()).await;
    assert_stays(&server, &task, None, "pending").await;
    let held = claim_one(&server, &task, json!({})).await;
    assert_stays(&server, &task, None, "processing").await;
    settle(&server, &held, "fail", json!({})).await.ok();
    assert_stays(&server, &task, None, "scheduled").await;
    post(&server, &task, "execute", json!({})).await.ok();
    assert_stays(&server, &task, None, "pending again").await;

    // Made ready again, a final task is not over any more.
    for end in ["complete", "fail", "cancelled"] {
        let task = ended(&server, end, json!({"retention_seconds": 5000})).await;
        assert_stays(&server, &task, Some(5000), end).await;
        post(&server, &task, "execute", json!({})).await.ok();
        assert_stays(&server, &task, None, "executed").await;
        let held = claim_one(&server, &task, json!({})).await;
        settle(&server, &held, "complete", json!({})).await.ok();
        assert_stays(&server, &task, Some(5000), "over again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_task_is_kept_until_its_retention_ends() {
    let server = TestServer::start().await;
    for (fields, seconds) in [
        (json!({}), Some(604_800)),
        (json!({"retention_seconds": 5000}), Some(5000)),
        (json!({"retention_seconds": null}), None),
    ] {
        let pending = server.create(fields.clone()).await;
        let held = server.create(fields.clone()).await;
        claim_one(&server, &held, json!({})).await;
        let done = ended(&server, "complete", fields).await;
        for task in [&pending, &held, &done] {
            let path = format!("/tasks/{}", id(task));
            assert_eq!(server.delete(&path).query(&[("force", "true")]).send().await.status, 204);
            server.get(&path).send().await.problem(404, "task_not_found");
            assert_stays(&server, task, seconds, "deleted").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_removes_by_an_index_of_its_own() {
    let server = TestServer::start().await;
    let tasks = server.database().collection::<Document>("tasks");
    let indexes: Vec<_> = tasks.list_indexes().await.expect("indexes").try_collect().await.expect("indexes");
    let removing: Vec<_> = indexes
        .iter()
        .filter(|index| index.options.as_ref().is_some_and(|options| options.expire_after.is_some()))
        .collect();
    assert_eq!(removing.len(), 1, "{indexes:?}");
    assert!(removing[0].keys.contains_key("expire_at"));
    let after = removing[0].options.as_ref().and_then(|options| options.expire_after);
    assert_eq!(after, Some(std::time::Duration::ZERO), "the date itself is when");
}
