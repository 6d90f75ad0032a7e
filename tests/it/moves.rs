//! What a write leaves for whoever reads the database's change stream: each version of a task is told of once, with what
//! was done and where the task stood before, and its attempts know between which versions they ran.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType};
use serde_json::{Value, json};
use task_repo_server::Settings;
use task_repo_server::access::Scope;
use task_repo_server::lifecycle::{Grant, Intent};
use task_repo_server::store::{Change, Store};
use task_repo_tests::{TestServer, eventually};
use uuid::Uuid;

use crate::verbs::{claim, claim_one, create_many, id, pass_until_status, post, put_status, settle, tasks};

/// What was told of one task: version, verb, status before, fields.
type Told = Vec<(i64, String, Option<String>, Vec<String>)>;

/// Reads the change stream of all tasks until every task has been told of up to its version, and says what was told.
async fn told(server: &TestServer, work: impl Future<Output = ()>) -> HashMap<String, Told> {
    let collection = server.database().collection::<Document>("tasks");
    let mut stream = collection.watch().max_await_time(Duration::from_millis(50)).await.expect("a stream");
    work.await;
    let mut told: HashMap<String, Told> = HashMap::new();
    loop {
        while let Some(event) = stream.next_if_any().await.expect("an event") {
            note(&mut told, &event);
        }
        if is_all_told(server, &told).await {
            return told;
        }
    }
}

async fn is_all_told(server: &TestServer, told: &HashMap<String, Told>) -> bool {
    stored(server).await.iter().all(|task| {
        let version = task.get_i64("version").expect("a version");
        told.get(&task_id(task)).and_then(|told| told.last()).is_some_and(|(last, ..)| *last >= version)
    })
}

fn note(told: &mut HashMap<String, Told>, event: &ChangeStreamEvent<Document>) {
    let id = task_id(event.document_key.as_ref().expect("a key"));
    let changed = match event.operation_type {
        OperationType::Insert => event.full_document.as_ref().expect("a document"),
        OperationType::Update => &event.update_description.as_ref().expect("what changed").updated_fields,
        _ => return,
    };
    let known = told.entry(id).or_default();
    assert!(!changed.keys().any(|key| key.starts_with("moved.")), "it is told as a whole: {changed}");
    assert_eq!(
        changed.contains_key("version"),
        changed.contains_key("moved"),
        "one with the other: {changed}"
    );
    let Ok(moved) = changed.get_str("moved") else { return };
    let moved: Vec<Value> = serde_json::from_str(moved).expect("a list in JSON");
    let version = changed.get_i64("version").expect("a version");
    let at = changed.get_datetime("updated_at").map(|at| at.timestamp_millis());
    assert_eq!(moved.last().map(|last| &last[0]), Some(&json!(version)), "{changed}");
    for entry in moved {
        // Where one write makes several versions, only the last one's time is the task's.
        if entry[0] == version {
            assert_eq!(entry[1].as_i64(), at.as_ref().ok().copied(), "{changed}");
        }
        let text = |place: usize| entry[place].as_str().map(str::to_owned);
        let fields = entry[4].as_array().into_iter().flatten();
        let fields = fields.map(|field| field.as_str().expect("a name").to_owned()).collect();
        known.push((entry[0].as_i64().expect("a number"), text(2).expect("a verb"), text(3), fields));
    }
}

fn task_id(document: &Document) -> String {
    let Some(Bson::Binary(id)) = document.get("_id") else { panic!("an id is expected in {document}") };
    id.to_uuid().expect("a UUID").to_string()
}

async fn stored(server: &TestServer) -> Vec<Document> {
    use futures_util::TryStreamExt as _;
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find(doc! {}).await.expect("the tasks").try_collect().await.expect("the tasks")
}

