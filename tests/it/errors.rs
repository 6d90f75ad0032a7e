//! Every documented error, provoked once, with the members that go with it.

use serde_json::{Value, json};
use task_repo_protocol::path;
use task_repo_tests::{API_KEY, ROUTES, SYSTEM_ROUTES, TestServer, id_of, unique_type};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_asked_for() {
    let server = TestServer::start().await;
    for path in ["/tasks", "/keys", "/metrics", "/health/detailed"] {
        server.get(path).no_key().send().await.problem(401, "unauthenticated");
        server.get(path).key("no_such_key").send().await.problem(401, "unauthenticated");
        server.get(path).key("").send().await.problem(401, "unauthenticated");
        let api_key = |key: &str| server.get(path).no_key().header("X-API-Key", key);
        api_key("no_such_key").send().await.problem(401, "unauthenticated");
        api_key("").send().await.problem(401, "unauthenticated");
        assert_eq!(api_key(API_KEY).send().await.status, 200, "{path}");
        assert_eq!(server.get(path).send().await.status, 200, "{path}");
        let basic = server.get(path).no_key().header("Authorization", "Basic dGVzdF9hcGlfa2V5");
        basic.send().await.problem(401, "unauthenticated");
        let bare = server.get(path).no_key().header("Authorization", API_KEY);
        bare.send().await.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_asked_for_on_every_route() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7().to_string();
    for route in ROUTES {
        let mut call = server.request(route.method, &route.path_for(&id)).no_key();
        if let Some(body) = route.body {
            call = call.json_text(body);
        }
        call.send().await.problem(401, "unauthenticated");
    }
    for (path, needs_key) in SYSTEM_ROUTES {
        let status = server.get(path).no_key().send().await.status;
        assert_eq!(status == 401, *needs_key, "{path} answered {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_route_is_not_found_once_the_caller_is_known() {
    let server = TestServer::start().await;
    let below_a_task = format!("/tasks/{}/nonsense", Uuid::now_v7());
    let deep = format!("/tasks/{}/status/deep", Uuid::now_v7());
    for path in [
        "/nonsense",
        "/api/v1/nonsense",
        "/api/v2/tasks",
        "/api/v1",
        "/health/nonsense",
        &below_a_task,
        &deep,
    ] {
        for method in ["GET", "POST"] {
            server.request(method, path).no_key().send().await.problem(401, "unauthenticated");
            server.request(method, path).send().await.problem(404, "not_found");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_names_its_methods_when_asked_for_another() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7().to_string();
    for path in ROUTES.iter().map(|route| route.path) {
        let methods: Vec<_> =
            ROUTES.iter().filter(|route| route.path == path).map(|route| route.method).collect();
        let route = ROUTES.iter().find(|route| route.path == path).unwrap();
        // Below `/tasks/` a method that these fixed names do not have could be meant for a task of that name.
        let fixed = [path::TASKS_BATCH, path::TASKS_CLAIM, path::TASKS_HEARTBEAT, path::TASKS_OUTCOMES]
            .contains(&path);
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if methods.contains(&other) || (fixed && other != "PATCH") {
                continue;
            }
            let answer = server.request(other, &route.path_for(&id)).send().await;
            answer.problem(405, "method_not_allowed");
            let allow: Vec<_> =
                answer.header("allow").unwrap_or_default().split(',').map(str::trim).collect();
            assert!(methods.iter().all(|method| allow.contains(method)), "{other} {path}: {allow:?}");
            assert!(!allow.contains(&other), "{other} {path}: {allow:?}");
        }
    }
    for (path, _) in SYSTEM_ROUTES {
        let answer = server.post(path).send().await;
        answer.problem(405, "method_not_allowed");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{path}");
    }
    server.request("BREW", "/tasks").send().await.problem(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_json() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7().to_string();
    for (route, body) in ROUTES.iter().filter_map(|route| Some((route, route.body?))) {
        let path = route.path_for(&id);
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/xml"]
        {
            let answer = server.request(route.method, &path).body(body, kind).send().await;
            answer.problem(415, "unsupported_media_type");
        }
        let answer = server.request(route.method, &path).untyped_body(body).send().await;
        answer.problem(415, "unsupported_media_type");
    }
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"] {
        server.post("/tasks").body(r#"{"task_type":"media"}"#, kind).send().await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_beyond_its_limit_is_too_large() {
    let server = TestServer::start().await;
    let huge = |head: &str, tail: &str| format!("{head}{}{tail}", "x".repeat(3 << 20));
    let id = Uuid::now_v7();
    let cases = [
        ("POST", "/tasks".to_owned(), huge(r#"{"task_type":"t","request":""#, r#""}"#)),
        ("PUT", format!("/tasks/{id}"), huge(r#"{"request":""#, r#""}"#)),
        ("POST", format!("/tasks/{id}/complete"), huge(r#"{"lease_token":"x","result":""#, r#""}"#)),
        ("PUT", format!("/tasks/{id}/status"), huge(r#"{"status":"completed","result":""#, r#""}"#)),
    ];
    for (method, path, body) in cases {
        server.request(method, &path).json_text(body).send().await.problem(413, "payload_too_large");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let missing = Uuid::now_v7().to_string();
    let gone = server.create(json!({})).await;
    assert_eq!(server.delete(&format!("/tasks/{}", id_of(&gone))).send().await.status, 204);
    for id in [missing.as_str(), id_of(&gone), "42", "no-uuid", "%20", "0198f2c4", "%E2%82%AC"] {
        for route in ROUTES.iter().filter(|route| route.names_a_task()) {
            let mut call = server.request(route.method, &route.path_for(id));
            if let Some(body) = route.body {
                call = call.json_text(body);
            }
            call.send().await.problem(404, "task_not_found");
        }
        if id != id_of(&gone) {
            server.delete(&format!("/keys/{id}")).send().await.problem(404, "key_not_found");
            let rotate = server.post(&format!("/keys/{id}/rotate")).json(&json!({}));
            rotate.send().await.problem(404, "key_not_found");
        }
        server.get(&format!("/tasks/by-result/{id}")).send().await.problem(404, "task_not_found");
    }
    let found = server.get(&format!("/tasks/{missing}")).send().await.problem(404, "task_not_found");
    assert_eq!(found["task_id"], missing.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_says_what_stands_in_the_way() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let task = server.create(json!({"task_type": task_type})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let post =
        async |verb: &str, body: Value| server.post(&format!("{path}/{verb}")).json(&body).send().await;

    post("complete", json!({"lease_token": "made-up"})).await.problem(409, "lease_lost");
    let execute = async || server.post(&format!("{path}/execute")).send().await;
    let pending = execute().await.problem(409, "invalid_transition");
    assert_eq!(pending["current_status"], "pending");

    let claimed = server.claim(&task_type).await;
    let refusals = [
        (post("claim", json!({"worker_id": "late"})).await, "task_not_claimable"),
        (server.put(&path).json(&json!({"name": "late"})).send().await, "invalid_transition"),
        (server.delete(&path).send().await, "invalid_transition"),
        (
            server.put(&format!("{path}/status")).json(&json!({"status": "completed"})).send().await,
            "invalid_transition",
        ),
        (execute().await, "invalid_transition"),
        (post("complete", json!({"lease_token": "made-up"})).await, "lease_lost"),
        (post("heartbeat", json!({"lease_token": "made-up"})).await, "lease_lost"),
        (post("release", json!({"lease_token": "made-up"})).await, "lease_lost"),
        (post("cancel", json!({"lease_token": "made-up"})).await, "lease_lost"),
        (post("fail", json!({"lease_token": "made-up", "error": {"message": "m"}})).await, "lease_lost"),
    ];
    for (answer, code) in refusals {
        let problem = answer.problem(409, code);
        assert_eq!(problem["current_status"], "processing", "{problem:#}");
        assert_eq!(problem["task_id"], task["id"], "{problem:#}");
        if code == "lease_lost" {
            assert_eq!(problem["attempt"], 1, "{problem:#}");
        }
    }
    let after = server.task(id_of(&task)).await;
    assert_eq!(after["version"], claimed["version"], "a refused write changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_422_names_every_place() {
    let server = TestServer::start().await;
    let body = json!({"task_type": "bad type", "priority": 101, "name": ""});
    let problem = server.post("/tasks").json(&body).send().await.problem(422, "validation_failed");
    assert!(problem["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{problem:#}");
    let one = server.post("/tasks").json(&json!({"task_type": "t", "priority": 101})).send().await;
    assert_eq!(one.problem(422, "validation_failed")["errors"][0]["loc"], json!(["body", "priority"]));
    let inside = server.post("/tasks").json(&json!({"task_type": "t", "retry": {"jitter": 2}})).send().await;
    assert_eq!(
        inside.problem(422, "validation_failed")["errors"][0]["loc"],
        json!(["body", "retry", "jitter"])
    );
    let version = server.create(json!({})).await;
    let stale = server.put(&format!("/tasks/{}", id_of(&version))).header("If-Match", "\"999\"");
    stale.json(&json!({"name": "n"})).send().await.problem(412, "version_conflict");
}
