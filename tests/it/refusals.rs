//! Which refusal comes first where several would fit: 401, 404 for the route, 405, 403 for role and tenant, 415, 413, 400,
//! 403 for a `user_id` in the body, 422, 404 for the resource, 409 and 412.

use serde_json::json;
use task_repo_tests::{TestServer, assert_problem, id_of};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_calling_goes_before_all_else() {
    let server = TestServer::start().await;
    for (method, path) in [
        ("GET", "/nonsense".to_owned()),
        ("PATCH", "/tasks".to_owned()),
        ("GET", "/tasks?nonsense=1".to_owned()),
        ("GET", "/tasks/no-uuid".to_owned()),
    ] {
        server.request(method, &path).no_key().send().await.problem(401, "unauthenticated");
    }
    let create = || server.post("/tasks").no_key();
    create().body("x", "text/plain").send().await.problem(401, "unauthenticated");
    create().json_text("{").send().await.problem(401, "unauthenticated");
    create().json(&json!({"priority": 101})).send().await.problem(401, "unauthenticated");
    create().user("a b").json(&json!({"task_type": "t"})).send().await.problem(401, "unauthenticated");
    let large = create().json_text("x".repeat(3 << 20)).send().await;
    large.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_route_goes_before_the_role() {
    let server = TestServer::start().await;
    let viewer = server.issue_key(&["viewer"], json!({})).await;
    server.post("/nonsense").key(&viewer).json_text("{").send().await.problem(404, "not_found");
    server.post("/nonsense").tenant("other").key(&viewer).send().await.problem(404, "not_found");
    server.request("PATCH", "/tasks").key(&viewer).send().await.problem(405, "method_not_allowed");
    let other_tenant = server.request("PATCH", "/tasks").key(&viewer).tenant("other");
    other_tenant.body("x", "text/plain").send().await.problem(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_and_tenant_go_before_the_body() {
    let server = TestServer::start().await;
    let viewer = server.issue_key(&["viewer"], json!({})).await;
    let producer = server.issue_key(&["producer"], json!({})).await;
    let large = "x".repeat(3 << 20);
    for (key, tenant) in [(&viewer, "default"), (&producer, "other")] {
        let create = |path: &str| server.post(path).key(key).tenant(tenant);
        create("/tasks").body("x", "text/plain").send().await.problem(403, "forbidden");
        create("/tasks").json_text(large.as_str()).send().await.problem(403, "forbidden");
        create("/tasks").json_text("{").send().await.problem(403, "forbidden");
        create("/tasks?nonsense=1").json(&json!({})).send().await.problem(403, "forbidden");
        create("/tasks").user("a b").json(&json!({})).send().await.problem(403, "forbidden");
        create("/tasks").json(&json!({"priority": 101})).send().await.problem(403, "forbidden");
    }
    let missing = format!("/tasks/{}", Uuid::now_v7());
    server.delete(&missing).key(&viewer).send().await.problem(403, "forbidden");
    server.delete("/tasks/no-uuid").key(&viewer).send().await.problem(403, "forbidden");
    server.get(&missing).key(&viewer).tenant("other").send().await.problem(403, "forbidden");
    server.delete(&format!("/keys/{}", Uuid::now_v7())).key(&viewer).send().await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kind_then_size_then_form_of_the_body() {
    let server = TestServer::start().await;
    let beyond = "x".repeat(17 << 20);
    for path in ["/tasks", "/tasks/batch", "/tasks?nonsense=1"] {
        let kind = server.post(path).body(beyond.as_str(), "text/plain").send().await;
        kind.problem(415, "unsupported_media_type");
        let size = server.post(path).json_text(beyond.as_str()).send().await;
        size.problem(413, "payload_too_large");
    }
    let kind = server.post("/tasks?nonsense=1").body("{", "text/plain").send().await;
    kind.problem(415, "unsupported_media_type");
    let kind = server.post("/tasks").user("a b").body("{", "text/plain").send().await;
    kind.problem(415, "unsupported_media_type");
    // A task over 1 MiB is too large, whatever else is wrong with it.
    let task = format!(r#"{{"task_type":"t","priority":101,"request":"{}"}}"#, "x".repeat(1 << 20));
    server.post("/tasks").json_text(task.as_str()).send().await.problem(413, "payload_too_large");
    let other_user = task.replace("\"priority\":101", "\"user_id\":\"bob\"");
    server.post("/tasks").user("alice").json_text(other_user).send().await.problem(413, "payload_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_task_could_hold_is_too_large_whatever_else_is_wrong_with_it() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let beyond = "x".repeat(1 << 20);
    for wrong in [r#""nonsense":1"#, r#""status":"pending""#, r#""priority":101"#] {
        let edit = format!(r#"{{{wrong},"request":"{beyond}"}}"#);
        server.put(&path).json_text(edit).send().await.problem(413, "payload_too_large");
    }
    let claimed = server.post(&format!("{path}/claim")).json(&json!({"worker_id": "w1"})).send().await.ok();
    let token = &claimed["lease"]["token"];
    for wrong in [r#""nonsense":1"#, r#""result_id":"""#, r#""usage":{"tokens_used":-1}"#] {
        let body = format!(r#"{{"lease_token":{token},{wrong},"result":"{beyond}"}}"#);
        let complete = server.post(&format!("{path}/complete")).json_text(body).send().await;
        complete.problem(413, "payload_too_large");
        let item = format!(r#""id":{},"lease_token":{token},"outcome":"completed",{wrong}"#, task["id"]);
        let body = format!(r#"{{"outcomes":[{{{item},"result":"{beyond}"}}]}}"#);
        let outcomes = server.post("/tasks/outcomes").json_text(body).send().await.ok();
        assert_problem(&outcomes["results"][0]["problem"], 413, "payload_too_large");
    }
    assert_eq!(server.task(id_of(&task)).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_and_form_go_before_meaning() {
    let server = TestServer::start().await;
    let alice = |path: &str| server.post(path).user("alice");
    let bob = json!({"task_type": "t", "user_id": "bob"});
    alice("/tasks?nonsense=1").json(&bob).send().await.problem(400, "invalid_parameter");
    let bad_key = alice("/tasks").header("Idempotency-Key", "a b");
    bad_key.json(&bob).send().await.problem(400, "invalid_parameter");
    server
        .post("/tasks?nonsense=1")
        .json(&json!({"priority": 101}))
        .send()
        .await
        .problem(400, "invalid_parameter");
    alice("/tasks")
        .json_text(r#"{"task_type":"t","user_id":"bob""#)
        .send()
        .await
        .problem(400, "malformed_json");

    let missing = format!("/tasks/{}", Uuid::now_v7());
    server.get(&format!("{missing}?nonsense=1")).send().await.problem(400, "invalid_parameter");
    server.get(&format!("{missing}?wait_ms=x")).send().await.problem(400, "invalid_parameter");
    server.get("/tasks/no-uuid?wait_ms=x").send().await.problem(400, "invalid_parameter");
    server.put(&missing).json_text("{").send().await.problem(400, "malformed_json");
    let keys = server.post("/keys").header("Idempotency-Key", "k").json(&json!({"name": "n", "roles": []}));
    keys.send().await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_goes_before_the_rules_and_the_rules_before_the_task() {
    let server = TestServer::start().await;
    let alice = || server.post("/tasks").user("alice");
    alice().json(&json!({"task_type": "t", "user_id": "bob"})).send().await.problem(403, "forbidden");
    let both = json!({"task_type": "t", "user_id": "bob", "priority": 101});
    alice().json(&both).send().await.problem(403, "forbidden");
    alice().json(&json!({"user_id": "bob"})).send().await.problem(403, "forbidden");

    for path in [format!("/tasks/{}", Uuid::now_v7()), "/tasks/no-uuid".to_owned()] {
        server.put(&path).json(&json!({"priority": 101})).send().await.problem(422, "validation_failed");
        server
            .put(&path)
            .json(&json!({"status": "completed"}))
            .send()
            .await
            .problem(422, "validation_failed");
        let report = |verb: &str| server.post(&format!("{path}/{verb}")).json(&json!({"nonsense": 1}));
        for verb in ["complete", "fail", "release", "heartbeat", "cancel", "claim"] {
            report(verb).send().await.problem(422, "validation_failed");
        }
        let status = server.put(&format!("{path}/status")).json(&json!({"status": "cancelled"}));
        status.send().await.problem(422, "validation_failed");
        let stale = server.put(&path).header("If-Match", "\"9\"").json(&json!({"name": "n"}));
        stale.send().await.problem(404, "task_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_go_before_statuses_and_statuses_before_versions() {
    let server = TestServer::start().await;
    let task = server.create_in("completed", json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    server.put(&path).json(&json!({"priority": 101})).send().await.problem(422, "validation_failed");
    for version in ["\"999\"", "*"] {
        let stale = server.put(&path).header("If-Match", version).json(&json!({"name": "n"}));
        stale.send().await.problem(409, "invalid_transition");
    }
    let set = |status: &str| server.put(&format!("{path}/status")).json(&json!({"status": status}));
    for status in ["pending", "scheduled", "cancelled", "done"] {
        set(status).send().await.problem(422, "validation_failed");
    }
    set("processing").send().await.problem(409, "invalid_transition");
    assert_eq!(server.task(id_of(&task)).await, task);
}
