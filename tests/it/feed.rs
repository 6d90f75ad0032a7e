//! The event log: each version of each task stands in it once, in order, with what is told of it; the counts follow it, and
//! both hold whoever reads the feed and whenever that changes.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_tests::{TestDatabase, TestServer, eventually};

use crate::verbs::{claim, claim_one, create_many, id, pass_until_status, post, put_status, settle, tasks};

async fn all(server: &TestServer, collection: &str) -> Vec<Document> {
    let found = server.database().collection::<Document>(collection);
    let found = found.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("documents");
    found.try_collect().await.expect("documents")
}

/// The moves in the log, in order. The documents that hold them have no hole.
async fn log(server: &TestServer) -> Vec<Document> {
    let documents = all(server, "tasks_events").await;
    for (place, document) in documents.iter().enumerate() {
        assert_eq!(document.get_i64("_id").expect("a number"), i64::try_from(place).unwrap() + 1);
    }
    let moves = documents.iter().filter_map(|document| document.get_array("moves").ok()).flatten();
    moves.filter_map(Bson::as_document).cloned().collect()
}

fn text<'a>(document: &'a Document, name: &str) -> &'a str {
    document.get_str(name).unwrap_or_default()
}

fn key(document: &Document) -> String {
    let Some(Bson::Binary(id)) = document.get("task").or(document.get("_id")) else {
        panic!("no id: {document}")
    };
    id.to_uuid().expect("a UUID").to_string()
}

/// Returns once every task stands in the log up to its version, and checks that each version is there once and in order.
async fn until_told(server: &TestServer) -> BTreeMap<String, Vec<Document>> {
    let mut told = BTreeMap::<String, Vec<Document>>::new();
    eventually("all tasks are in the log", async || {
        told.clear();
        for it in log(server).await {
            told.entry(key(&it)).or_default().push(it);
        }
        let version = |it: &Document| it.get_i64("version").unwrap_or_default();
        all(server, "tasks").await.iter().all(|task| {
            told.get(&key(task))
                .and_then(|moves| moves.last())
                .is_some_and(|last| version(last) >= version(task))
        })
    })
    .await;
    for (task, moves) in &told {
        let versions: Vec<_> = moves.iter().map(|it| it.get_i64("version").unwrap()).collect();
        let expected: Vec<_> = (versions[0]..).take(versions.len()).collect();
        assert_eq!(versions, expected, "each version of {task} once and in order");
    }
    told
}

/// The counts that are valid, by type and status, without what is zero.
async fn counts(server: &TestServer) -> BTreeMap<(String, String), i64> {
    let position = all(server, "tasks_feed").await;
    let generation =
        position.first().and_then(|position| position.get_i64("counts").ok()).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for document in all(server, "tasks_counts").await {
        let task_type = text(document.get_document("_id").unwrap(), "task_type").to_owned();
        let standing =
            document.get_document("counts").and_then(|counts| counts.get_document(generation.to_string()));
        for (status, count) in standing.cloned().unwrap_or_default() {
            let count = count.as_i64().expect("a count");
            if count != 0 {
                counts.insert((task_type.clone(), status), count);
            }
        }
    }
    counts
}

/// The same by a look at all tasks.
async fn recount(server: &TestServer) -> BTreeMap<(String, String), i64> {
    let mut counts = BTreeMap::new();
    for task in all(server, "tasks").await.iter().filter(|task| !task.contains_key("deleted_at")) {
        *counts.entry((text(task, "task_type").to_owned(), text(task, "status").to_owned())).or_default() +=
            1;
    }
    counts
}

async fn until_counted(server: &TestServer) {
    eventually("the counts are those of a recount", async || {
        let counted = counts(server).await;
        !counted.is_empty() && counted == recount(server).await
    })
    .await;
}

