//! How long a task that is over stays in the database, hidden or not, and that one that is not over never goes.

use bson::{Bson, DateTime, Document, doc};
use chrono::{TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually};

use crate::verbs::{claim_one, create_many, id, pass_until_status, post, put_status, settle};

/// The task as it is stored, whatever the service shows of it.
async fn stored(server: &TestServer, task: &Value) -> Option<Document> {
    let key = bson::Uuid::parse_str(id(task)).expect("a UUID");
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find_one(doc! {"_id": key}).await.expect("the database answers")
}

/// From when on the task may be removed.
async fn removal(server: &TestServer, task: &Value) -> Option<DateTime> {
    match stored(server, task).await.expect("the task is stored").get("remove_at") {
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
            pass_until_status(server, &task, "failed").await;
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

/// Lets the retention of a task have ended a while ago.
async fn let_it_end(server: &TestServer, task: &Value) {
    let key = bson::Uuid::parse_str(id(task)).expect("a UUID");
    let ended = doc! {"$set": {"remove_at": DateTime::from_millis(1_000)}};
    let tasks = server.database().collection::<Document>("tasks");
    tasks.update_one(doc! {"_id": key}, ended).await.expect("the database answers");
}

async fn count(server: &TestServer, collection: &str) -> u64 {
    let collection = server.database().collection::<Document>(collection);
    collection.count_documents(doc! {}).await.expect("the database answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_had_its_time_is_removed_in_batches_and_on_one_server() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let stays = ended(&server, "complete", json!({})).await;
    let pending = server.create(json!({})).await;
    // More than one batch holds.
    create_many(&server, 1_000, |_| json!({"task_type": "gone"})).await;
    let tasks = server.database().collection::<Document>("tasks");
    let over = doc! {"$set": {"status": "completed", "remove_at": DateTime::from_millis(1_000)}};
    tasks.update_many(doc! {"task_type": "gone"}, over).await.expect("the database answers");
    eventually("the old ones are gone", async || count(&server, "tasks").await == 2).await;
    assert!(stored(&server, &stays).await.is_some() && stored(&server, &pending).await.is_some());
    let leases = server.database().collection::<Document>("job_leases");
    let lease = leases.find_one(doc! {"_id": "tasks:retention"}).await.expect("an answer").expect("a lease");
    let holder = lease.get_binary_generic("holder").ok().cloned();
    assert!(lease.get_datetime("until").is_ok_and(|until| *until > DateTime::now()), "{holder:?}");
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_removes_when_the_first_is_gone() {
    let server = TestServer::start().await;
    let leases = server.database().collection::<Document>("job_leases");
    let holder = async || leases.find_one(doc! {"_id": "tasks:retention"}).await.expect("an answer");
    eventually("it has the job", async || holder().await.is_some()).await;
    let first = holder().await;
    let other = server.sibling().await;
    server.stop().await;
    eventually("the other has the job", async || {
        let now = leases_of(&other).await;
        now.is_some() && now != first
    })
    .await;
    let task = ended(&other, "complete", json!({})).await;
    let_it_end(&other, &task).await;
    eventually("it is gone", async || stored(&other, &task).await.is_none()).await;
}

async fn leases_of(server: &TestServer) -> Option<Document> {
    let leases = server.database().collection::<Document>("job_leases");
    leases.find_one(doc! {"_id": "tasks:retention"}).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_beside_a_task_goes_with_it() {
    let server = TestServer::start().await;
    let (goes, stays) =
        (ended(&server, "complete", json!({})).await, ended(&server, "complete", json!({})).await);
    for (place, name) in ["tasks_checkpoints", "tasks_logs"].into_iter().enumerate() {
        let beside = server.database().collection::<Document>(name);
        for task in [&goes, &stays] {
            let task = bson::Uuid::parse_str(id(task)).expect("a UUID");
            let documents = (0..=place).map(|_| doc! {"task": task});
            beside.insert_many(documents).await.expect("they can be written");
        }
    }
    let_it_end(&server, &goes).await;
    eventually("it is gone", async || stored(&server, &goes).await.is_none()).await;
    assert!(stored(&server, &stays).await.is_some());
    assert_eq!((count(&server, "tasks_checkpoints").await, count(&server, "tasks_logs").await), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_to_the_database_itself() {
    let server = TestServer::start().await;
    let tasks = server.database().collection::<Document>("tasks");
    let indexes: Vec<_> = tasks.list_indexes().await.expect("indexes").try_collect().await.expect("indexes");
    let expires =
        |index: &mongodb::IndexModel| index.options.as_ref().is_some_and(|it| it.expire_after.is_some());
    assert!(!indexes.iter().any(expires), "{indexes:?}");
    assert!(indexes.iter().any(|index| index.keys.contains_key("remove_at")), "{indexes:?}");
}
