//! The servers on a database, and what all of them must know.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::json;
use task_repo_server::store::SCHEMA;
use task_repo_tests::{TestServer, eventually};

use crate::fail_point::FailPoint;
use crate::profiler;

async fn registered(server: &TestServer) -> Vec<Document> {
    let servers = server.database().collection::<Document>("servers");
    servers.find(doc! {}).await.expect("an answer").try_collect().await.expect("servers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_is_registered_while_it_runs() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    eventually("both are there", async || registered(&server).await.len() == 2).await;
    let health = server.client().detailed_health().await.expect("an answer");
    assert_eq!(health.servers.len(), 2);
    for entry in &health.servers {
        assert_eq!(
            (entry.version.as_str(), entry.schema.as_str()),
            (env!("CARGO_PKG_VERSION"), &*SCHEMA.to_string())
        );
        assert!(!entry.host.is_empty() && entry.renewed_at >= entry.started_at, "{entry:?}");
    }
    other.stop().await;
    assert_eq!(registered(&server).await.len(), 1, "it leaves when it stops");
    // One that was killed leaves an entry that ages; after a day it goes.
    let servers = server.database().collection::<Document>("servers");
    let long_ago = bson::DateTime::from_millis(1_000);
    let dead =
        doc! {"host": "h", "version": "v", "schema": "1.0", "started_at": long_ago, "renewed_at": long_ago};
    servers.insert_one(dead).await.expect("an answer");
    server
        .while_time_passes(eventually("the dead one is gone", async || registered(&server).await.len() == 1))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_the_first_release_stays_while_one_of_its_servers_is_registered() {
    let server = TestServer::start().await;
    let database = server.database();
    let tasks = database.collection::<Document>("tasks");
    let is_there = async || {
        let names = tasks.list_index_names().await.expect("an answer");
        names.iter().any(|name| name == "newest")
    };
    assert!(!is_there().await, "this version does not make it");
    let options = IndexOptions::builder().name("newest".to_owned()).build();
    let keys = doc! { "tenant": 1, "status": 1, "created_at": -1, "_id": -1 };
    tasks.create_index(IndexModel::builder().keys(keys).options(options).build()).await.expect("an index");
    let now = bson::DateTime::from_chrono(server.now());
    let id = bson::Uuid::new();
    let old = doc! {
        "_id": id, "host": "h", "version": "0.1.0", "schema": "1.0", "started_at": now, "renewed_at": now,
    };
    let servers = database.collection::<Document>("servers");
    servers.insert_one(old).await.expect("an answer");
    server.sibling().await.stop().await;
    assert!(is_there().await, "a server that reads it may run");
    servers.delete_one(doc! { "schema": "1.0" }).await.expect("an answer");
    server.sibling().await.stop().await;
    assert!(!is_there().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changes_at_one_server_changes_at_the_other() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let issued = server.issue(&["viewer"], json!({})).await;
    let (key, secret) = (issued["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    other.get("/tasks").key(secret).send().await.ok();
    let rotated =
        server.post(&format!("/keys/{key}/rotate")).json(&json!({"overlap_seconds": 0})).send().await.ok();
    eventually("the old secret is refused", async || {
        other.get("/tasks").key(secret).send().await.status == 401
    })
    .await;
    let secret = rotated["key"].as_str().unwrap();
    other.get("/tasks").key(secret).send().await.ok();
    assert_eq!(server.delete(&format!("/keys/{key}")).send().await.status, 204);
    server.get("/tasks").key(secret).send().await.problem(401, "unauthenticated");
    eventually("the other refuses it too", async || {
        other.get("/tasks").key(secret).send().await.status == 401
    })
    .await;
    // What somebody tried before it was there is not held against it.
    let before = server.issue(&["viewer"], json!({})).await;
    let hash = doc! {"$set": {"hashes.0.until": bson::DateTime::from_millis(1_000)}};
    let keys = server.database().collection::<Document>("api_keys");
    keys.update_one(doc! {}, hash).await.expect("an answer");
    other.get("/tasks").key(before["key"].as_str().unwrap()).send().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_was_not_told_is_told_by_its_repetition() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let issued = server.issue(&["viewer"], json!({})).await;
    let (key, secret) = (issued["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    other.get("/tasks").key(secret).send().await.ok();
    let path = format!("/keys/{key}");
    let fault =
        FailPoint::set_on(&server, "installation", "update", "alwaysOn", doc! {"errorCode": 50}).await;
    server.delete(&path).send().await.problem(503, "outcome_unknown");
    fault.end().await;
    server.delete(&path).send().await.problem(404, "key_not_found");
    eventually("the other refuses it", async || other.get("/tasks").key(secret).send().await.status == 401)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_use_is_not_looked_up_again_and_again() {
    let server = TestServer::start().await;
    let secret = server.issue_key(&["viewer"], json!({})).await;
    let call = async || drop(server.get("/tasks").key(&secret).send().await.ok());
    profiler::start(&server).await;
    let use_until_asked = async |times: u64| {
        let is_asked = async || {
            call().await;
            look_ups(&server, "installation").await >= times
        };
        server.while_time_passes(eventually("it was asked some times for what has changed", is_asked)).await;
    };
    // By then the server has heard of the key's own creation.
    use_until_asked(2).await;
    let before = look_ups(&server, "api_keys").await;
    // Longer than a key was believed when each server asked for each key anew.
    use_until_asked(7).await;
    assert_eq!(look_ups(&server, "api_keys").await, before, "its use needs none");
}

/// How many reads of a collection the profiler has seen.
async fn look_ups(server: &TestServer, collection: &str) -> u64 {
    let database = server.database();
    let profile = database.collection::<Document>("system.profile");
    let reads = doc! {"op": "query", "ns": format!("{}.{collection}", database.name())};
    profile.count_documents(reads).await.expect("the profile")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_believes_a_key_for_long_when_changes_cannot_be_heard_of() {
    let server = TestServer::start().await;
    let issued = server.issue(&["viewer"], json!({})).await;
    let secret = issued["key"].as_str().unwrap();
    server.get("/tasks").key(secret).send().await.ok();
    let deaf = FailPoint::set_on(&server, "installation", "find", "alwaysOn", doc! {"errorCode": 50}).await;
    // Behind the service's back, so that nothing is counted.
    let keys = server.database().collection::<Document>("api_keys");
    keys.delete_many(doc! {}).await.expect("an answer");
    let refused = async || server.get("/tasks").key(secret).send().await.status == 401;
    let within = tokio::time::timeout(Duration::from_secs(5), eventually("it is refused", refused)).await;
    assert!(within.is_ok(), "within 5 s");
    let jobs = server.client().detailed_health().await.expect("an answer").background;
    assert_eq!(jobs["registry"].status, "failing", "and it shows");
    deaf.end().await;
}
