//! A claim that was undone for a caller that had gone: the task is as if there had been none.

use serde_json::{Value, json};
use task_repo_server::Settings;
use task_repo_server::access::Scope;
use task_repo_server::lifecycle::{Grant, Intent};
use task_repo_server::store::{Change, Store};
use task_repo_tests::TestServer;
use uuid::Uuid;

use crate::lease_ended::run_out;
use crate::verbs::{claim_one, executions, id, post, settle, shown, until_status};

/// Claims the task and undoes that, as a server does for a caller that has gone by the time the claim is written.
async fn claim_and_undo(server: &TestServer, task: &Value) {
    let settings = Settings::for_tests(server.mongodb_uri(), server.database().name());
    let store = Store::connect(&settings.database, std::sync::Arc::default()).await.expect("a store");
    let (scope, id) = (Scope::tenant("default"), Uuid::parse_str(id(task)).expect("a UUID"));
    let token = Uuid::new_v4();
    let (execution_id, worker_id) = (Uuid::now_v7(), "gone".to_owned());
    let grant = Grant { token, execution_id, worker_id, lease_seconds: None, claim_id: Some(vec![7]) };
    for intent in [Intent::Claim(grant), Intent::Withdraw { token }] {
        let change = Change { scope: scope.clone(), id, intent };
        store.apply(vec![change], store.step_deadline()).await.pop().expect("a result").expect("it is done");
    }
}

/// Checks that a claim and its undoing change nothing that anybody sees but the version.
async fn assert_leaves_nothing(server: &TestServer, task: &Value) {
    let (before, attempts) = (shown(server, task).await, executions(server, task).await);
    assert_eq!(before["status"], "pending");
    claim_and_undo(server, task).await;
    let mut after = shown(server, task).await;
    assert_eq!(after["version"].as_u64(), before["version"].as_u64().map(|version| version + 2));
    for changed in ["version", "updated_at"] {
        after[changed] = before[changed].clone();
    }
    assert_eq!(after, before);
    assert_eq!(executions(server, task).await, attempts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_comes_late_is_accepted_all_the_same() {
    let server = TestServer::start().await;
    let task = server.create(json!({"lease_seconds": 200})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "heartbeat", json!({"progress": {"value": 0.5, "text": "half"}})).await.ok();
    run_out(&server, &held, false).await;
    let back = until_status(&server, &task, "pending").await;
    assert_eq!(back["progress"], json!({"value": 0.5, "text": "half"}));
    assert_leaves_nothing(&server, &task).await;
    assert_leaves_nothing(&server, &task).await;
    let receipt = settle(&server, &held, "complete", json!({"result": "late"})).await.ok();
    assert_eq!(receipt["status"], "completed");
    assert_eq!(executions(&server, &task).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_executed_anew_is_still_to_be() {
    let server = TestServer::start().await;
    let task = server.create_in("failed", json!({})).await;
    post(&server, &task, "execute", json!({})).await.ok();
    assert_leaves_nothing(&server, &task).await;
    claim_one(&server, &task, json!({})).await;
    assert_eq!(executions(&server, &task).await[0]["trigger"], "manual");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_is_forgotten_for_it() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    for _ in 0..100 {
        let held = claim_one(&server, &task, json!({})).await;
        settle(&server, &held, "release", json!({"delay_seconds": 0})).await.ok();
    }
    assert_eq!(executions(&server, &task).await.len(), 100);
    assert_leaves_nothing(&server, &task).await;
    let held = claim_one(&server, &task, json!({})).await;
    let now = executions(&server, &task).await;
    assert_eq!((now.len(), &now[0]["status"]), (100, &json!("processing")), "the latest 100");
    settle(&server, &held, "complete", json!({})).await.ok();
    assert_eq!(executions(&server, &task).await.len(), 100);
}
