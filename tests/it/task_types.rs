//! Settings of task types: what holds for a task that says nothing itself, from when on, and who may say so.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_client::{NewPause, NewTask, TaskTypeSettings};
use task_repo_tests::{HttpAnswer, TestServer, eventually, unique_type};

use crate::verbs::{claim, claim_one, id, pass_until_status, post, shown, with};

/// By when a change holds on every server.
const EVERYWHERE: Duration = Duration::from_secs(2);

fn path(task_type: &str) -> String {
    format!("/task-types/{task_type}")
}

async fn put(server: &TestServer, task_type: &str, settings: Value) -> HttpAnswer {
    server.put(&path(task_type)).json(&settings).send().await
}

async fn get(server: &TestServer, task_type: &str) -> Value {
    server.get(&path(task_type)).send().await.ok()
}

/// Every limit, none of them the usual one.
fn unusual() -> Value {
    json!({"lease_seconds": 90, "timeout_seconds": 900, "max_attempts": 7, "retention_seconds": 70,
        "retry": {"backoff": "fixed", "base_seconds": 9}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_hold_where_a_task_says_nothing_and_show_what_was_given() {
    let server = TestServer::start().await;
    let queue = unique_type();
    server.get(&path(&queue)).send().await.problem(404, "task_type_not_found");
    let settings =
        with(unusual(), json!({"description": "for a test", "max_losses": 5, "max_pending": 1000}));
    let answer = put(&server, &queue, settings.clone()).await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"1\"")));
    let shown = answer.ok();
    assert_eq!((&shown["task_type"], &shown["settings"]), (&json!(queue), &settings));
    assert_eq!((&shown["version"], &shown["paused"]), (&json!(1), &Value::Null));

    let task = server.create(json!({"task_type": queue})).await;
    let retry = json!({"backoff": "fixed", "base_seconds": 9, "cap_seconds": 3600, "jitter": 0.2});
    for (field, value) in [
        ("lease_seconds", json!(90)),
        ("timeout_seconds", json!(900)),
        ("max_attempts", json!(7)),
        ("retention_seconds", json!(70)),
        ("retry", retry),
    ] {
        assert_eq!(task[field], value, "{field}");
    }
    // What a task says itself goes before, also where it says what is usual.
    let usual = json!({"lease_seconds": 60, "timeout_seconds": 300, "max_attempts": 3, "retention_seconds": null,
        "retry": {"backoff": "exponential", "base_seconds": 5, "cap_seconds": 3600, "jitter": 0.2}});
    let own = server.create(with(usual.clone(), json!({"task_type": queue}))).await;
    for (field, value) in usual.as_object().unwrap() {
        assert_eq!(&own[field], value, "{field}");
    }
    assert_eq!(server.task(id(&own)).await, own);
    // Other settings take the place of these, and nothing of them stays; tasks that are there keep theirs.
    let replaced = put(&server, &queue, json!({"lease_seconds": null, "retention_seconds": null})).await.ok();
    assert_eq!(
        (&replaced["settings"], &replaced["version"]),
        (&json!({"retention_seconds": null}), &json!(2))
    );
    let later = server.create(json!({"task_type": queue})).await;
    assert_eq!(
        (&later["lease_seconds"], &later["retention_seconds"], &later["max_attempts"]),
        (&json!(60), &Value::Null, &json!(3))
    );
    assert_eq!(server.task(id(&task)).await, task);
    // Without settings the defaults hold again.
    let removed = server.delete(&path(&queue)).send().await;
    assert_eq!(removed.status, 204);
    assert_eq!(server.create(json!({"task_type": queue})).await["retention_seconds"], 604_800);
    server.delete(&path(&queue)).send().await.problem(404, "task_type_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_hold_on_every_server_within_2_s_and_after_a_restart() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let queue = unique_type();
    for lease in [90, 91] {
        put(&server, &queue, json!({"lease_seconds": lease})).await.ok();
        let begun = std::time::Instant::now();
        eventually("the settings hold there", async || {
            other.create(json!({"task_type": queue})).await["lease_seconds"] == lease
        })
        .await;
        assert!(begun.elapsed() < 2 * EVERYWHERE, "{:?}", begun.elapsed());
    }
    let late = server.sibling().await;
    assert_eq!(late.create(json!({"task_type": queue})).await["lease_seconds"], 91);
    server.delete(&path(&queue)).send().await.success();
    eventually("the settings are gone there", async || {
        other.create(json!({"task_type": queue})).await["lease_seconds"] == 60
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_shows_what_was_answered_first_whatever_the_settings_are_by_then() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let call = || {
        let call = server.post("/tasks").header("Idempotency-Key", "once");
        call.json(&json!({"task_type": queue})).send()
    };
    put(&server, &queue, unusual()).await.ok();
    let first = call().await.ok();
    put(&server, &queue, json!({"lease_seconds": 5, "max_attempts": 50})).await.ok();
    assert_eq!(call().await.ok(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_in_an_edit_takes_what_the_type_says() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let own = json!({"task_type": queue, "max_attempts": 2, "lease_seconds": 2, "timeout_seconds": 2});
    let task = server.create(own).await;
    put(&server, &queue, unusual()).await.ok();
    let edit = json!({"max_attempts": null, "lease_seconds": null, "timeout_seconds": null, "retry": null,
        "retention_seconds": null});
    let edited = server.put(&format!("/tasks/{}", id(&task))).json(&edit).send().await.ok();
    assert_eq!(
        [&edited["max_attempts"], &edited["lease_seconds"], &edited["timeout_seconds"]],
        [&json!(7), &json!(90), &json!(900)]
    );
    assert_eq!((&edited["retry"]["base_seconds"], &edited["retention_seconds"]), (&json!(9), &Value::Null));
    // Where there is no such task, nothing is said of its type.
    let missing = server.put(&format!("/tasks/{}", uuid::Uuid::now_v7())).json(&edit).send().await;
    missing.problem(404, "task_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_losses_holds_for_all_that_are_lost_from_then_on() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let task = server.create(json!({"task_type": queue, "lease_seconds": 1, "max_attempts": 9})).await;
    put(&server, &queue, json!({"max_losses": 1})).await.ok();
    claim_one(&server, &task, json!({})).await;
    let lost = pass_until_status(&server, &task, "failed").await;
    assert_eq!((&lost["reason"], &lost["losses"]), (&json!("lost"), &json!(1)));

    put(&server, &queue, json!({"max_losses": 5})).await.ok();
    post(&server, &task, "execute", json!({})).await.ok();
    for _ in 0..4 {
        claim_one(&server, &task, json!({})).await;
        pass_until_status(&server, &task, "pending").await;
    }
    assert_eq!(shown(&server, &task).await["losses"], 4);
    claim_one(&server, &task, json!({})).await;
    assert_eq!(pass_until_status(&server, &task, "failed").await["losses"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_goes_by_the_version_and_never_creates() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let put = |if_match: &'static str| {
        let call = server.put(&path(&queue)).header("If-Match", if_match);
        call.json(&json!({"lease_seconds": 9})).send()
    };
    for if_match in ["*", "\"0\"", "\"1\""] {
        put(if_match).await.problem(404, "task_type_not_found");
    }
    server.post(&format!("{}/pause", path(&queue))).send().await.ok();
    put("\"0\"").await.problem(404, "task_type_not_found");
    assert_eq!(get(&server, &queue).await["version"], 0);
    server.put(&path(&queue)).json(&json!({})).send().await.ok();
    assert_eq!(get(&server, &queue).await["settings"], json!({}));
    put("\"7\"").await.problem(412, "version_conflict");
    put("W/\"1\"").await.problem(412, "version_conflict");
    put("1").await.problem(400, "invalid_parameter");
    assert_eq!(put("\"7\", \"1\"").await.ok()["version"], 2);
    assert_eq!(put("*").await.ok()["version"], 3);
    // A version that was there before settings were removed never comes back.
    server.delete(&path(&queue)).send().await.success();
    assert_eq!(server.put(&path(&queue)).json(&json!({})).send().await.ok()["version"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bound_is_kept() {
    let server = TestServer::start().await;
    let queue = unique_type();
    for (field, least, most) in [
        ("lease_seconds", 1, 86_400),
        ("timeout_seconds", 1, 604_800),
        ("max_attempts", 1, 50),
        ("retention_seconds", 0, 31_536_000),
        ("max_losses", 1, 100),
        ("max_pending", 1, 1_000_000_000_i64),
    ] {
        for value in [least, most] {
            put(&server, &queue, json!({field: value})).await.ok();
        }
        for value in [json!(least - 1), json!(most + 1), json!("9"), json!(1.5), json!([])] {
            let problem = put(&server, &queue, json!({field: value})).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["loc"], json!(["body", field]), "{value}");
        }
    }
    put(&server, &queue, json!({"description": "é".repeat(4096)})).await.ok();
    for (settings, loc) in [
        (json!({"description": "é".repeat(4097)}), json!(["body", "description"])),
        (json!({"retry": {"jitter": 2}}), json!(["body", "retry", "jitter"])),
        (json!({"retry": []}), json!(["body", "retry"])),
        (json!({"paused": true}), json!(["body", "paused"])),
        (json!({"version": 1}), json!(["body", "version"])),
    ] {
        let problem = put(&server, &queue, settings).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], loc);
    }
    for wrong in ["a%20b", "a%2Fb", "%C3%A9", &"x".repeat(129)] {
        let path = path(wrong);
        let problem = server.put(&path).json(&json!({})).send().await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], json!(["path", "task_type"]));
        server.get(&path).send().await.problem(404, "task_type_not_found");
        server.delete(&path).send().await.problem(404, "task_type_not_found");
        server.post(&format!("{path}/pause")).send().await.problem(422, "validation_failed");
        server.post(&format!("{path}/resume")).send().await.problem(404, "task_type_not_found");
    }
    put(&server, &"x".repeat(128), json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_sees_and_changes_its_own_types_and_nobody_acts_for_a_user() {
    let server = TestServer::start().await;
    let (mine, theirs) = (unique_type(), unique_type());
    for queue in [&mine, &theirs] {
        put(&server, queue, json!({"description": "hush-4411"})).await.ok();
    }
    let limited = server.issue_key(&["operator"], json!({"task_types": [mine]})).await;
    let foreign = server.issue_key(&["operator"], json!({"tenant_id": "theirs"})).await;
    let of = |key: &str| server.get("/task-types").key(key).send();
    let names = |page: &Value| -> Vec<Value> {
        page["task_types"].as_array().unwrap().iter().map(|it| it["task_type"].clone()).collect()
    };
    assert_eq!(names(&of(&limited).await.ok()), [json!(mine)]);
    assert_eq!(names(&of(&foreign).await.ok()), Vec::<Value>::new());
    for key in [&limited, &foreign] {
        let calls = [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")];
        for (method, end) in calls {
            if key == &foreign && (method == "PUT" || end == "/pause") {
                continue;
            }
            let call = server.request(method, &format!("{}{end}", path(&theirs))).key(key);
            let call = if method == "PUT" { call.json(&json!({})) } else { call };
            let answer = call.send().await;
            answer.problem(404, "task_type_not_found");
            assert!(!answer.text().contains("hush"));
        }
    }
    for (method, end) in [("GET", ""), ("PUT", ""), ("POST", "/pause")] {
        let call = server.request(method, &format!("{}{end}", path(&mine))).user("ann");
        let call = if method == "PUT" { call.json(&json!({})) } else { call };
        call.send().await.problem(403, "forbidden");
    }
    server.get("/task-types").user("ann").send().await.problem(403, "forbidden");
    assert_eq!(get(&server, &theirs).await["version"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_goes_by_name_and_on_from_its_cursor() {
    let server = TestServer::start().await;
    for name in ["c", "a", "B", "d.1", "b"] {
        put(&server, name, json!({})).await.ok();
    }
    server.delete(&path("c")).send().await.success();
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let call = server.get("/task-types").query(&[("limit", "2")]);
        let call = if cursor.is_empty() { call } else { call.query(&[("cursor", &cursor)]) };
        let page = call.send().await.ok();
        assert!(page["as_of"].is_string(), "{page}");
        for shown in page["task_types"].as_array().unwrap() {
            names.push(shown["task_type"].as_str().unwrap().to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(names, ["B", "a", "b", "d.1"]);
    for (name, value) in [("limit", "0"), ("limit", "1001"), ("cursor", "?"), ("cursor", "IA"), ("x", "1")] {
        let answer = server.get("/task-types").query(&[(name, value)]).send().await;
        answer.problem(400, "invalid_parameter");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_10_000_types_with_settings_there_are_no_more() {
    let server = TestServer::start().await;
    let stored = |number: i32| {
        let name = format!("t{number}");
        doc! { "_id": { "tenant": "default", "task_type": &name }, "tenant": "default", "task_type": name,
        "settings": { "given": "{}" }, "version": 1_i64, "revision": 1_i64,
        "changed_at": mongodb::bson::DateTime::now(), "from_a_later_release": { "a": 1 } }
    };
    let types = server.database().collection::<Document>("tasks_types");
    types.insert_many((0..10_000).map(stored)).await.expect("they are stored");
    let server = server.restart_after(async {}).await;
    let problem = put(&server, "one-more", json!({})).await.problem(429, "limit_exceeded");
    assert_eq!(
        [&problem["limit_type"], &problem["limit"], &problem["current"]],
        [&json!("task_types"), &json!(10_000), &json!(10_000)]
    );
    put(&server, "t7", json!({"lease_seconds": 9})).await.ok();
    server.delete(&path("t8")).send().await.success();
    put(&server, "one-more", json!({})).await.ok();
    // What a later release has stored beside stays.
    let kept = types.find_one(doc! { "task_type": "t7" }).await.unwrap().expect("it is there");
    assert!(kept.contains_key("from_a_later_release"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_has_a_call_for_each() {
    let server = TestServer::start().await;
    let (client, queue) = (server.client(), unique_type());
    let settings = TaskTypeSettings { lease_seconds: Some(90), ..TaskTypeSettings::default() };
    let set = client.set_task_type(&queue, &settings, None).await.expect("settings");
    assert_eq!(
        (set.version, set.settings.to::<TaskTypeSettings>().expect("settings")),
        (1, settings.clone())
    );
    assert_eq!(client.set_task_type(&queue, &settings, Some(1)).await.expect("settings").version, 2);
    client.set_task_type(&queue, &settings, Some(1)).await.expect_err("another version");
    let task = client.create_task(&NewTask::new(queue.clone())).await.expect("a task");
    assert_eq!(task.lease_seconds, Some(90));
    let paused = client.pause_task_type(&queue, &NewPause::default()).await.expect("a pause");
    assert!(paused.paused.is_some());
    assert_eq!(claim(&server, &queue, json!({})).await["tasks"], json!([]));
    assert!(client.resume_task_type(&queue).await.expect("no pause").paused.is_none());
    let page = client.list_task_types(100, None).await.expect("a page");
    assert_eq!(page.task_types.len(), 1);
    client.delete_task_type(&queue).await.expect("settings");
}
