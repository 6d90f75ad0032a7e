//! The database dropped or restored under a running server: what needs the indexes is refused, they come back, and nothing
//! that the server remembers of another time does harm.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, eventually};

use crate::fail_point::FailPoint;
use crate::verbs::{claim, claim_one, id, ids, settle, shown};

/// Longer than the server waits until it tries once more to make what could not be made.
const UNTIL_TRIED_AGAIN: Duration = Duration::from_secs(31);

async fn create_once(server: &TestServer, key: &str) -> HttpAnswer {
    let call = server.post("/tasks").header("Idempotency-Key", key).json(&json!({"task_type": "once"}));
    call.send().await
}

async fn until_ready(server: &TestServer, is_ready: bool) {
    let wanted = if is_ready { 200 } else { 503 };
    eventually("the server notices", async || server.get("/health/ready").send().await.status == wanted)
        .await;
}

async fn has_unique_index(server: &TestServer) -> bool {
    let names = server.database().collection::<Document>("tasks").list_index_names().await;
    names.unwrap_or_default().iter().any(|name| name == "idempotency")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_indexes_are_missing_nothing_that_needs_them_is_accepted_and_they_come_back() {
    let server = TestServer::start().await;
    create_once(&server, "before").await.success();
    let fault = FailPoint::set(&server, "createIndexes", "alwaysOn", doc! {"errorCode": 8000}).await;
    server.database().drop().await.expect("it is dropped");
    until_ready(&server, false).await;
    let unready = server.get("/health/ready").send().await.problem(503, "unavailable");
    let names = |detail: &Value| detail.as_str().is_some_and(|it| it.contains("tasks.idempotency"));
    assert!(names(&unready["detail"]), "{unready}");
    let problem = create_once(&server, "k").await.problem(503, "unavailable");
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("lost indexes")), "{problem}");
    let batch = json!({"tasks": [{"task_type": "once"}]});
    let batch = server.post("/tasks/batch").header("Idempotency-Key", "b").json(&batch).send().await;
    let item = &batch.json()["results"][0]["problem"];
    assert!(batch.status == 503 || item["code"] == "unavailable", "{batch:?}");
    let plain = server.create(json!({"task_type": "plain"})).await;
    let tasks = server.database().collection::<Document>("tasks");
    assert_eq!(tasks.count_documents(doc! {}).await.expect("an answer"), 1, "the others were refused");
    let health = server.get("/health/detailed").send().await.ok();
    assert_eq!(
        (&health["status"], &health["dependencies"]["mongodb"]["status"]),
        (&json!("degraded"), &json!("degraded"))
    );
    assert!(names(&health["dependencies"]["mongodb"]["detail"]), "{health:#}");
    eventually("the job says that it fails", async || {
        let health = server.get("/health/detailed").send().await.ok();
        health["background"]["indexes"]["status"] == "failing"
    })
    .await;
    fault.end().await;
    server.jump(UNTIL_TRIED_AGAIN);
    until_ready(&server, true).await;
    assert!(has_unique_index(&server).await);
    let first = create_once(&server, "k").await.ok();
    assert_eq!(create_once(&server, "k").await.ok()["id"], first["id"]);
    assert_eq!(ids(&claim(&server, "plain", json!({})).await), [id(&plain)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_misses_its_index_is_enough_to_notice() {
    let server = TestServer::start().await;
    server.create(json!({"task_type": "t"})).await;
    let database = server.database();
    let fault = FailPoint::set(&server, "createIndexes", "alwaysOn", doc! {"errorCode": 8000}).await;
    database.run_command(doc! {"dropIndexes": "tasks", "index": "*"}).await.expect("they are dropped");
    server.post("/tasks/claim").json(&json!({"task_types": ["t"], "worker_id": "w"})).send().await;
    create_once(&server, "k").await.problem(503, "unavailable");
    fault.end().await;
    server.jump(UNTIL_TRIED_AGAIN);
    until_ready(&server, true).await;
    create_once(&server, "k").await.success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubles_from_the_moment_before_do_not_keep_the_index_away() {
    let server = TestServer::start().await;
    let first = create_once(&server, "k").await.ok();
    let tasks = server.database().collection::<Document>("tasks");
    let held =
        tasks.find_one(doc! {"idempotency_key": {"$exists": true}}).await.expect("an answer").expect("it");
    // Held up, so that it is not faster than the doubles.
    let fault = FailPoint::set(&server, "createIndexes", "alwaysOn", doc! {"errorCode": 8000}).await;
    server
        .database()
        .run_command(doc! {"dropIndexes": "tasks", "index": "*"})
        .await
        .expect("they are dropped");
    for number in 1..4_u8 {
        let mut double = held.clone();
        let id = uuid::Uuid::now_v7().into_bytes();
        double.insert("_id", bson::Uuid::from_bytes(id));
        double.insert("name", number.to_string());
        tasks.insert_one(double).await.expect("nothing keeps it out");
    }
    fault.end().await;
    server.jump(UNTIL_TRIED_AGAIN);
    eventually("the indexes come back", async || has_unique_index(&server).await).await;
    until_ready(&server, true).await;
    assert_eq!(create_once(&server, "k").await.ok()["id"], first["id"], "the oldest has the key");
    assert_eq!(tasks.count_documents(doc! {}).await.expect("an answer"), 4);
}

/// Everything that is stored, by collection.
async fn dump(server: &TestServer) -> Vec<(String, Vec<Document>)> {
    let (database, mut all) = (server.database(), Vec::new());
    for name in database.list_collection_names().await.expect("names") {
        let found = database.collection::<Document>(&name).find(doc! {}).await.expect("an answer");
        all.push((name, found.try_collect().await.expect("documents")));
    }
    all
}

/// Puts it in place of what there is, without indexes.
async fn restore(server: &TestServer, dump: Vec<(String, Vec<Document>)>) {
    let database = server.database();
    database.drop().await.expect("it is dropped");
    for (name, documents) in dump {
        for document in documents {
            let named = doc! {"_id": document.get("_id").expect("an id").clone()};
            // The server may have written what it writes by itself, such as its entry in the registry.
            let replaced =
                database.collection::<Document>(&name).replace_one(named, document).upsert(true).await;
            replaced.expect("it is back");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_what_is_remembered_of_later_does_no_harm() {
    let server = TestServer::start().await;
    let waiting = server.create(json!({"task_type": "waiting"})).await;
    let made = create_once(&server, "old").await.ok();
    let (beating, done) = (server.create(json!({})).await, server.create(json!({})).await);
    let beating = claim_one(&server, &beating, json!({"lease_seconds": 600})).await;
    let done = claim_one(&server, &done, json!({"lease_seconds": 600})).await;
    let old_key = server.issue(&["viewer"], json!({})).await;
    let dump = dump(&server).await;

    settle(&server, &beating, "heartbeat", json!({"lease_seconds": 900})).await.ok();
    settle(&server, &done, "complete", json!({"result": 1})).await.ok();
    let later = create_once(&server, "later").await.ok();
    claim(&server, "waiting", json!({})).await;
    server.delete(&format!("/keys/{}", old_key["id"].as_str().unwrap())).send().await.success();
    let new_key = server.issue_key(&["viewer"], json!({})).await;
    server.get("/tasks").key(&new_key).send().await.ok();

    restore(&server, dump).await;
    eventually("the indexes come back", async || has_unique_index(&server).await).await;
    until_ready(&server, true).await;
    // Tasks are as they were, whatever the server has in memory of them.
    assert_eq!(shown(&server, &done).await["status"], "processing");
    settle(&server, &beating, "heartbeat", json!({})).await.ok();
    settle(&server, &beating, "complete", json!({"result": 2})).await.ok();
    assert_eq!(settle(&server, &done, "complete", json!({"result": 1})).await.ok()["status"], "completed");
    assert_eq!(ids(&claim(&server, "waiting", json!({})).await), [id(&waiting)]);
    // Keys of later are not known, neither of idempotency nor of callers.
    assert_eq!(create_once(&server, "old").await.ok()["id"], made["id"]);
    assert_ne!(create_once(&server, "later").await.ok()["id"], later["id"]);
    server.get(&format!("/tasks/{}", id(&later))).send().await.problem(404, "task_not_found");
    eventually("the key of later is refused", async || {
        server.get("/tasks").key(&new_key).send().await.status == 401
    })
    .await;
    server.get("/tasks").key(old_key["key"].as_str().unwrap()).send().await.ok();
    eventually("all is well", async || {
        let health = server.get("/health/detailed").send().await.ok();
        health["status"] == "healthy" && health["servers"].as_array().is_some_and(|it| it.len() == 1)
    })
    .await;
}
