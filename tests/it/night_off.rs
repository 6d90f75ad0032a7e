//! A start after a time in which no server ran: the log says what it means, and no more loudly than it is worth.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use task_repo_tests::{TestDatabase, eventually};

use crate::program::Program;

const KEY: &str = "a-key";
/// How long no server ran.
const NIGHT: Duration = Duration::from_secs(8 * 3600 + 53 * 60 + 20);

/// Sets the renewal record back, as if no server had run since.
async fn a_night_passes(database: &TestDatabase) {
    let records = database.handle().collection::<Document>("tasks_pulse");
    let evening = DateTime::now().timestamp_millis() - i64::try_from(NIGHT.as_millis()).unwrap();
    let back = doc! { "$set": { "seen_at": DateTime::from_millis(evening) } };
    let changed = records.update_one(doc! {}, back).await.unwrap();
    assert_eq!(changed.matched_count, 1);
}

async fn start(database: &TestDatabase) -> Program {
    Program::start_with(database, KEY, &[("LOG_LEVEL", "info")]).await
}

async fn call(program: &Program, path: &str, body: &Value) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1{path}", program.url);
    let call = if body.is_null() {
        http.get(url)
    } else {
        http.post(url).header("content-type", "application/json")
    };
    let answer = call.bearer_auth(KEY).body(body.to_string()).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// What a start tells of heartbeats.
async fn told_at_start(database: &TestDatabase) -> Vec<String> {
    let program = start(database).await;
    // It looks in the first round of this job.
    eventually("the sweeper has had a round", async || {
        let health = call(&program, "/health/detailed", &Value::Null).await;
        health["background"]["sweeper"]["status"] == "healthy"
    })
    .await;
    program.log().lines().filter(|line| line.contains("heartbeat")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_off_is_told_once_and_in_words() {
    let database = TestDatabase::create().await;
    assert_eq!(told_at_start(&database).await, Vec::<String>::new(), "nothing is new on a new database");
    a_night_passes(&database).await;
    let told = told_at_start(&database).await;
    let [line] = &told[..] else { panic!("once: {told:?}") };
    assert!(
        line.contains("INFO") && line.contains("8 h 53 min") && line.contains("No task was leased"),
        "{line}"
    );
    assert_eq!(told_at_start(&database).await, Vec::<String>::new(), "the next start does not tell it again");
    let program = start(&database).await;
    call(&program, "/tasks", &json!({"task_type": "t"})).await;
    let claim = json!({"task_types": ["t"], "worker_id": "w", "lease_seconds": 3600});
    assert_eq!(call(&program, "/tasks/claim", &claim).await["tasks"].as_array().map(Vec::len), Some(1));
    drop(program);
    a_night_passes(&database).await;
    let told = told_at_start(&database).await;
    let [line] = &told[..] else { panic!("once: {told:?}") };
    assert!(
        line.contains("WARN") && line.contains("8 h 53 min") && line.contains("Nothing has to be done"),
        "{line}"
    );
}