/// The verbs of a task with the status before, in order of versions, each of which is there once.
fn verbs(told: &HashMap<String, Told>, task: &Value) -> Vec<String> {
    let mut told = told[id(task)].clone();
    told.sort();
    let first = told[0].0;
    let versions: Vec<_> = told.iter().map(|(version, ..)| *version).collect();
    assert_eq!(versions, (first..).take(told.len()).collect::<Vec<_>>(), "each version once: {told:?}");
    told.into_iter()
        .map(|(_, verb, from, _)| from.map_or(verb.clone(), |from| format!("{verb}/{from}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_a_task_is_told_once_with_verb_and_status_before() {
    let server = TestServer::start().await;
    let mut seen = Vec::new();
    let told = told(&server, async {
        let done = server.create(json!({})).await;
        let held = claim_one(&server, &done, json!({})).await;
        settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5}})).await.ok();
        settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5}})).await.ok();
        settle(&server, &held, "complete", json!({})).await.ok();
        post(&server, &done, "execute", json!({})).await.ok();
        seen.push((
            done,
            vec![
                "create",
                "claim/pending",
                "heartbeat/processing",
                "complete/processing",
                "execute/completed",
            ],
        ));

        let failed = server.create(json!({"delay_seconds": 3600})).await;
        server.put(&format!("/tasks/{}", id(&failed))).json(&json!({"run_at": null})).send().await.ok();
        let held = claim_one(&server, &failed, json!({})).await;
        settle(&server, &held, "fail", json!({"retry_after_seconds": 0})).await.ok();
        pass_until_status(&server, &failed, "pending").await;
        let held = claim_one(&server, &failed, json!({})).await;
        settle(&server, &held, "release", json!({})).await.ok();
        post(&server, &failed, "cancel", json!({})).await.ok();
        seen.push((
            failed,
            vec![
                "create",
                "edit/scheduled",
                "claim/pending",
                "fail/processing",
                "promote/scheduled",
                "claim/pending",
                "release/processing",
                "cancel/pending",
            ],
        ));

        let own = server.create(json!({})).await;
        put_status(&server, &own, json!({"status": "processing"})).await.ok();
        put_status(&server, &own, json!({"status": "completed"})).await.ok();
        server.delete(&format!("/tasks/{}", id(&own))).send().await;
        seen.push((own, vec!["create", "begin/pending", "end/processing", "delete/completed"]));

        let lost = server.create(json!({})).await;
        claim_one(&server, &lost, json!({"lease_seconds": 1})).await;
        pass_until_status(&server, &lost, "pending").await;
        let held = claim_one(&server, &lost, json!({})).await;
        post(&server, &lost, "cancel", json!({})).await.ok();
        settle(&server, &held, "cancel", json!({})).await.ok();
        seen.push((
            lost,
            vec![
                "create",
                "claim/pending",
                "expire/processing",
                "claim/pending",
                "cancel/processing",
                "acknowledge_cancel/processing",
            ],
        ));
    })
    .await;
    for (task, expected) in &seen {
        assert_eq!(verbs(&told, task), *expected);
    }
    let edits: Vec<_> = told.values().flatten().filter(|(_, verb, ..)| verb == "edit").collect();
    assert_eq!(edits.len(), 1);
    assert_eq!(edits[0].3, ["run_at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_share_a_statement_are_told_of_one_by_one() {
    let server = TestServer::start().await;
    let mut made = Vec::new();
    let told = told(&server, async {
        made = create_many(&server, 40, |_| json!({"task_type": "many"})).await;
        let held = claim(&server, "many", json!({"limit": 40})).await;
        // Results that differ, so that the statement merges into each task what is its own.
        let outcomes: Vec<_> = tasks(&held)
            .iter()
            .enumerate()
            .map(|(n, task)| json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": "completed", "result": n}))
            .collect();
        server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
    })
    .await;
    for task in &made {
        assert_eq!(verbs(&told, task), ["create", "claim/pending", "complete/processing"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_several_versions_tells_of_each() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let token = &held["lease"]["token"];
    let told = told(&server, async {
        let beats: Vec<_> = [0.1, 0.2, 0.3]
            .map(|value| json!({"id": id(&task), "lease_token": token, "progress": {"value": value}}))
            .to_vec();
        server.post("/tasks/heartbeat").json(&json!({"heartbeats": beats})).send().await.ok();
    })
    .await;
    assert_eq!(verbs(&told, &task), ["heartbeat/processing"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_created_as_claimed_is_told_of_as_created() {
    let server = TestServer::start().await;
    let body = json!({"task_types": ["handed"], "worker_id": "w1", "wait_ms": 10_000});
    let waiting = server.post("/tasks/claim").json(&body);
    let (mut task, mut is_handed) = (Value::Null, false);
    let told = told(&server, async {
        let (claimed, created) = tokio::join!(waiting.send(), async {
            eventually("somebody waits", async || {
                let metrics = server.get("/api/v1/metrics").send().await;
                metrics.text().contains("task_repo_waiting_claims 1")
            })
            .await;
            server.create(json!({"task_type": "handed"})).await
        });
        is_handed = tasks(&claimed.ok()).len() == 1;
        task = created;
    })
    .await;
    assert!(is_handed);
    assert_eq!(verbs(&told, &task), ["create"], "one insert, told of as a creation");
    let stored = &stored(&server).await[0];
    assert_eq!((stored.get_str("status").unwrap(), stored.get_i64("version").unwrap()), ("processing", 2));
}

/// The attempts of a task as they are stored: status, version at the start and at the end, where it led.
async fn attempts(server: &TestServer, task: &Value) -> Vec<(String, i64, Option<i64>, Option<String>)> {
    let stored =
        stored(server).await.into_iter().find(|stored| task_id(stored) == id(task)).expect("the task");
    let attempts = stored.get_array("attempts").expect("attempts").iter().filter_map(Bson::as_document);
    attempts
        .map(|attempt| {
            // A receipt says the same, so the attempt need not.
            let end = attempt.get_document("receipt").unwrap_or(attempt);
            (
                attempt.get_str("status").expect("a status").to_owned(),
                attempt.get_i64("started_version").expect("a version"),
                end.get_i64("version").or(attempt.get_i64("ended_version")).ok(),
                end.get_str("status")
                    .ok()
                    .filter(|_| end != attempt)
                    .or(attempt.get_str("led_to").ok())
                    .map(str::to_owned),
            )
        })
        .collect()
}

fn ran(status: &str, from: i64, to: i64, led_to: &str) -> (String, i64, Option<i64>, Option<String>) {
    (status.to_owned(), from, Some(to), Some(led_to.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_know_the_versions_of_their_start_and_end_however_they_end() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 9})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "fail", json!({"retry_after_seconds": 0})).await.ok();
    pass_until_status(&server, &task, "pending").await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "release", json!({})).await.ok();
    claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    pass_until_status(&server, &task, "pending").await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "complete", json!({})).await.ok();
    let expected = [
        ran("failed", 2, 3, "scheduled"),
        ran("released", 5, 6, "pending"),
        ran("lost", 7, 8, "pending"),
        ran("completed", 9, 10, "completed"),
    ];
    assert_eq!(attempts(&server, &task).await, expected);

    let late = server.create(json!({"timeout_seconds": 1, "max_attempts": 1})).await;
    claim_one(&server, &late, json!({})).await;
    pass_until_status(&server, &late, "failed").await;
    assert_eq!(attempts(&server, &late).await, [ran("timeout", 2, 3, "failed")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_completion_keeps_the_version_of_the_loss() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    pass_until_status(&server, &task, "pending").await;
    settle(&server, &held, "complete", json!({})).await.ok();
    assert_eq!(attempts(&server, &task).await, [ran("completed", 2, 4, "completed")]);
    let stored = stored(&server).await;
    let attempt = stored[0].get_array("attempts").unwrap()[0].as_document().unwrap().clone();
    assert_eq!(attempt.get_i64("lost_version").unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undone_claim_is_kept_for_its_versions_and_shown_to_nobody() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let settings = Settings::for_tests(server.mongodb_uri(), server.database().name());
    let store = Store::connect(&settings.database, std::sync::Arc::default()).await.expect("a store");
    let (scope, id) = (Scope::tenant("default"), Uuid::parse_str(id(&task)).expect("a UUID"));
    // As the service does for a caller who has gone by the time the claim is written.
    let token = Uuid::new_v4();
    let grant = Grant {
        token,
        execution_id: Uuid::now_v7(),
        worker_id: "gone".to_owned(),
        lease_seconds: None,
        claim_id: Some(vec![7]),
    };
    for intent in [Intent::Claim(grant), Intent::Withdraw { token }] {
        let change = Change { scope: scope.clone(), id, intent };
        store.apply(vec![change], store.step_deadline()).await.pop().expect("a result").expect("it is done");
    }
    assert_eq!(attempts(&server, &task).await, [ran("withdrawn", 2, 3, "pending")]);
    let shown = server.get(&format!("/tasks/{id}/executions")).send().await.ok();
    assert_eq!(shown["executions"], json!([]));
    let held = claim_one(&server, &task, json!({})).await;
    assert_eq!(held["attempt"], 1, "an undone claim counts for nothing");
    settle(&server, &held, "complete", json!({})).await.ok();
    let expected = [ran("withdrawn", 2, 3, "pending"), ran("completed", 4, 5, "completed")];
    assert_eq!(attempts(&server, &task).await, expected);
    let stored = stored(&server).await;
    assert!(!stored[0].contains_key("claim_ids"), "its claim id is not used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_keeps_when_it_became_ready_what_its_progress_belongs_to_and_how_often_it_was_given_back() {
    let server = TestServer::start().await;
    let field = async |name: &str| stored(&server).await[0].get(name).cloned();
    let task = server.create(json!({"delay_seconds": 3600})).await;
    assert_eq!(field("pending_at").await, None, "it has not been ready yet");
    post(&server, &task, "execute", json!({})).await.ok();
    let ready = field("pending_at").await;
    assert_eq!(ready, field("updated_at").await);
    for times in 1..=2 {
        let held = claim_one(&server, &task, json!({})).await;
        settle(&server, &held, "release", json!({})).await.ok();
        assert_eq!(field("releases").await, Some(Bson::Int64(times)), "in a row");
        assert_eq!(field("pending_at").await, field("updated_at").await);
    }
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5}})).await.ok();
    assert_eq!(field("progress_version").await, field("version").await);
    let at = field("progress_version").await;
    settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5}})).await.ok();
    assert_eq!(field("progress_version").await, at, "the same again is no change");
    settle(&server, &held, "fail", json!({"retry_after_seconds": 3600})).await.ok();
    assert_eq!(field("releases").await, None, "an attempt that ended otherwise ends the row");
}