/// Lives of all kinds.
async fn live(server: &TestServer, task_type: &str) {
    let new = async |fields: Value| {
        let mut fields = fields;
        fields["task_type"] = task_type.into();
        server.create(fields).await
    };
    let done = new(json!({"name": "n", "priority": 70, "user_id": "u"})).await;
    let held = claim_one(server, &done, json!({})).await;
    settle(server, &held, "heartbeat", json!({"progress": {"value": 0.5, "text": "half"}})).await.ok();
    let used = json!({"result": {"a": 1}, "result_id": "r", "usage": {"credits_consumed": 1.5}});
    settle(server, &held, "complete", used).await.ok();
    let again = new(json!({})).await;
    let held = claim_one(server, &again, json!({})).await;
    settle(server, &held, "fail", json!({"retry_after_seconds": 0})).await.ok();
    pass_until_status(server, &again, "pending").await;
    let held = claim_one(server, &again, json!({})).await;
    settle(server, &held, "release", json!({})).await.ok();
    let own = new(json!({})).await;
    put_status(server, &own, json!({"status": "processing"})).await.ok();
    put_status(server, &own, json!({"status": "failed", "error_message": "no"})).await.ok();
    let gone = new(json!({})).await;
    claim_one(server, &gone, json!({})).await;
    assert_eq!(server.delete(&format!("/tasks/{}?force=true", id(&gone))).send().await.status, 204);
    let late = new(json!({"delay_seconds": 3600})).await;
    server.put(&format!("/tasks/{}", id(&late))).json(&json!({"name": "m", "priority": 1})).send().await.ok();
    let cancelled = new(json!({})).await;
    post(server, &cancelled, "cancel", json!({})).await.ok();
    post(server, &cancelled, "execute", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_is_in_the_log_with_what_is_told_of_it() {
    let server = TestServer::start().await;
    live(&server, "t").await;
    let told = until_told(&server).await;
    let of = |verb: &str| {
        let moves = told.values().flatten().filter(|it| text(it, "verb") == verb).collect::<Vec<_>>();
        assert!(!moves.is_empty(), "{verb}");
        moves
    };
    assert!(
        told.values().flatten().all(|it| text(it, "tenant") == "default" && text(it, "task_type") == "t")
    );
    let created = of("create")[0].get_document("created").unwrap();
    assert_eq!((text(created, "name"), created.get_i32("priority").unwrap()), ("n", 70));
    let start = of("claim")[0].get_document("start").unwrap();
    assert_eq!((text(start, "worker_id"), start.get_i64("attempt").unwrap()), ("w1", 1));
    let progress = of("heartbeat")[0].get_document("progress").unwrap();
    assert_eq!((progress.get_f64("value").unwrap(), text(progress, "text")), (0.5, "half"));
    let completed = of("complete")[0];
    let end = completed.get_document("end").unwrap();
    let credits = end.get_document("usage").unwrap().get_f64("credits_consumed").unwrap();
    assert_eq!((text(completed, "result_id"), text(end, "status"), credits), ("r", "completed", 1.5));
    assert_eq!((text(completed, "user_id"), text(completed, "to")), ("u", "completed"));
    let failed = of("fail")[0];
    let error = failed.get_document("end").unwrap().get_document("error").unwrap();
    assert_eq!((text(failed, "reason"), text(error, "message")), ("retry", "it broke"));
    assert!(failed.contains_key("run_at"));
    assert_eq!(text(of("release")[0].get_document("end").unwrap(), "status"), "released");
    assert_eq!(text(of("end")[0], "reason"), "error");
    assert_eq!(text(of("delete")[0].get_document("end").unwrap(), "status"), "cancelled");
    assert_eq!(of("edit")[0].get_array("fields").unwrap(), &["name".into(), "priority".into()]);
    assert!(of("promote")[0].get_document("end").is_err());
    until_counted(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_servers_do_is_told_once_and_counted() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    for (server, task_type) in [(&server, "a"), (&other, "b")] {
        create_many(server, 300, |_| json!({"task_type": task_type})).await;
    }
    let held = claim(&other, "a", json!({"limit": 200})).await;
    let outcomes: Vec<_> = tasks(&held)
        .iter()
        .enumerate()
        .map(|(n, task)| {
            let outcome = if n % 3 == 0 { "released" } else { "completed" };
            json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": outcome})
        })
        .collect();
    server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
    live(&other, "a").await;
    until_told(&server).await;
    until_counted(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_reads_on_where_the_reader_has_stopped() {
    let server = TestServer::start().await;
    create_many(&server, 10, |_| json!({"task_type": "t"})).await;
    until_told(&server).await;
    let other = server.sibling().await;
    let reader = || async { all(&other, "tasks_feed").await[0].get_i64("reader").unwrap() };
    assert_eq!(reader().await, 1);
    let (dies, goes_on) =
        (claim(&server, "t", json!({"limit": 5})), create_many(&other, 10, |_| json!({"task_type": "t"})));
    tokio::join!(dies, goes_on);
    server.stop().await;
    claim(&other, "t", json!({"limit": 5})).await;
    until_told(&other).await;
    assert_eq!(reader().await, 2);
    until_counted(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_was_displaced_writes_nothing_more() {
    let server = TestServer::start().await;
    create_many(&server, 3, |_| json!({"task_type": "t"})).await;
    until_told(&server).await;
    // As another server does that takes the feed over.
    let feed = server.database().collection::<Document>("tasks_feed");
    feed.update_one(doc! { "_id": "position" }, doc! { "$inc": { "reader": 1_i64 } }).await.unwrap();
    create_many(&server, 3, |_| json!({"task_type": "t"})).await;
    eventually("this server has to begin again", async || {
        all(&server, "tasks_feed").await[0].get_i64("reader").unwrap() > 2
    })
    .await;
    until_told(&server).await;
    until_counted(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_from_before_the_feed_are_counted_while_it_runs() {
    let database = TestDatabase::create().await;
    let handle = database.handle();
    let server = TestServer::start_in(database).await;
    create_many(&server, 500, |n| json!({"task_type": format!("t{}", n % 3)})).await;
    create_many(&server, 10, |_| json!({"task_type": "t0", "delay_seconds": 60})).await;
    until_told(&server).await;
    let server = server
        .restart_after(async {
            for name in ["tasks_feed", "tasks_events", "tasks_counts"] {
                handle.collection::<Document>(name).drop().await.unwrap();
            }
        })
        .await;
    for n in 0..20 {
        claim(&server, "t0", json!({"limit": 3})).await;
        create_many(&server, 5, |_| json!({"task_type": format!("t{}", n % 4)})).await;
    }
    until_counted(&server).await;
    assert!(all(&server, "tasks_events").await.iter().all(|document| !document.contains_key("gap")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_position_is_told_as_a_gap_and_the_tasks_are_counted_anew() {
    let server = TestServer::start().await;
    create_many(&server, 50, |_| json!({"task_type": "t"})).await;
    until_told(&server).await;
    let feed = server.database().collection::<Document>("tasks_feed");
    // What no database has written.
    let strange = doc! { "_data": "none" };
    let lose = doc! { "$set": { "token": strange }, "$inc": { "reader": 1_i64 } };
    feed.update_one(doc! { "_id": "position" }, lose).await.unwrap();
    let gap = || async {
        let log = all(&server, "tasks_events").await;
        log.into_iter().find_map(|document| document.get_document("gap").ok().cloned())
    };
    eventually("the gap is told", async || gap().await.is_some()).await;
    create_many(&server, 50, |_| json!({"task_type": "t"})).await;
    claim(&server, "t", json!({"limit": 70})).await;
    until_counted(&server).await;
    let gap = gap().await.unwrap();
    assert!(gap.get_datetime("from").unwrap() <= gap.get_datetime("to").unwrap());
    let position = all(&server, "tasks_feed").await.remove(0);
    assert_eq!(position.get_array("gaps").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_hours_and_goes_on_with_its_numbers() {
    let server = TestServer::start_with(|settings| settings.tasks.event_log_hours = 1).await;
    server.create(json!({})).await;
    until_told(&server).await;
    server.create(json!({})).await;
    until_told(&server).await;
    server.jump(std::time::Duration::from_secs(2 * 3600));
    let other = server.sibling().await;
    server.stop().await;
    eventually("old documents are removed, but for the latest", async || {
        let log = all(&other, "tasks_events").await;
        log.len() == 1 && log[0].get_i64("_id").unwrap() >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removes_is_counted_no_more_also_where_a_removal_was_cut_off() {
    let server = TestServer::start().await;
    create_many(&server, 30, |_| json!({"task_type": "t", "retention_seconds": 60})).await;
    let held = claim(&server, "t", json!({"limit": 20})).await;
    for (n, task) in tasks(&held).iter().enumerate() {
        settle(&server, task, if n % 2 == 0 { "complete" } else { "fail" }, json!({})).await;
    }
    for task in &tasks(&held)[..4] {
        assert_eq!(server.delete(&format!("/tasks/{}", id(task))).send().await.status, 204);
    }
    until_counted(&server).await;
    // As a server leaves it that dies after it has written down what it is about to remove.
    let gone = all(&server, "tasks")
        .await
        .into_iter()
        .find(|task| text(task, "status") == "completed" && !task.contains_key("deleted_at"));
    let gone = gone.expect("a completed task");
    let note = doc! {
        "_id": "removal", "batch": bson::Uuid::new(), "due": bson::DateTime::from_chrono(server.now() + chrono::TimeDelta::hours(1)),
        "tasks": [{ "_id": gone.get("_id"), "as_one_of": { "tenant": "default", "task_type": "t", "status": "completed" } }],
    };
    server.database().collection::<Document>("tasks_feed").insert_one(note).await.unwrap();
    let before = all(&server, "tasks").await.len();
    eventually("it is removed", async || all(&server, "tasks").await.len() < before).await;
    until_counted(&server).await;
    server.let_pass(std::time::Duration::from_secs(120)).await;
    let final_ones = doc! { "remove_at": { "$exists": true } };
    let tasks = server.database().collection::<Document>("tasks");
    eventually("all that is final is removed", async || {
        tasks.count_documents(final_ones.clone()).await.expect("a count") == 0
    })
    .await;
    until_counted(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_say_how_far_the_feed_is() {
    let server = TestServer::start().await;
    create_many(&server, 5, |_| json!({"task_type": "t"})).await;
    until_told(&server).await;
    // One that does not read the feed says the same.
    let other = server.sibling().await;
    for server in [&server, &other] {
        let mut feed = Value::Null;
        eventually("it is known how far the feed is", async || {
            feed = server.get("/health/detailed").send().await.ok()["feed"].clone();
            feed["position"].as_i64().is_some_and(|position| position > 0)
        })
        .await;
        assert!(feed["lag_seconds"].as_f64().is_some_and(|lag| lag < 3.0), "{feed}");
        assert!(feed["last_at"].is_string() && feed["last_error"].is_null(), "{feed}");
        assert!(feed["oplog_window_seconds"].is_u64(), "{feed}");
        let metrics = server.get("/metrics").send().await.text();
        assert!(metrics.lines().any(|line| line.starts_with("task_repo_feed_lag_seconds ")), "{metrics}");
    }
}
