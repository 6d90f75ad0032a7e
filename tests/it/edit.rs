//! `PUT /tasks/{id}`: what it changes, what it leaves, and when it is refused.

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, in_seconds, unique_type};

use crate::verbs::{assert_in_seconds, assert_seconds_after, settle, time};

/// A task with every field that an edit may change.
fn whole() -> Value {
    json!({
        "task_type": unique_type(), "user_id": "alice", "name": "n", "description": "d", "priority": 80,
        "request": {"a": 1}, "template": {"service_type": "s", "parameters": {"b": 2}}, "metadata": {"c": 3},
        "tags": {"d": "4"}, "max_attempts": 7, "due_date": "2100-01-01T00:00:00.000Z",
        "reminder_time": "2099-01-01T00:00:00.000Z", "lease_seconds": 7, "timeout_seconds": 8,
        "retention_seconds": 9, "retry": {"backoff": "fixed", "base_seconds": 1, "cap_seconds": 2, "jitter": 0.5},
    })
}

async fn put(server: &TestServer, task: &Value, body: &Value) -> Value {
    server.put(&format!("/tasks/{}", id_of(task))).json(body).send().await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_given_fields_change() {
    let server = TestServer::start().await;
    let edits = [
        ("name", json!("other"), json!("other")),
        ("description", json!("other"), json!("other")),
        ("priority", json!("critical"), json!(100)),
        ("priority", json!(0), json!(0)),
        ("request", json!(["other"]), json!(["other"])),
        (
            "template",
            json!({"service_type": "t", "parameters": 1}),
            json!({"service_type": "t", "parameters": 1}),
        ),
        ("metadata", json!({"$x": {"y.z": null}}), json!({"$x": {"y.z": null}})),
        ("tags", json!({"e": "5"}), json!({"e": "5"})),
        ("tags", json!(["f"]), json!({"f": ""})),
        ("max_attempts", json!(50), json!(50)),
        ("lease_seconds", json!(86_400), json!(86_400)),
        ("timeout_seconds", json!(604_800), json!(604_800)),
        ("retention_seconds", json!(0), json!(0)),
        (
            "retry",
            json!({"backoff": "linear", "base_seconds": 86_400}),
            json!({"backoff": "linear", "base_seconds": 86_400, "cap_seconds": 3600, "jitter": 0.2}),
        ),
        ("due_date", json!("2101-01-01T02:00:00+02:00"), json!("2101-01-01T00:00:00.000Z")),
        ("reminder_time", json!("2000-01-01T00:00:00Z"), json!("2000-01-01T00:00:00.000Z")),
        ("name", json!("$name"), json!("$name")),
        ("description", json!("$$ROOT"), json!("$$ROOT")),
        ("request", json!("$request"), json!("$request")),
        ("tags", json!({"$d": "$tags"}), json!({"$d": "$tags"})),
    ];
    for status in ["pending", "scheduled"] {
        let mut before = server.create_in(status, whole()).await;
        for (field, given, kept) in &edits {
            let after = put(&server, &before, &json!({*field: given})).await;
            let mut expected = before.clone();
            expected[*field] = kept.clone();
            expected["version"] = (before["version"].as_u64().unwrap() + 1).into();
            assert!(after["updated_at"].as_str() >= before["updated_at"].as_str(), "{after:#}");
            expected["updated_at"] = after["updated_at"].clone();
            assert_eq!(after, expected, "{status} {field}");
            assert_eq!(server.task(id_of(&before)).await, after, "{status} {field}");
            before = after;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_fields_are_one_change() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let edit = json!({"name": "a", "priority": 1, "tags": ["t"], "request": 5, "run_at": in_seconds(3600)});
    let after = put(&server, &task, &edit).await;
    assert_eq!(after["version"], 2);
    assert_eq!((&after["name"], &after["priority"], &after["request"]), (&json!("a"), &json!(1), &json!(5)));
    assert_eq!(after["status"], "scheduled");
    let same = put(&server, &task, &json!({})).await;
    assert_eq!((&same["name"], &same["run_at"]), (&after["name"], &after["run_at"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_clears_or_sets_the_default() {
    let server = TestServer::start().await;
    let defaults = json!({
        "name": null, "description": null, "priority": 50, "request": null, "template": null, "metadata": {}, "tags": {},
        "max_attempts": 3, "due_date": null, "reminder_time": null, "lease_seconds": 60, "timeout_seconds": 300,
        "retention_seconds": null,
        "retry": {"backoff": "exponential", "base_seconds": 5, "cap_seconds": 3600, "jitter": 0.2},
    });
    let one_by_one = server.create(whole()).await;
    for (field, default) in defaults.as_object().unwrap() {
        let after = put(&server, &one_by_one, &json!({field: null})).await;
        assert_eq!(after[field], *default, "{field}");
        assert_eq!(server.task(id_of(&one_by_one)).await[field], *default, "{field}");
    }
    let at_once = server.create(whole()).await;
    let nulls: Value =
        defaults.as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
    put(&server, &at_once, &nulls).await;
    let after = server.task(id_of(&at_once)).await;
    for (field, default) in defaults.as_object().unwrap() {
        assert_eq!(after[field], *default, "{field}");
    }
    assert_eq!(after["user_id"], "alice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_at_moves_between_pending_and_scheduled() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let task_type = task["task_type"].as_str().unwrap();
    let claim = json!({"task_types": [task_type], "worker_id": "w"});
    for now in [Value::Null, json!("2020-01-01T00:00:00Z"), json!(in_seconds(-1))] {
        let later = put(&server, &task, &json!({"run_at": in_seconds(3600)})).await;
        assert_eq!(
            (&later["status"], &later["reason"]),
            (&json!("scheduled"), &json!("delayed")),
            "{later:#}"
        );
        assert_eq!(server.post("/tasks/claim").json(&claim).send().await.ok()["tasks"], json!([]));
        let time = in_seconds(31_000_000);
        let even_later = put(&server, &task, &json!({"run_at": time})).await;
        assert_eq!(even_later["status"], "scheduled");
        assert_eq!(even_later["run_at"], time);
        let ready = put(&server, &task, &json!({"run_at": now})).await;
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("pending"), &Value::Null), "{ready:#}");
    }
    let claimed = server.claim(task_type).await;
    assert_eq!(claimed["id"], task["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_waits_can_be_edited() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let task = server.create(json!({"task_type": task_type})).await;
    let claimed = server.claim(&task_type).await;
    let body = json!({
        "lease_token": claimed["lease"]["token"], "error": {"message": "m"}, "retry_after_seconds": 3600,
    });
    server.post(&format!("/tasks/{}/fail", id_of(&task))).json(&body).send().await.ok();
    let named = put(&server, &task, &json!({"name": "edited"})).await;
    assert_eq!((&named["status"], &named["reason"]), (&json!("scheduled"), &json!("retry")), "{named:#}");
    let ready = put(&server, &task, &json!({"run_at": null})).await;
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("pending"), &Value::Null), "{ready:#}");
    assert_eq!(server.claim(&task_type).await["attempt"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_edited() {
    let server = TestServer::start().await;
    let task = server.create(whole()).await;
    let path = format!("/tasks/{}", id_of(&task));
    let fields = json!({
        "task_type": "other", "user_id": "bob", "delay_seconds": 1, "status": "completed", "result": 1, "version": 9,
        "releases": 0, "nonsense": 1,
    });
    for (field, value) in fields.as_object().unwrap() {
        for value in [value, &Value::Null] {
            let edit = json!({"name": "changed", field: value});
            let problem = server.put(&path).json(&edit).send().await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["loc"], json!(["body", field]), "{problem:#}");
        }
    }
    let wrong = [
        json!({"name": ""}),
        json!({"name": "x".repeat(256)}),
        json!({"description": "x".repeat(4097)}),
        json!({"priority": 101}),
        json!({"priority": -1}),
        json!({"priority": "urgent"}),
        json!({"max_attempts": 0}),
        json!({"max_attempts": 51}),
        json!({"lease_seconds": 0}),
        json!({"lease_seconds": 86_401}),
        json!({"timeout_seconds": 0}),
        json!({"timeout_seconds": 604_801}),
        json!({"retention_seconds": -1}),
        json!({"retention_seconds": 31_536_001}),
        json!({"retry": []}),
        json!({"retry": {"backoff": "never"}}),
        json!({"retry": {"base_seconds": 0}}),
        json!({"retry": {"cap_seconds": 86_401}}),
        json!({"retry": {"jitter": 1.5}}),
        json!({"metadata": []}),
        json!({"metadata": {"a": "x".repeat(16_384)}}),
        json!({"tags": {"a:b": ""}}),
        json!({"tags": {"a": 1}}),
        json!({"template": 1}),
        json!({"run_at": "tomorrow"}),
        json!({"due_date": 1}),
        json!({"reminder_time": ""}),
        json!({"template": {"nonsense": 1}}),
    ];
    for mut edit in wrong {
        let field = edit.as_object().unwrap().keys().next().unwrap().clone();
        if field != "name" {
            edit["name"] = "changed".into();
        }
        let problem = server.put(&path).json(&edit).send().await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"][1], field.as_str(), "{problem:#}");
    }
    assert_eq!(server.get(&path).send().await.ok(), task, "a refused edit changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_that_forbid_an_edit() {
    let server = TestServer::start().await;
    for status in ["processing", "completed", "failed", "cancelled"] {
        let task = server.create_in(status, whole()).await;
        for edit in [json!({"name": "late"}), json!({"run_at": in_seconds(60)}), json!({"priority": null})] {
            let answer = server.put(&format!("/tasks/{}", id_of(&task))).json(&edit).send().await;
            let problem = answer.problem(409, "invalid_transition");
            assert_eq!(problem["current_status"], status);
            assert_eq!(problem["task_id"], task["id"]);
        }
        assert_eq!(server.task(id_of(&task)).await, task, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_holds_a_version() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let etag = async || server.get(&path).send().await.header("etag").expect("an ETag").to_owned();
    let edit = async |version: &str, name: &str| {
        server.put(&path).header("If-Match", version).json(&json!({"name": name})).send().await
    };
    let first = etag().await;
    assert_eq!(first, "\"1\"");
    assert_eq!(edit(&first, "one").await.ok()["version"], 2);
    let second = etag().await;
    assert_ne!(first, second);
    let problem = edit(&first, "two").await.problem(412, "version_conflict");
    assert_eq!(problem["task_id"], task["id"]);
    for other in ["\"0\"", "\"3\"", "\"12\""] {
        edit(other, "two").await.problem(412, "version_conflict");
    }
    for odd in ["nonsense", "\"2", "-2", "", "\"\"", "\"nonsense\"", "\"999999999999999999999\""] {
        let status = edit(odd, "two").await.status;
        assert!(status == 400 || status == 412, "{odd} answered {status}");
    }
    assert_eq!(server.get(&path).send().await.ok()["name"], "one");
    assert_eq!(edit("*", "three").await.ok()["version"], 3);
    assert_eq!(edit(&etag().await, "four").await.ok()["version"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_edits_of_one_version_one_is_made() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let etag = server.get(&path).send().await.header("etag").expect("an ETag").to_owned();
    let edits = (0..8).map(|n| {
        let call = server.put(&path).header("If-Match", &etag).json(&json!({"name": format!("edit {n}")}));
        call.send()
    });
    let answers = join_all(edits).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(made.len(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.problem(412, "version_conflict");
    }
    assert_eq!(server.get(&path).send().await.ok(), made[0].ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_priority_counts_in_the_next_claim() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let first = server.create(json!({"task_type": task_type})).await;
    let second = server.create(json!({"task_type": task_type})).await;
    put(&server, &second, &json!({"priority": 51})).await;
    assert_eq!(server.claim(&task_type).await["id"], second["id"]);
    assert_eq!(server.claim(&task_type).await["id"], first["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_limits_hold_for_the_next_attempt() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let task = server.create(json!({"task_type": task_type})).await;
    let retry = json!({"backoff": "fixed", "base_seconds": 1000, "jitter": 0});
    let limits =
        json!({"lease_seconds": 500, "timeout_seconds": 400, "retention_seconds": 0, "retry": retry});
    put(&server, &task, &limits).await;
    let held = server.claim(&task_type).await;
    assert_seconds_after(&held["lease"]["expires_at"], time(&held["started_at"]), 400);
    let shown = |name: &str| held[name].clone();
    assert_eq!((shown("lease_seconds"), shown("timeout_seconds")), (json!(500), json!(400)));
    settle(&server, &held, "fail", json!({})).await.ok();
    assert_in_seconds(&server.task(id_of(&task)).await["run_at"], 1000);
}

/// The limits of a task as an answer shows it.
fn limits(task: &Value) -> Value {
    let names =
        ["retry", "lease_seconds", "timeout_seconds", "retention_seconds", "max_attempts", "releases"];
    names.into_iter().map(|name| (name.to_owned(), task.get(name).cloned().expect("it is shown"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_shown_wherever_a_task_is() {
    let server = TestServer::start().await;
    let created = server.post("/tasks/batch").json(&json!({"tasks": [whole()]})).send().await.ok();
    let task = &created["results"][0]["task"];
    let own = limits(task);
    assert_eq!((&own["lease_seconds"], &own["retry"]["base_seconds"]), (&json!(7), &json!(1)));
    let queue = task["task_type"].as_str().unwrap();
    let list = [("status", "any"), ("task_type", queue)];
    let listed = server.get("/tasks").query(&list).send().await.ok();
    let claim = json!({"task_types": [queue], "worker_id": "w"});
    let claimed = server.post("/tasks/claim").json(&claim).send().await.ok();
    let held = &claimed["tasks"][0];
    let back = json!({"id": held["id"], "lease_token": held["lease"]["token"], "outcome": "released"});
    let outcomes = json!({"outcomes": [back], "claim": claim});
    let next = server.post("/tasks/outcomes").json(&outcomes).send().await.ok();
    settle(&server, &next["tasks"][0], "complete", json!({"result_id": "r-of-limits"})).await.ok();
    let found = server.get("/tasks/by-result/r-of-limits").send().await.ok();
    for (shown, releases) in [(&listed["tasks"][0], 0), (held, 0), (&next["tasks"][0], 1), (&found, 0)] {
        let mut expected = own.clone();
        expected["releases"] = releases.into();
        assert_eq!(limits(shown), expected, "{shown}");
    }
}
