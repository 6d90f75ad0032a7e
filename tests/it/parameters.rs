//! Query parameters and headers that break their rules: 400 `invalid_parameter`.

use serde_json::json;
use task_repo_tests::{ROUTES, TestServer, id_of};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_query_parameters_are_refused_on_every_route() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7().to_string();
    for route in ROUTES {
        let mut call = server.request(route.method, &route.path_for(&id)).query(&[("nonsense", "1")]);
        if let Some(body) = route.body {
            call = call.json_text(body);
        }
        call.send().await.problem(400, "invalid_parameter");
    }
    let tasks = server.get("/tasks").query(&[("status", "any")]).send().await.ok();
    assert_eq!(tasks["tasks"], json!([]), "the refused create made a task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_parameters_keep_to_their_rules() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let wrong = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=",
        "limit=99999999999999999999",
        "status=done",
        "status=Pending",
        "status=",
        "status=pending&status=nonsense",
        "cursor=garbage",
        "cursor=%00",
        "cursor=",
        "created_after=yesterday",
        "created_after=2030-01-01",
        "created_before=2030-01-01T00:00:00",
        "created_before=1700000000",
        "created_before=",
        "include=everything",
        "include=payload,result",
        "include=",
        "tag=nocolon",
        "task_type=a%20b",
        "task_type=",
        "task_type=.*",
        "task_type=%FF",
        "user_id=",
        "user_id=a%20b",
        "user_id=%C3%A9",
        "user_id=%ED%A0%80",
        "wait_ms=1",
        "force=true",
        "nonsense",
        "Limit=5",
    ];
    for query in wrong {
        server.get(&format!("/tasks?{query}")).send().await.problem(400, "invalid_parameter");
    }
    for query in
        ["wait_ms=-1", "wait_ms=30001", "wait_ms=x", "wait_ms=", "wait_ms=0.5", "include=payload", "limit=1"]
    {
        server.get(&format!("{path}?{query}")).send().await.problem(400, "invalid_parameter");
    }
    for query in ["force=maybe", "force=2", "wait_ms=0"] {
        server.delete(&format!("{path}?{query}")).send().await.problem(400, "invalid_parameter");
    }
    for name in ["status", "task_type", "tag"] {
        let value = if name == "tag" { "k:v" } else { "pending" };
        let times = |count| vec![(name, value); count];
        server.get("/tasks").query(&times(32)).send().await.ok();
        server.get("/tasks").query(&times(33)).send().await.problem(400, "invalid_parameter");
    }
    assert_eq!(server.get(&format!("{path}?wait_ms=0")).send().await.ok(), task);
    let right = format!("limit=1&limit=1&status=any&cursor={}", "x".repeat(5000));
    assert_eq!(server.get(&format!("/tasks?{right}")).send().await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_keep_to_their_rules() {
    let server = TestServer::start().await;
    let body = json!({"task_type": "headers"});
    let long = |length: usize| "x".repeat(length);
    let rules = [("X-Tenant-ID", 128), ("X-User-ID", 255), ("Idempotency-Key", 255)];
    for (name, most) in rules {
        for wrong in [long(most + 1), String::new(), "a b".to_owned(), "é".to_owned(), "a\tb".to_owned()] {
            let answer = server.post("/tasks").header(name, &wrong).json(&body).send().await;
            answer.problem(400, "invalid_parameter");
        }
        for right in ["!".to_owned(), "~#$%{}\"\\".to_owned(), long(most)] {
            server.post("/tasks").header(name, &right).json(&body).send().await.ok();
        }
    }
    let on_read = server.get("/tasks").user(&long(256)).send().await;
    on_read.problem(400, "invalid_parameter");
    let on_read = server.get("/tasks").tenant(&long(129)).send().await;
    on_read.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_urls_and_headers_do_no_harm() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let long = "x".repeat(5000);
    let paths = [
        "/tasks/%00",
        "/tasks/%FF%FE",
        "/tasks/%ED%A0%80/status",
        "/tasks/..%2f..%2fetc",
        "/tasks/$where",
        "/tasks/{id}",
        "/tasks/by-result/%00",
        "/tasks/by-result/%FF",
        "/tasks/by-result/$ne",
        "/tasks/by-result/a%2Fb",
        "/keys/%00",
        "/tasks/",
        "/tasks//status",
        "//",
        "/%00",
        "/%FF",
        "/tasks?%FF=%FF",
        "/tasks?=",
        "/tasks?&&",
        "/tasks?tag=%00:%00",
        "/tasks?tag=$where:1&tag=.:.",
        "/tasks?created_after=%2B999999-01-01T00:00:00Z",
        "/openapi.json?x=1",
        "/docs/../x",
        "/docs/%00",
        "/docs/%2e%2e/%2e%2e/Cargo.toml",
    ];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            server.request(method, path).send().await;
        }
    }
    for path in
        [format!("/tasks/{long}"), format!("/tasks/by-result/{long}"), format!("/tasks?task_type={long}")]
    {
        assert!((400..500).contains(&server.get(&path).send().await.status));
    }
    let headers = [
        ("X-Request-ID", long.as_str()),
        ("X-Request-ID", ""),
        ("X-Request-ID", "é\t"),
        ("Accept", "nonsense"),
        ("Accept-Encoding", "nonsense;q=x"),
        ("If-Match", "é"),
        ("Content-Encoding", "gzip"),
        ("Content-Encoding", "x"),
        ("Accept-Charset", "utf-16"),
        ("Range", "bytes=0-1"),
        ("Content-Type", "é"),
        ("Content-Type", ""),
        ("Expect", "nonsense"),
        ("Origin", "https://example.org"),
    ];
    for (name, value) in headers {
        server.get("/tasks").header(name, value).send().await;
        server.put(&format!("/tasks/{}", id_of(&task))).header(name, value).send().await;
    }
    let both = server.get("/tasks").user("alice").user("bob").send().await;
    assert!(both.status < 500);
    server.get("/health").no_key().send().await.ok();
}
