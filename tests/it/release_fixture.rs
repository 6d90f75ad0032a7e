//! The documents of a release, as its server left them: every later server reads them, works with them, and runs beside
//! that release.
//!
//! `cargo xtask fixture` writes those of the present version into `tests/fixtures/`. One that has been released stays as it
//! is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use task_repo_client::TaskClient;
use task_repo_tests::{API_KEY, TestDatabase, TestServer, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::later_release::share_the_load;
use crate::newer_values::set;
use crate::verbs::{claim, claim_one, executions, id, post, put_status, settle, token, until_status};

/// Set by the command that writes the fixture.
const WRITE: &str = "TASK_REPO_WRITE_FIXTURE";
/// The version whose documents are written.
const PRESENT: &str = env!("CARGO_PKG_VERSION");

/// What a server of a release left, and what its callers knew.
#[derive(serde::Serialize, serde::Deserialize)]
struct Fixture {
    /// The release.
    version: String,
    /// What callers knew: answers by what they are about.
    known: BTreeMap<String, Value>,
    /// All documents, by collection, in MongoDB's canonical extended JSON.
    collections: BTreeMap<String, Vec<Value>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Those of all releases.
fn fixtures() -> Vec<Fixture> {
    let files = std::fs::read_dir(folder()).expect("the folder of fixtures");
    let mut fixtures: Vec<Fixture> = files
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a fixture"))
        .map(|text| serde_json::from_str(&text).expect("a fixture"))
        .collect();
    fixtures.sort_by(|a, b| a.version.cmp(&b.version));
    assert!(!fixtures.is_empty(), "cargo xtask fixture writes one");
    fixtures
}

/// Tasks that have come to every kind of state by every kind of way.
async fn make_of_every_kind(server: &TestServer) -> BTreeMap<String, Value> {
    let mut known = BTreeMap::new();
    // For ever, so that the fixture can be read at any time.
    let base = json!({"retention_seconds": null});
    let with = |more: Value| crate::verbs::with(base.clone(), more);
    let all = json!({
        "task_type": "all", "user_id": "ann", "name": "a name", "description": "what it is", "priority": "high",
        "request": {"b": 1, "a": [12_345_678_901_234_567_890_u64, {"$set": "x.y"}]},
        "template": {"service_type": "GENERATIVE", "parameters": {"model": "m"}},
        "metadata": {"k": "v"}, "tags": {"colour": "red", "size": ""}, "max_attempts": 7, "lease_seconds": 61,
        "timeout_seconds": 301, "due_date": "2030-01-01T00:00:00.000Z", "reminder_time": "2029-12-31T00:00:00.000Z",
        "retry": {"backoff": "linear", "base_seconds": 3, "cap_seconds": 9, "jitter": 0.5}, "run_at": "2020-01-01T00:00:00Z",
    });
    let key = json!({"task_type": "keyed", "retention_seconds": null});
    let keyed =
        server.post("/tasks").header("Idempotency-Key", "of-the-fixture").json(&key).send().await.ok();
    known.insert("pending".into(), server.create(with(json!({}))).await);
    known.insert("pending-with-everything".into(), server.create(with(all)).await);
    known.insert("keyed".into(), keyed);
    let delayed = server.create(with(json!({"delay_seconds": 3600}))).await;
    // No caller may put a task off for so long, and a fixture has to stay as it is for years.
    let far = bson::DateTime::from_millis(4_070_908_800_000);
    set(server, &delayed, doc! {"run_at": far, "ready_at": far}).await;
    known.insert("delayed".into(), server.task(id(&delayed)).await);

    let retrying =
        server.create(with(json!({"retry": {"base_seconds": 86_400, "cap_seconds": 86_400}}))).await;
    let held = claim_one(server, &retrying, json!({})).await;
    let usage = json!({"usage": {"credits_consumed": 0.5, "tokens_used": 3, "api_calls_made": 1}});
    let error = json!({"error": {"message": "broke", "code": "e", "details": {"at": [1]}}});
    settle(server, &held, "fail", crate::verbs::with(usage.clone(), error)).await.ok();
    known.insert("retrying".into(), retrying);

    let leased = server.create(with(json!({"task_type": "leased", "timeout_seconds": 604_800}))).await;
    let body = json!({"lease_seconds": 86_400, "claim_id": "0198f2c4-0000-7000-8000-000000000001"});
    let answer = claim(server, "leased", body).await;
    let held = answer["tasks"][0].clone();
    assert_eq!(id(&held), id(&leased));
    settle(server, &held, "heartbeat", json!({"progress": {"value": 0.5, "text": "half"}})).await.ok();
    post(server, &leased, "cancel", json!({})).await.ok();
    known.insert("leased".into(), held);

    let own = server.create(with(json!({"timeout_seconds": 604_800}))).await;
    put_status(server, &own, json!({"status": "processing"})).await.ok();
    known.insert("self-managed".into(), own);

    let done = server.create(with(json!({"max_attempts": 9}))).await;
    for verb in ["fail", "release", "lose", "complete"] {
        let lease = if verb == "lose" { json!({"lease_seconds": 1}) } else { json!({}) };
        let held = claim_one(server, &done, lease).await;
        match verb {
            "fail" => {
                settle(server, &held, verb, json!({"retry_after_seconds": 0})).await.ok();
                until_status(server, &done, "pending").await;
            }
            "release" => drop(settle(server, &held, verb, json!({})).await.ok()),
            "lose" => drop(until_status(server, &done, "pending").await),
            _ => {
                let result = json!({"result": {"x": 1}, "result_id": "r-1"});
                settle(server, &held, verb, crate::verbs::with(usage.clone(), result)).await.ok();
                known.insert("completed".into(), held);
            }
        }
    }

    let lost = server.create(with(json!({"task_type": "lost"}))).await;
    let held = claim_one(server, &lost, json!({"lease_seconds": 1})).await;
    until_status(server, &lost, "pending").await;
    known.insert("lost-once".into(), held);

    for (name, fields, retry) in
        [("failed-error", json!({}), "never"), ("failed-exhausted", json!({"max_attempts": 1}), "auto")]
    {
        let task = server.create(with(fields)).await;
        let held = claim_one(server, &task, json!({})).await;
        settle(server, &held, "fail", json!({"retry": retry})).await.ok();
        known.insert(name.into(), task);
    }
    for (name, fields, lease) in [
        ("failed-lost", json!({"max_attempts": 1}), json!({"lease_seconds": 1})),
        ("failed-timeout", json!({"max_attempts": 1, "timeout_seconds": 1}), json!({})),
    ] {
        let task = server.create(with(fields)).await;
        claim_one(server, &task, lease).await;
        until_status(server, &task, "failed").await;
        known.insert(name.into(), task);
    }
    let cancelled = server.create(with(json!({}))).await;
    post(server, &cancelled, "cancel", json!({})).await.ok();
    known.insert("cancelled".into(), cancelled);
    let deleted = server.create(with(json!({}))).await;
    server.delete(&format!("/tasks/{}", id(&deleted))).send().await;
    known.insert("deleted".into(), deleted);
    let goes = server.create(json!({"retention_seconds": 31_536_000})).await;
    post(server, &goes, "cancel", json!({})).await.ok();
    known.insert("to-be-removed".into(), goes);

    let issued =
        server.issue(&["producer", "worker", "viewer"], json!({"task_types": ["all", "keyed"]})).await;
    let rotate = json!({"overlap_seconds": 31_536_000});
    let path = format!("/keys/{}/rotate", issued["id"].as_str().expect("an id"));
    let rotated = server.post(&path).json(&rotate).send().await.ok();
    server.get("/tasks").key(rotated["key"].as_str().expect("a key")).send().await.ok();
    known.insert("key".into(), rotated);
    known
}

async fn collections(server: &TestServer) -> Vec<String> {
    let mut names = server.database().list_collection_names().await.expect("their names");
    names.retain(|name| !name.starts_with("system."));
    names.sort();
    names
}

/// Writes the fixture of the present version, where it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_of_this_version_are_written_when_asked_for() {
    if std::env::var_os(WRITE).is_none() {
        return;
    }
    let server = TestServer::start().await;
    let known = make_of_every_kind(&server).await;
    let mut stored = BTreeMap::new();
    let expected = [
        "api_keys",
        "installation",
        "job_leases",
        "servers",
        "tasks",
        "tasks_checkpoints",
        "tasks_logs",
        "tasks_pulse",
    ];
    eventually("all collections are there", async || collections(&server).await == expected).await;
    for name in expected {
        let found = server.database().collection::<Document>(name).find(doc! {}).await.expect("an answer");
        let documents: Vec<Document> = found.sort_documents().await;
        stored.insert(name.to_owned(), documents.into_iter().map(anonymous).map(extended).collect());
    }
    let fixture = Fixture { version: PRESENT.to_owned(), known, collections: stored };
    let text = serde_json::to_string_pretty(&fixture).expect("JSON") + "\n";
    std::fs::create_dir_all(folder()).expect("the folder of fixtures");
    std::fs::write(folder().join(format!("{PRESENT}.json")), text).expect("it can be written");
}

/// Documents of a cursor, in the order of their ids.
trait Sorted {
    async fn sort_documents(self) -> Vec<Document>;
}

impl Sorted for mongodb::Cursor<Document> {
    async fn sort_documents(self) -> Vec<Document> {
        let mut documents: Vec<Document> = self.try_collect().await.expect("documents");
        documents.sort_by_key(|document| document.get("_id").map(ToString::to_string));
        documents
    }
}

/// Without the name of the machine it was made on.
fn anonymous(mut document: Document) -> Document {
    if document.contains_key("host") {
        document.insert("host", "example");
    }
    document
}

fn extended(document: Document) -> Value {
    Bson::Document(document).into_canonical_extjson()
}

/// A server on a database that holds the documents of a release.
async fn server_on(fixture: &Fixture) -> TestServer {
    let database = TestDatabase::create().await;
    for (name, documents) in &fixture.collections {
        let documents: Vec<Document> = documents
            .iter()
            .map(|document| Bson::try_from(document.clone()).expect("extended JSON"))
            .map(|document| document.as_document().expect("a document").clone())
            .collect();
        if !documents.is_empty() {
            let collection = database.handle().collection::<Document>(name);
            collection.insert_many(documents).await.expect("they can be written");
        }
    }
    TestServer::start_in(database).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_every_release_are_read_and_worked_on() {
    for fixture in fixtures() {
        let server = server_on(&fixture).await;
        let known = |name: &str| &fixture.known[name];
        let version = &fixture.version;
        let status = async |name: &str| {
            let answer = server.get(&format!("/tasks/{}", id(known(name)))).send().await;
            if answer.status == 404 { json!("gone") } else { answer.ok()["status"].clone() }
        };
        for (name, expected) in [
            ("pending", "pending"),
            ("pending-with-everything", "pending"),
            ("keyed", "pending"),
            ("delayed", "scheduled"),
            ("completed", "completed"),
            ("lost-once", "pending"),
            ("failed-error", "failed"),
            ("failed-exhausted", "failed"),
            ("failed-lost", "failed"),
            ("failed-timeout", "failed"),
            ("cancelled", "cancelled"),
            ("deleted", "gone"),
        ] {
            assert_eq!(status(name).await, expected, "{version}: {name}");
        }
        // What a create answered then is what is shown now, to its last member.
        let shown = server.get(&format!("/tasks/{}", id(known("pending-with-everything")))).send().await.ok();
        for (member, value) in known("pending-with-everything").as_object().expect("a task") {
            assert_eq!(&shown[member], value, "{version}: {member}");
        }
        let again = json!({"task_type": "keyed", "retention_seconds": null});
        let again =
            server.post("/tasks").header("Idempotency-Key", "of-the-fixture").json(&again).send().await;
        // A key is remembered for a day.
        assert!([201, 422].contains(&again.status), "{version}: {again:?}");
        let history = executions(&server, known("completed")).await;
        let ends: Vec<_> =
            history.iter().map(|attempt| attempt["status"].as_str().expect("a word")).collect();
        assert_eq!(ends, ["completed", "lost", "released", "failed"], "{version}");
        let result = server.get("/tasks/by-result/r-1").send().await.ok();
        assert_eq!(result["result"], json!({"x": 1}), "{version}");

        // A settlement that was made then is answered as it was then.
        let repeat = settle(&server, known("completed"), "complete", json!({})).await.ok();
        assert_eq!(repeat["status"], "completed", "{version}");
        settle(&server, known("lost-once"), "complete", json!({})).await.ok();
        assert_eq!(status("lost-once").await, "completed", "{version}: finished work counts");
        let held = claim_one(&server, known("pending"), json!({})).await;
        settle(&server, &held, "complete", json!({})).await.ok();
        for name in ["completed", "failed-lost", "cancelled", "delayed", "retrying"] {
            // What waited for its backoff then is ready a day later.
            if status(name).await != "pending" {
                post(&server, known(name), "execute", json!({})).await.ok();
            }
            let held = claim_one(&server, known(name), json!({})).await;
            settle(&server, &held, "complete", json!({})).await.ok();
            assert_eq!(status(name).await, "completed", "{version}: {name}");
        }
        // Its attempt may take a week, the longest there is.
        let own = put_status(&server, known("self-managed"), json!({"status": "completed"})).await;
        if own.status != 200 {
            until_status(&server, known("self-managed"), "failed").await;
        }
        // Its worker may still be there: a lease outlasts the time without a server.
        let held = known("leased");
        let beat = settle(&server, held, "heartbeat", json!({})).await;
        if beat.status == 200 {
            settle(&server, held, "cancel", json!({})).await.ok();
        } else {
            until_status(&server, held, "cancelled").await;
        }
        assert!(!token(held).is_empty());
        let key = known("key")["key"].as_str().expect("a key");
        let page = server.get("/tasks").key(key).query(&[("status", "any")]).send().await.ok();
        assert!(!page["tasks"].as_array().expect("tasks").is_empty(), "{version}: the key sees its types");
        let health = server.get("/health/detailed").send().await.ok();
        assert_eq!(health["unreadable"]["count"], 0, "{version}: {health:#}");
    }
}

/// The programs of releases that are to be had here: those that `RELEASED_SERVERS` names, parted by `:`. `cargo xtask test`
/// names those in the archives that `cargo xtask release` has made.
fn released_servers() -> Vec<PathBuf> {
    let named = std::env::var_os("RELEASED_SERVERS").unwrap_or_default();
    std::env::split_paths(&named).filter(|path| path.is_file()).collect()
}

/// A released server as a process of its own.
struct Released {
    url: String,
    _process: tokio::process::Child,
}

impl Released {
    async fn start(program: &Path, server: &TestServer) -> Self {
        let mut process = tokio::process::Command::new(program)
            .env_clear()
            .env("MONGODB_URI", server.mongodb_uri())
            .env("MONGODB_DATABASE", server.database().name())
            .env("API_KEY", API_KEY)
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let url = loop {
            let line = lines.next_line().await.expect("its output").expect("it listens");
            if let Some((_, addr)) = line.split_once("addr=") {
                break format!("http://{}", addr.split_whitespace().next().expect("an address"));
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url, _process: process }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_every_release_that_is_to_be_had_run_beside_this_one() {
    for program in released_servers() {
        let server = TestServer::start().await;
        let released = Released::start(&program, &server).await;
        let client = TaskClient::new(&released.url, API_KEY).expect("a client");
        share_the_load(&server, server.client(), client).await;
    }
}
