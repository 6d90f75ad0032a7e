//! Tasks that are created as claimed, because somebody waits for just such a one.

use bson::doc;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, unique_type};

use crate::fail_point::FailPoint;
use crate::verbs::{claim, executions, id, settle, shown, tasks};

/// Long enough for whatever a test does meanwhile.
const WAIT_MS: u64 = 20_000;

/// A worker that waits, and a task that is created for it: both answers.
async fn meet(server: &TestServer, queue: &str, wait_ms: u64) -> (HttpAnswer, HttpAnswer) {
    let body = json!({"task_types": [queue], "worker_id": "w", "wait_ms": wait_ms});
    tokio::join!(server.post("/tasks/claim").json(&body).send(), async {
        server.until_claims_wait(queue, 1).await;
        server.post("/tasks").json(&json!({"task_type": queue, "request": {"n": 1}})).send().await
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_for_a_waiting_worker_needs_no_second_write() {
    let server = TestServer::start().await;
    let fault = FailPoint::set(&server, "update", "alwaysOn", doc! { "closeConnection": true }).await;
    // A worker that has only just arrived may be served the long way, which is broken here.
    let mut met = None;
    for _ in 0..20 {
        let (claimed, created) = meet(&server, &unique_type(), WAIT_MS).await;
        if claimed.status == 200 {
            met = Some((claimed.ok(), created.json()));
            break;
        }
    }
    fault.end().await;
    let (claimed, created) = met.expect("a task that went straight to the worker");
    let held = &tasks(&claimed)[0];
    assert_eq!(
        (id(held), &held["status"], &held["attempt"]),
        (id(&created), &json!("processing"), &json!(1))
    );
    assert_eq!(
        (&created["status"], &created["attempt"], &created["version"]),
        (&json!("pending"), &json!(0), &json!(1))
    );
    assert_eq!((&held["request"], &held["version"]), (&json!({"n": 1}), &json!(2)));
    assert_eq!(shown(&server, held).await["lease"]["worker_id"], "w");
    settle(&server, held, "complete", json!({"result": 5})).await.ok();
    let attempts = executions(&server, held).await;
    assert_eq!((attempts.len(), &attempts[0]["status"]), (1, &json!("completed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_create_gives_a_waiting_worker_nothing() {
    let server = &TestServer::start().await;
    let queue = &unique_type();
    let create = async || {
        let body = json!({"task_type": queue});
        server.post("/tasks").header("Idempotency-Key", "k").json(&body).send().await.json()
    };
    let first = create().await;
    let held = server.claim(queue).await;
    assert_eq!(id(&held), id(&first));
    let other = async {
        server.until_claims_wait(queue, 1).await;
        assert_eq!(create().await, first, "the answer of the first call");
        server.create(json!({"task_type": queue, "name": "new"})).await
    };
    let (claimed, new) = tokio::join!(claim(server, queue, json!({"wait_ms": WAIT_MS, "limit": 5})), other);
    assert_eq!(tasks(&claimed).iter().map(id).collect::<Vec<_>>(), [id(&new)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_could_not_be_created_leaves_the_worker_waiting() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let refused = doc! { "errorCode": 11_601, "failInternalCommands": true };
    let fault = FailPoint::set(&server, "insert", "alwaysOn", refused).await;
    let worker = claim(&server, &queue, json!({"wait_ms": WAIT_MS}));
    let (claimed, created) = tokio::join!(worker, async {
        server.until_claims_wait(&queue, 1).await;
        let answer = server.post("/tasks").json(&json!({"task_type": queue})).send().await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(fault.end().await > 0);
        server.create(json!({"task_type": queue})).await
    });
    let held: Vec<&Value> = tasks(&claimed).iter().collect();
    // Whichever of the two it is: the first may have been created after all.
    assert_eq!(held.len(), 1);
    settle(&server, held[0], "complete", json!({})).await.ok();
    assert_eq!(created["status"], "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_task_does_not_overtake_one_that_came_back_to_an_empty_queue() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let first = server.create(json!({"task_type": queue, "priority": 60})).await;
    let held = claim(&server, &queue, json!({})).await;
    assert_eq!(tasks(&claim(&server, &queue, json!({})).await).len(), 0, "the queue is known to be empty");
    settle(&server, &tasks(&held)[0], "complete", json!({})).await.ok();
    server.post(&format!("/tasks/{}/execute", id(&first))).send().await.success();
    server.create(json!({"task_type": queue, "priority": 10})).await;
    let next = claim(&server, &queue, json!({})).await;
    assert_eq!(id(&tasks(&next)[0]), id(&first));
}
