//! Values of a newer version in what is stored: each is read, shown as far as it can be, and kept by whatever this version
//! does beside it.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use task_repo_server::store::SCHEMA;
use task_repo_server::{Server, Settings};
use task_repo_tests::{TestServer, eventually};

use crate::verbs::{
    claim, claim_one, executions, id, ids, pass_until_status, post, put_status, settle, shown, tasks,
};

fn key(task: &Value) -> bson::Uuid {
    bson::Uuid::parse_str(id(task)).expect("a UUID")
}

pub(crate) async fn set(server: &TestServer, task: &Value, fields: Document) {
    let tasks = server.database().collection::<Document>("tasks");
    let set = tasks.update_one(doc! {"_id": key(task)}, doc! {"$set": fields}).await.expect("an answer");
    assert_eq!(set.matched_count, 1);
}

async fn stored(server: &TestServer, task: &Value) -> Document {
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find_one(doc! {"_id": key(task)}).await.expect("an answer").expect("the task is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_shown_and_nobody_moves_the_task() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "t", "user_id": "ann", "tags": {"a": "b"}})).await;
    set(&server, &task, doc! {"status": "hibernating", "reason": "winter"}).await;
    let before = stored(&server, &task).await;
    let seen = shown(&server, &task).await;
    assert_eq!((&seen["status"], &seen["reason"]), (&json!("hibernating"), &json!("winter")));
    for filter in [
        vec![("status", "any")],
        vec![("status", "any"), ("user_id", "ann")],
        vec![("status", "any"), ("tag", "a:b")],
    ] {
        let page = server.get("/tasks").query(&filter).send().await.ok();
        assert_eq!(ids(&page), [id(&task)], "{filter:?}");
    }
    assert!(tasks(&claim(&server, "t", json!({})).await).is_empty());
    for (verb, body, code) in [
        ("claim", json!({"worker_id": "w"}), "task_not_claimable"),
        ("cancel", json!({}), "invalid_transition"),
        ("execute", json!({}), "invalid_transition"),
        ("complete", json!({"lease_token": "x"}), "lease_lost"),
    ] {
        let problem = post(&server, &task, verb, body).await.problem(409, code);
        assert_eq!(problem["current_status"], "hibernating", "{verb}");
    }
    put_status(&server, &task, json!({"status": "processing"})).await.problem(409, "invalid_transition");
    let path = format!("/tasks/{}", id(&task));
    server.put(&path).json(&json!({"priority": 1})).send().await.problem(409, "invalid_transition");
    server.delete(&path).send().await.problem(409, "invalid_transition");
    assert_eq!(stored(&server, &task).await, before, "refusals change nothing");
    // It is not over: who waits for its end waits on.
    let waited = server.get(&path).query(&[("wait_ms", "300")]).send().await.ok();
    assert_eq!(waited["status"], "hibernating");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_and_a_backoff_do_not_hinder_a_task() {
    let server = TestServer::start().await;
    let task =
        server.create(json!({"delay_seconds": 3600, "retry": {"base_seconds": 3600, "jitter": 0}})).await;
    set(&server, &task, doc! {"reason": "moonlight", "retry.backoff": "fibonacci"}).await;
    let seen = shown(&server, &task).await;
    assert_eq!((&seen["reason"], &seen["retry"]["backoff"]), (&json!("moonlight"), &json!("fibonacci")));
    set(&server, &task, doc! {"run_at": bson::DateTime::from_millis(1_000)}).await;
    pass_until_status(&server, &task, "pending").await;
    let held = claim_one(&server, &task, json!({})).await;
    let receipt = settle(&server, &held, "fail", json!({})).await.ok();
    assert_eq!(receipt["status"], "scheduled");
    assert_eq!(shown(&server, &task).await["retry"]["backoff"], "fibonacci", "it is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_of_unknown_kinds_are_shown_and_kept() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "release", json!({})).await.ok();
    set(&server, &task, doc! {"attempts.0.trigger": "auction", "attempts.0.status": "abducted"}).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "complete", json!({})).await.ok();
    let history = executions(&server, &task).await;
    assert_eq!((&history[1]["trigger"], &history[1]["status"]), (&json!("auction"), &json!("abducted")));
    assert_eq!(history[0]["status"], "completed");
}

/// A field that only a newer version knows.
fn newer() -> Bson {
    Bson::Document(doc! {"depth": [1, {"of": "it"}]})
}

/// Puts one into every part of a task that there is.
async fn enrich(server: &TestServer, task: &Value) {
    let before = stored(server, task).await;
    let mut fields = doc! {"newer": newer()};
    let parts = ["lease", "progress", "retry", "usage", "error", "cancel_receipt"];
    for part in parts.into_iter().filter(|part| before.get_document(part).is_ok()) {
        fields.insert(format!("{part}.newer"), newer());
    }
    for (place, attempt) in before.get_array("attempts").into_iter().flatten().enumerate() {
        fields.insert(format!("attempts.{place}.newer"), newer());
        let attempt = attempt.as_document().expect("an attempt");
        for part in
            ["receipt", "error", "usage"].into_iter().filter(|part| attempt.get_document(part).is_ok())
        {
            fields.insert(format!("attempts.{place}.{part}.newer"), newer());
        }
    }
    // Whoever writes leaves a stamp of its own, so that nobody goes on from what was read before.
    fields.insert("stamp", before.get_i64("stamp").expect("a stamp") ^ 0x5a5a_5a5a);
    set(server, task, fields).await;
}

/// Checks that what `before` knew is still there, wherever the part itself is.
fn assert_kept(before: &Document, after: &Document, verb: &str) {
    // Another failure of the task takes the place of the one before. That stays with its attempt.
    let is_replaced = |name: &str| name == "error" && before.contains_key("tenant");
    for (name, value) in before.iter().filter(|(name, _)| !is_replaced(name)) {
        let Some(now) = after.get(name) else { continue };
        match (value, now) {
            (Bson::Document(before), Bson::Document(after)) => assert_kept(before, after, verb),
            (Bson::Array(before), Bson::Array(after)) => {
                for (before, after) in before.iter().zip(after) {
                    if let (Bson::Document(before), Bson::Document(after)) = (before, after) {
                        assert_kept(before, after, verb);
                    }
                }
            }
            _ => {}
        }
    }
    if before.contains_key("newer") {
        assert_eq!(after.get("newer"), before.get("newer"), "{verb}: {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_are_kept_by_every_verb_at_every_depth() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 20, "retry": {"base_seconds": 3600}})).await;
    let mut held = Value::Null;
    for verb in [
        "edit",
        "claim",
        "heartbeat",
        "fail",
        "execute",
        "claim",
        "release",
        "claim",
        "lose",
        "claim",
        "heartbeat",
        "ask",
        "acknowledge",
        "execute",
        "begin",
        "end",
        "execute",
        "claim",
        "complete",
        "execute",
        "cancel",
        "delete",
    ] {
        enrich(&server, &task).await;
        let before = stored(&server, &task).await;
        match verb {
            "edit" => drop(
                server.put(&format!("/tasks/{}", id(&task))).json(&json!({"priority": 7})).send().await.ok(),
            ),
            "claim" => held = claim_one(&server, &task, json!({})).await,
            "heartbeat" => {
                drop(
                    settle(&server, &held, verb, json!({"progress": {"value": 0.25, "text": "x"}}))
                        .await
                        .ok(),
                );
            }
            "lose" => {
                set(&server, &task, doc! {"lease_until": bson::DateTime::from_millis(1_000)}).await;
                pass_until_status(&server, &task, "pending").await;
            }
            "ask" => drop(post(&server, &task, "cancel", json!({})).await.ok()),
            "acknowledge" => drop(settle(&server, &held, "cancel", json!({})).await.ok()),
            "begin" => drop(put_status(&server, &task, json!({"status": "processing"})).await.ok()),
            "end" => drop(put_status(&server, &task, json!({"status": "failed"})).await.ok()),
            "cancel" | "execute" => drop(post(&server, &task, verb, json!({})).await.ok()),
            "delete" => drop(server.delete(&format!("/tasks/{}", id(&task))).send().await),
            "fail" | "release" | "complete" => {
                let usage = if verb == "release" { json!({}) } else { json!({"usage": {"tokens_used": 1}}) };
                drop(settle(&server, &held, verb, usage).await.ok());
            }
            other => panic!("there is no verb {other}"),
        }
        assert_kept(&before, &stored(&server, &task).await, verb);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_listed_and_the_known_ones_count() {
    let server = TestServer::start().await;
    let issued = server.issue(&["worker"], json!({})).await;
    let keys = server.database().collection::<Document>("api_keys");
    let named = doc! {"_id": bson::Uuid::parse_str(issued["id"].as_str().unwrap()).unwrap()};
    let update = doc! {"$push": {"roles": "auditor"}, "$set": {"newer": newer(), "hashes.0.newer": newer()}};
    keys.update_one(named.clone(), update).await.expect("an answer");
    let listed = server.get("/keys").send().await.ok();
    assert_eq!(listed["keys"][0]["roles"], json!(["worker", "auditor"]));
    let secret = issued["key"].as_str().unwrap();
    let body = json!({"task_types": ["t"], "worker_id": "w"});
    server.post("/tasks/claim").key(secret).json(&body).send().await.ok();
    server.post("/tasks").key(secret).json(&json!({"task_type": "t"})).send().await.problem(403, "forbidden");
    // Only known ones can be given.
    let new = json!({"name": "n", "roles": ["worker", "auditor"]});
    server.post("/keys").json(&new).send().await.problem(422, "validation_failed");
    // A new secret leaves the old one's fields, and the key's, as they are.
    server
        .post(&format!("/keys/{}/rotate", issued["id"].as_str().unwrap()))
        .json(&json!({}))
        .send()
        .await
        .ok();
    let key = keys.find_one(named).await.expect("an answer").expect("the key");
    let old = key.get_array("hashes").expect("hashes")[0].as_document().expect("a hash").clone();
    assert_eq!((key.get("newer"), old.get("newer")), (Some(&newer()), Some(&newer())));
    assert_eq!(key.get_array("roles").expect("roles").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_of_the_installation_keep_what_they_hold() {
    let server = TestServer::start().await;
    let database = server.database();
    let registered =
        async || database.collection::<Document>("servers").find_one(doc! {}).await.expect("an answer");
    eventually("the server is registered", async || registered().await.is_some()).await;
    for (collection, name) in [
        ("installation", "schema"),
        ("installation", "changes"),
        ("job_leases", "tasks:retention"),
        ("tasks_pulse", "leases"),
    ] {
        let update = doc! {"$set": {"newer": newer()}};
        let documents = database.collection::<Document>(collection);
        documents.update_one(doc! {"_id": name}, update).upsert(true).await.expect("an answer");
    }
    let update = doc! {"$set": {"newer": newer(), "version": "9.9.9", "schema": "1.77"}};
    database.collection::<Document>("servers").insert_one(
        doc! {"_id": bson::Uuid::new(), "host": "elsewhere", "started_at": bson::DateTime::now(), "renewed_at": bson::DateTime::now()},
    ).await.expect("an answer");
    database
        .collection::<Document>("servers")
        .update_one(doc! {"host": "elsewhere"}, update)
        .await
        .expect("an answer");
    // All of them are written by what goes on.
    let other = server.sibling().await;
    server.issue(&["viewer"], json!({})).await;
    let task = server.create(json!({})).await;
    claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    pass_until_status(&server, &task, "pending").await;
    for (collection, name) in [
        ("installation", "schema"),
        ("installation", "changes"),
        ("job_leases", "tasks:retention"),
        ("tasks_pulse", "leases"),
    ] {
        let found = database.collection::<Document>(collection).find_one(doc! {"_id": name}).await;
        let found = found.expect("an answer").unwrap_or_else(|| panic!("{collection} has no {name}"));
        assert_eq!(found.get("newer"), Some(&newer()), "{collection}: {found}");
    }
    let health = other.get("/health/detailed").send().await.ok();
    let servers = health["servers"].as_array().expect("servers");
    assert!(
        servers.iter().any(|server| server["version"] == "9.9.9" && server["schema"] == "1.77"),
        "{health:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_newer_minor_version_is_taken_and_of_a_newer_major_one_is_not() {
    let server = TestServer::start().await;
    let database = server.database();
    let documents = database.collection::<Document>("installation");
    let schema =
        async || documents.find_one(doc! {"_id": "schema"}).await.expect("an answer").expect("a schema");
    let first = schema().await;
    let known = (SCHEMA.major, SCHEMA.minor);
    assert_eq!((first.get_i32("major").unwrap(), first.get_i32("minor").unwrap()), known);

    documents.update_one(doc! {"_id": "schema"}, doc! {"$set": {"minor": 7}}).await.expect("an answer");
    server.sibling().await.stop().await;
    assert_eq!(schema().await.get_i32("minor").unwrap(), 7, "a newer server's word is not taken back");

    documents
        .update_one(doc! {"_id": "schema"}, doc! {"$set": {"major": 2, "minor": 3}})
        .await
        .expect("an answer");
    let Err(error) =
        Server::start(Settings::for_tests(server.mongodb_uri(), database.name()), Arc::default()).await
    else {
        panic!("it starts on what it does not understand")
    };
    let error = error.to_string();
    assert!(["2.3", &SCHEMA.to_string(), "this server"].iter().all(|word| error.contains(*word)), "{error}");
    assert_eq!(schema().await.get_i32("major").unwrap(), 2, "and changes nothing");
}
