//! Errors that say what to do: which credential, which path, which parameter, which verb.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, unique_type};
use uuid::Uuid;

#[track_caller]
fn says(problem: &Value, words: &[&str]) {
    let detail = problem["detail"].as_str().unwrap_or_default();
    for word in words {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_401_says_which_of_three_it_is() {
    let server = TestServer::start().await;
    let none = server.get("/tasks").no_key().send().await.problem(401, "unauthenticated");
    says(&none, &["no credential", "Authorization: Bearer KEY", "X-API-Key: KEY"]);
    for value in ["Basic dGVzdA==", "test_api_key", "Bearer", "Bearer ", "bearer  "] {
        let wrong = server.get("/tasks").no_key().header("Authorization", value).send().await;
        says(&wrong.problem(401, "unauthenticated"), &["not in the form", "Bearer KEY"]);
    }
    let twice = server.get("/tasks").header("Authorization", "Bearer x").send().await;
    says(&twice.problem(401, "unauthenticated"), &["twice"]);
    let unknown = server.get("/tasks").key("no_such_key").send().await.problem(401, "unauthenticated");
    says(&unknown, &["not known", "expired or been revoked"]);
    let unknown = server.get("/tasks").no_key().header("X-API-Key", "no_such_key").send().await;
    says(&unknown.problem(401, "unauthenticated"), &["not known", "expired or been revoked"]);
    let empty = server.get("/tasks").no_key().header("X-API-Key", "").send().await;
    says(&empty.problem(401, "unauthenticated"), &["empty"]);
    // What is unknown, what is revoked and what has expired are not told apart.
    let issued = server.post("/keys").json(&json!({"name": "n", "roles": ["viewer"]})).send().await.ok();
    server.delete(&format!("/keys/{}", id_of(&issued))).send().await.success();
    let revoked = server.get("/tasks").key(issued["key"].as_str().unwrap()).send().await;
    let revoked = revoked.problem(401, "unauthenticated");
    let unknown = server.get("/tasks").key("no_such_key").send().await.problem(401, "unauthenticated");
    assert_eq!(revoked["detail"], unknown["detail"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_nearly_one_leads_to_it() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7();
    for (method, path, meant) in [
        ("GET", "/api/v1/".to_owned() + "tasks/", "/api/v1/tasks"),
        ("POST", "/Tasks".to_owned(), "/api/v1/tasks"),
        ("POST", "/api/tasks".to_owned(), "/api/v1/tasks"),
        ("POST", "/v1/tasks".to_owned(), "/api/v1/tasks"),
        ("POST", "/api/v2/tasks/claim".to_owned(), "/api/v1/tasks/claim"),
        ("POST", "/api/v1/task".to_owned(), "/api/v1/tasks"),
        ("GET", "/api/v1//tasks".to_owned(), "/api/v1/tasks"),
        ("POST", format!("/api/v1/tasks/{id}/compete"), "/api/v1/tasks/{task_id}/complete"),
        ("POST", format!("/api/v1/tasks/{id}/completed"), "/api/v1/tasks/{task_id}/complete"),
        ("GET", format!("/api/v1/tasks/{id}/"), "/api/v1/tasks/{task_id}"),
        ("GET", "/healthz".to_owned(), "/health"),
        ("GET", "/health/".to_owned(), "/health"),
    ] {
        let problem = server.request(method, &path).send().await.problem(404, "not_found");
        says(&problem, &[&format!("did you mean {meant}?")]);
    }
    for path in
        ["/nonsense", "/api/v1/wibble/wobble/wubble", "/%3Cscript%3E", &format!("/{}", "a/".repeat(900))]
    {
        let problem = server.get(path).send().await.problem(404, "not_found");
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains("did you mean") && detail.len() < 300, "{detail}");
        says(&problem, &["/openapi.json"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_in_the_place_of_an_id_is_told() {
    let server = TestServer::start().await;
    for verb in ["execute", "complete", "fail", "release", "cancel"] {
        let answer = server.post(&format!("/tasks/{verb}")).json(&json!({})).send().await;
        let problem = answer.problem(405, "method_not_allowed");
        says(&problem, &[&format!("POST /api/v1/tasks/{{task_id}}/{verb}")]);
    }
    let problem = server.get("/tasks/claim").send().await.problem(405, "method_not_allowed");
    says(&problem, &["/api/v1/tasks/claim", "POST"]);
    let answer = server.request("PATCH", &format!("/tasks/{}", Uuid::now_v7())).send().await;
    let problem = answer.problem(405, "method_not_allowed");
    says(&problem, &["GET, HEAD, PUT, DELETE", "PUT"]);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, DELETE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_says_what_it_takes() {
    let server = TestServer::start().await;
    let list = async |name: &str, value: &str| {
        server.get("/tasks").query(&[(name, value)]).send().await.problem(400, "invalid_parameter")
    };
    says(
        &list("status", "failed,pending").await,
        &[
            "pending, scheduled, processing, completed, failed, cancelled, any",
            "status=failed&status=pending",
        ],
    );
    says(&list("status", "faild").await, &["did you mean failed?"]);
    says(&list("task_type", "a,b").await, &["task_type=a&task_type=b"]);
    says(&list("tag", "a").await, &["key:value"]);
    says(&list("state", "failed").await, &["no such query parameter", "status"]);
    says(&list("created_aftr", "x").await, &["did you mean created_after?"]);
    says(&list("limit", "101").await, &["a whole number from 1 to 100"]);
    let long = list(&"x".repeat(2000), "1").await;
    assert!(long["detail"].as_str().is_some_and(|detail| detail.len() < 500), "{long}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_none_is_not_said_to_be_anothers() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    for _ in 0..2 {
        server.create(json!({"task_type": task_type})).await;
    }
    let first = server.get("/tasks").query(&[("limit", "1")]).send().await.ok();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    let ask = async |cursor: &str, status: &str| {
        server.get("/tasks").query(&[("cursor", cursor), ("status", status)]).send().await
    };
    for garbage in ["garbage", "!", "", &cursor[1..], &"A".repeat(500)] {
        says(&ask(garbage, "pending").await.problem(400, "invalid_parameter"), &["no cursor", "next_cursor"]);
    }
    says(&ask(&cursor, "failed").await.problem(400, "invalid_parameter"), &["other filters"]);
    ask(&cursor, "pending").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_verb_names_the_one_that_does_it() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let task = server.create(json!({"task_type": task_type})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let post =
        async |verb: &str, body: Value| server.post(&format!("{path}/{verb}")).json(&body).send().await;
    let edit = server.put(&path).json(&json!({"status": "completed"})).send().await;
    says(&edit.problem(422, "validation_failed"), &["/status", "cancel", "execute"]);
    says(&post("execute", json!({})).await.problem(409, "invalid_transition"), &["pending", "already ready"]);
    let lost = post("complete", json!({"lease_token": "made-up"})).await.problem(409, "lease_lost");
    says(&lost, &["pending", "claim"]);

    let claimed = server.claim(&task_type).await;
    let edit = server.put(&path).json(&json!({"name": "n"})).send().await.problem(409, "invalid_transition");
    says(&edit, &["processing", "cancel"]);
    let delete = server.delete(&path).send().await.problem(409, "invalid_transition");
    says(&delete, &["processing", "force=true", "cancel"]);
    let moved = server.put(&format!("{path}/status")).json(&json!({"status": "completed"})).send().await;
    says(&moved.problem(409, "invalid_transition"), &["lease", "complete"]);
    says(&post("execute", json!({})).await.problem(409, "invalid_transition"), &["processing", "cancel"]);
    let claim = post("claim", json!({"worker_id": "late"})).await.problem(409, "task_not_claimable");
    says(&claim, &["processing", "another"]);
    let lost = post("heartbeat", json!({"lease_token": "made-up"})).await.problem(409, "lease_lost");
    says(&lost, &["processing", "attempt 1"]);

    let token = claimed["lease"]["token"].clone();
    post("complete", json!({"lease_token": token})).await.ok();
    let edit = server.put(&path).json(&json!({"name": "n"})).send().await.problem(409, "invalid_transition");
    says(&edit, &["completed", "execute"]);
    says(&post("cancel", json!({})).await.problem(409, "invalid_transition"), &["completed", "final"]);
    let claim = post("claim", json!({"worker_id": "late"})).await.problem(409, "task_not_claimable");
    says(&claim, &["completed", "execute"]);
    let fail = post("fail", json!({"lease_token": token, "error": {"message": "m"}})).await;
    says(&fail.problem(409, "lease_lost"), &["completed"]);
    let scheduled = server.create(json!({"delay_seconds": 3600})).await;
    let claim = server.post(&format!("/tasks/{}/claim", id_of(&scheduled))).json(&json!({"worker_id": "w"}));
    says(&claim.send().await.problem(409, "task_not_claimable"), &["scheduled", "run_at", "execute"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reused_idempotency_key_names_its_task() {
    let server = TestServer::start().await;
    let create = async |path: &str, user: &str, body: Value| {
        server.post(path).user(user).header("Idempotency-Key", "once").json(&body).send().await
    };
    let first = create("/tasks", "a", json!({"task_type": "t"})).await.ok();
    let reused =
        create("/tasks", "a", json!({"task_type": "u"})).await.problem(422, "idempotency_key_reused");
    assert_eq!(reused["task_id"], first["id"], "{reused:#}");
    says(&reused, &["another body", "24 hours"]);
    // Another user's key is another key.
    let other = create("/tasks", "b", json!({"task_type": "u"})).await.ok();
    assert_ne!(other["id"], first["id"]);
    // A task that the caller may not see is not named.
    server.delete(&format!("/tasks/{}", id_of(&first))).send().await.success();
    let reused =
        create("/tasks", "a", json!({"task_type": "u"})).await.problem(422, "idempotency_key_reused");
    assert_eq!(reused["task_id"], Value::Null, "{reused:#}");
    let issued = json!({"name": "n", "roles": ["producer"], "task_types": ["u"]});
    let key = server.post("/keys").json(&issued).send().await.ok();
    create("/tasks", "c", json!({"task_type": "t"})).await.ok();
    let call = server.post("/tasks").user("c").key(key["key"].as_str().unwrap());
    let reused = call.header("Idempotency-Key", "once").json(&json!({"task_type": "u"})).send().await;
    assert_eq!(reused.problem(422, "idempotency_key_reused")["task_id"], Value::Null);
}
