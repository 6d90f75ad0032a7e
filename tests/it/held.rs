//! Tasks that are held for another reason than time: the wire calls them scheduled, and no loop, claim or list of ready work
//! looks at them.

use bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_tests::TestServer;

use crate::profiler;
use crate::verbs::{claim, id, ids, pass_until_status, post, put_status, shown, tasks};

/// A task that a later part of the service holds.
async fn hold(server: &TestServer, fields: Value) -> Value {
    let task = server.create(fields).await;
    let held =
        doc! {"$set": {"status": "held", "reason": "external", "run_at": bson::DateTime::from_millis(1_000)}};
    let key = bson::Uuid::parse_str(id(&task)).expect("a UUID");
    let tasks = server.database().collection::<Document>("tasks");
    tasks.update_one(doc! {"_id": key}, held).await.expect("an answer");
    task
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_scheduled_on_the_wire_and_given_to_nobody() {
    let server = TestServer::start().await;
    let task = hold(&server, json!({"task_type": "h", "user_id": "ann", "tags": {"a": "b"}})).await;
    let seen = shown(&server, &task).await;
    assert_eq!((&seen["status"], &seen["reason"]), (&json!("scheduled"), &json!("external")));
    for filter in [
        vec![("status", "scheduled")],
        vec![("status", "any")],
        vec![("status", "scheduled"), ("user_id", "ann")],
    ] {
        assert_eq!(ids(&server.get("/tasks").query(&filter).send().await.ok()), [id(&task)], "{filter:?}");
    }
    assert!(tasks(&server.get("/tasks").send().await.ok()).is_empty(), "it is not ready");
    for more in [json!({}), json!({"tags": {"a": "b"}}), json!({"wait_ms": 300})] {
        assert!(tasks(&claim(&server, "h", more).await).is_empty());
    }
    for (verb, body, code) in [
        ("claim", json!({"worker_id": "w"}), "task_not_claimable"),
        ("execute", json!({}), "invalid_transition"),
    ] {
        let problem = post(&server, &task, verb, body).await.problem(409, code);
        assert_eq!(problem["current_status"], "scheduled");
    }
    put_status(&server, &task, json!({"status": "processing"})).await.problem(409, "invalid_transition");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_loop_looks_at_it() {
    let server = TestServer::start().await;
    let held = hold(&server, json!({})).await;
    profiler::start(&server).await;
    // The promoter, which looks for what is due, has come by.
    let due = server.create(json!({"delay_seconds": 1})).await;
    pass_until_status(&server, &due, "pending").await;
    for look in profiler::stop(&server).await {
        let command = look.get_document("command").map(ToString::to_string).unwrap_or_default();
        let is_look = command.contains("run_at") || command.contains("lease_until");
        if is_look && look.get_str("op").is_ok_and(|op| op == "query") {
            assert!(look.get_i32("docsExamined").unwrap_or_default() <= 1, "{command}");
        }
    }
    assert_eq!(shown(&server, &held).await["status"], "scheduled", "its time has come and it stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_owner_may_edit_cancel_and_delete_it() {
    let server = TestServer::start().await;
    let [edited, cancelled, deleted] =
        [hold(&server, json!({})).await, hold(&server, json!({})).await, hold(&server, json!({})).await];
    let edit = json!({"priority": 9, "run_at": null});
    let answer = server.put(&format!("/tasks/{}", id(&edited))).json(&edit).send().await.ok();
    assert_eq!(
        (&answer["status"], &answer["priority"]),
        (&json!("scheduled"), &json!(9)),
        "an edit does not let it go"
    );
    assert_eq!(post(&server, &cancelled, "cancel", json!({})).await.ok()["status"], "cancelled");
    assert_eq!(server.delete(&format!("/tasks/{}", id(&deleted))).send().await.status, 204);
    server.get(&format!("/tasks/{}", id(&deleted))).send().await.problem(404, "task_not_found");
}
