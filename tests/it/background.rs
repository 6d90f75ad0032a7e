//! What time alone does: scheduled tasks become ready at their moment, neither before nor by chance.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, unique_type};

use crate::verbs::{claim, create_many, id, ids, pass_until_status, post, queue, shown, tasks, time, until};

/// A time so many milliseconds from now, by the server's clock.
fn in_ms(server: &TestServer, milliseconds: i64) -> DateTime<Utc> {
    (server.now() + TimeDelta::milliseconds(milliseconds)).trunc_subsecs(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_task_becomes_ready_at_its_time() {
    let server = TestServer::start().await;
    let run_at = in_ms(&server, 2000);
    let task = server.create(json!({"run_at": run_at})).await;
    assert_eq!((&task["status"], &task["reason"]), (&json!("scheduled"), &json!("delayed")));
    assert_eq!(time(&task["run_at"]), run_at);

    let ready = pass_until_status(&server, &task, "pending").await;
    assert!(time(&ready["updated_at"]) >= run_at, "not before its time: {ready}");
    assert_eq!((&ready["reason"], &ready["attempt"]), (&Value::Null, &json!(0)));
    assert_eq!(ready["version"].as_u64(), task["version"].as_u64().map(|version| version + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_claims_get_scheduled_tasks_at_their_time() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let run_at = in_ms(&server, 3000);
    let created =
        create_many(&server, 60, |n| json!({"task_type": queue, "run_at": run_at, "priority": n})).await;
    assert!(created.iter().all(|task| task["status"] == "scheduled"));
    assert_eq!(tasks(&claim(&server, &queue, json!({"limit": 100})).await).len(), 0, "it is too early");

    let mut given = Vec::new();
    until("all have come", async || {
        let claimed =
            server.while_time_passes(claim(&server, &queue, json!({"limit": 100, "wait_ms": 10_000}))).await;
        given.extend(tasks(&claimed).clone());
        (given.len() == 60).then_some(())
    })
    .await;
    for task in &given {
        assert!(time(&task["started_at"]) >= run_at, "not before its time: {task}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_run_at_moves_a_task_between_now_and_later() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let edit = async |run_at: Value| {
        let one = format!("/tasks/{}", id(&task));
        server.put(&one).json(&json!({"run_at": run_at})).send().await.ok()
    };
    let later = in_ms(&server, 3_600_000);
    let put_off = edit(json!(later)).await;
    assert_eq!((&put_off["status"], &put_off["reason"]), (&json!("scheduled"), &json!("delayed")));
    assert_eq!(time(&put_off["run_at"]), later);
    assert_eq!(tasks(&claim(&server, queue(&task), json!({})).await).len(), 0);

    let now = edit(Value::Null).await;
    assert_eq!((&now["status"], &now["reason"]), (&json!("pending"), &Value::Null));

    // Sooner than first planned: the new time holds.
    edit(json!(later)).await;
    let soon = in_ms(&server, 2000);
    assert_eq!(edit(json!(soon)).await["status"], "scheduled");
    let claimed = server.while_time_passes(claim(&server, queue(&task), json!({"wait_ms": 20_000}))).await;
    assert_eq!(ids(&claimed), [id(&task)]);
    assert!(time(&tasks(&claimed)[0]["started_at"]) >= soon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_left_the_schedule_is_not_brought_back_by_it() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let soon = in_ms(&server, 3000);
    let created = create_many(&server, 4, |_| json!({"task_type": queue, "run_at": soon})).await;
    let [deleted, cancelled, put_off, executed] = &created[..] else { panic!("four tasks") };
    assert_eq!(server.delete(&format!("/tasks/{}", id(deleted))).send().await.status, 204);
    post(&server, cancelled, "cancel", json!({})).await.ok();
    let later = json!({"run_at": in_ms(&server, 3_600_000)});
    server.put(&format!("/tasks/{}", id(put_off))).json(&later).send().await.ok();
    post(&server, executed, "execute", json!({})).await.ok();
    assert_eq!(ids(&claim(&server, &queue, json!({"limit": 10})).await), [id(executed)]);

    // One more, planned for later, shows that their time has passed.
    let marker =
        server.create(json!({"task_type": queue, "run_at": soon + TimeDelta::milliseconds(500)})).await;
    let claimed =
        server.while_time_passes(claim(&server, &queue, json!({"limit": 10, "wait_ms": 20_000}))).await;
    assert_eq!(ids(&claimed), [id(&marker)]);
    assert_eq!(shown(&server, cancelled).await["status"], "cancelled");
    assert_eq!(shown(&server, put_off).await["status"], "scheduled");
    assert_eq!(shown(&server, executed).await["status"], "processing");
    let gone = server.get(&format!("/tasks/{}", id(deleted))).send().await;
    gone.problem(404, "task_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_task_is_seen_by_nobody() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue, "tags": {"k": "v"}, "user_id": "ann"})).await;
    let held = server.claim(&queue).await;
    let finish = json!({"lease_token": held["lease"]["token"], "result_id": "r-1"});
    server.post(&format!("/tasks/{}/complete", id(&task))).json(&finish).send().await.ok();
    let other = server.create(json!({"task_type": queue})).await;
    let one = format!("/tasks/{}", id(&task));

    let waiting = server.create(json!({})).await;
    let path = format!("/tasks/{}?wait_ms=20000", id(&waiting));
    let (told, ()) = tokio::join!(server.get(&path).send(), async {
        server.until_reads_wait(1).await;
        assert_eq!(server.delete(&format!("/tasks/{}", id(&waiting))).send().await.status, 204);
    });
    told.problem(404, "task_not_found");

    for task in [&task, &other] {
        assert_eq!(server.delete(&format!("/tasks/{}", id(task))).send().await.status, 204);
    }
    for path in
        [one.clone(), format!("{one}/status"), format!("{one}/executions"), "/tasks/by-result/r-1".to_owned()]
    {
        server.get(&path).send().await.problem(404, "task_not_found");
    }
    for path in [
        "/tasks?status=any",
        "/tasks",
        "/tasks?status=completed",
        "/tasks?status=any&tag=k:v",
        "/tasks?status=any&user_id=ann",
    ] {
        assert_eq!(server.get(path).send().await.ok()["tasks"], json!([]), "{path}");
    }
    let answer = server.get("/tasks").query(&[("status", "any"), ("task_type", &queue)]).send().await.ok();
    assert_eq!(answer["tasks"], json!([]));
    assert_eq!(claim(&server, &queue, json!({})).await["tasks"], json!([]));
    server.delete(&one).send().await.problem(404, "task_not_found");
}
