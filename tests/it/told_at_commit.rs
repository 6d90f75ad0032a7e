//! Moves are told where a write is known to be durable: once, with what the task was before, and whether the caller of the
//! write is still there or not.

use std::sync::{Arc, Mutex};

use bson::doc;
use chrono::{TimeDelta, Utc};
use task_repo_server::Settings;
use task_repo_server::access::Scope;
use task_repo_server::lifecycle::Intent;
use task_repo_server::store::{Change, Store, new_stamp};
use task_repo_server::task::{Kept, LimitsRecord, Status, TaskRecord};
use task_repo_tests::{TestDatabase, eventually};
use uuid::Uuid;

use crate::fail_point::FailPoint;

/// What was heard: the status before, the verbs, and the status after.
type Heard = Arc<Mutex<Vec<(Option<String>, Vec<&'static str>, String)>>>;

/// A store on a database that no server uses, so that all commands are its own; and what it tells.
async fn listening(database: &TestDatabase) -> (Store, Heard) {
    let settings = Settings::for_tests(database.uri(), database.name());
    let store = Store::connect(&settings.database, std::sync::Arc::default()).await.expect("a store");
    let heard = Heard::default();
    let ear = Arc::clone(&heard);
    store.hub().subscribe(move |event| {
        let verbs = event.moves.iter().map(|it| it.verb.as_str()).collect();
        let before = event.before.map(|status| status.to_string());
        ear.lock().unwrap().push((before, verbs, event.task.status.to_string()));
    });
    (store, heard)
}

/// A task due in an hour.
fn draft() -> Arc<TaskRecord> {
    let limits = LimitsRecord {
        max_attempts: 3,
        retry: Kept::default(),
        lease_seconds: 60,
        timeout_seconds: 300,
        retention_seconds: None,
    };
    let now = Utc::now();
    let mut task = TaskRecord::new(Uuid::now_v7(), "default".to_owned(), "t".to_owned(), now, limits);
    task.status = Status::Scheduled;
    task.run_at = Some(now + TimeDelta::hours(1));
    task.stamp = new_stamp();
    Arc::new(task)
}

fn change(task: &TaskRecord, intent: Intent) -> Vec<Change> {
    vec![Change { scope: Scope::tenant(&task.tenant), id: task.id, intent }]
}

fn cancelled() -> (Option<String>, Vec<&'static str>, String) {
    (Some("scheduled".to_owned()), vec!["cancel"], "cancelled".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_gone_takes_no_event_along() {
    let database = TestDatabase::create().await;
    let (store, heard) = listening(&database).await;
    let task = draft();
    for (command, expected) in
        [("insert", (None, vec!["create"], "scheduled".to_owned())), ("update", cancelled())]
    {
        let slow = doc! {"blockConnection": true, "blockTimeMS": 300};
        let slow = FailPoint::set_in(&database.handle(), "tasks", &[command], "alwaysOn", slow).await;
        let (store, task) = (store.clone(), Arc::clone(&task));
        let caller = tokio::spawn(async move {
            if command == "insert" {
                drop(store.insert(&[task], store.step_deadline()).await);
            } else {
                drop(store.apply(change(&task, Intent::Cancel), store.step_deadline()).await);
            }
        });
        slow.has_hit(1).await;
        caller.abort();
        assert!(caller.await.is_err_and(|error| error.is_cancelled()), "it left while the command ran");
        assert!(!heard.lock().unwrap().contains(&expected), "nothing is told before it is durable");
        slow.end().await;
        eventually("it is told", async || heard.lock().unwrap().contains(&expected)).await;
    }
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_no_answer_is_told_once() {
    let database = TestDatabase::create().await;
    let (store, heard) = listening(&database).await;
    let task = draft();
    store
        .insert(&[Arc::clone(&task)], store.step_deadline())
        .await
        .pop()
        .expect("a result")
        .expect("it is created");
    // It is applied, its answer says that nobody knows, and no majority has it yet: it is found durable a moment later.
    let unsure = doc! {"writeConcernError": {"code": 64, "errmsg": "nobody knows"}};
    let unsure = FailPoint::set_in(&database.handle(), "tasks", &["update"], doc! {"times": 1}, unsure).await;
    store
        .apply(change(&task, Intent::Cancel), store.step_deadline())
        .await
        .pop()
        .expect("a result")
        .expect("it is cancelled");
    assert_eq!(unsure.end().await, 1, "it was hit");
    eventually("it is told", async || heard.lock().unwrap().len() > 1).await;
    assert_eq!(heard.lock().unwrap()[1..], [cancelled()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_nothing_or_is_refused_is_not_told() {
    let database = TestDatabase::create().await;
    let (store, heard) = listening(&database).await;
    let task = draft();
    store
        .insert(&[Arc::clone(&task)], store.step_deadline())
        .await
        .pop()
        .expect("a result")
        .expect("it is created");
    store
        .insert(&[Arc::clone(&task)], store.step_deadline())
        .await
        .pop()
        .expect("a result")
        .expect_err("it is there already");
    for _ in 0..2 {
        store
            .apply(change(&task, Intent::Cancel), store.step_deadline())
            .await
            .pop()
            .expect("a result")
            .expect("the same answer");
    }
    store
        .apply(change(&task, Intent::Promote), store.step_deadline())
        .await
        .pop()
        .expect("a result")
        .expect_err("it is over");
    assert_eq!(heard.lock().unwrap()[1..], [cancelled()]);
}
