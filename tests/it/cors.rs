//! Pages of named origins may call the API from a browser, and no others.

use serde_json::json;
use task_repo_tests::{HttpAnswer, TestServer, unique_type};

const PAGE: &str = "https://app.example.com";
const OTHER: &str = "http://localhost:3000";

async fn server() -> TestServer {
    TestServer::start_with(|settings| {
        settings.http.cors_allowed_origins = vec![PAGE.to_owned(), OTHER.to_owned()];
    })
    .await
}

fn vary(answer: &HttpAnswer) -> Vec<String> {
    let values = answer.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_lowercase()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_of_a_named_origin_needs_no_key() {
    let server = server().await;
    for path in ["/tasks", "/tasks/claim", "/tasks/x/stream", "/keys", "/health"] {
        let preflight = server.request("OPTIONS", path).no_key().header("origin", PAGE);
        let preflight = preflight
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "authorization,if-match,x-tenant-id");
        let answer = preflight.send().await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.header("access-control-max-age"), Some("600"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(vary(&answer).contains(&"origin".to_owned()), "{answer:?}");
        let list = |name: &str| answer.header(name).unwrap_or_default().to_lowercase();
        let methods = list("access-control-allow-methods");
        assert!(["get", "head", "post", "put", "delete"].iter().all(|it| methods.contains(it)), "{methods}");
        let headers = list("access-control-allow-headers");
        let names: Vec<_> = headers.split(", ").collect();
        for name in [
            "authorization",
            "x-api-key",
            "x-tenant-id",
            "x-user-id",
            "x-request-id",
            "x-subscription-level",
            "idempotency-key",
            "if-match",
            "content-type",
            "last-event-id",
            "cache-control",
        ] {
            assert!(names.contains(&name), "{name}: {headers}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_named_origin_allows_it_problems_too() {
    let server = server().await;
    let created = server.post("/tasks").header("origin", OTHER).json(&json!({"task_type": unique_type()}));
    let answers = [
        created.send().await,
        server.get("/tasks/none").header("origin", OTHER).send().await,
        server.get("/tasks").no_key().header("origin", OTHER).send().await,
        server.get("/no-such-route").header("origin", OTHER).send().await,
        server.put("/tasks").header("origin", OTHER).send().await,
        server.get("/tasks?limit=x").header("origin", OTHER).send().await,
        server.get("/health").no_key().header("origin", OTHER).send().await,
    ];
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 404, 401, 404, 405, 400, 200]);
    for answer in answers {
        assert_eq!(answer.header("access-control-allow-origin"), Some(OTHER), "{answer:?}");
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default().to_lowercase();
        for name in ["etag", "location", "retry-after", "idempotent-replayed", "x-request-id"] {
            assert!(exposed.split(", ").any(|it| it == name), "{name}: {answer:?}");
        }
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:?}");
        assert!(vary(&answer).contains(&"origin".to_owned()), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_origins_are_told_nothing() {
    let server = server().await;
    for origin in
        ["https://evil.example", "https://app.example.com.evil.example", "null", "https://APP.example.com"]
    {
        let answer = server.get("/tasks").header("origin", origin).send().await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{answer:?}");
        assert!(vary(&answer).contains(&"origin".to_owned()), "{answer:?}");
        let preflight = server.request("OPTIONS", "/tasks").no_key().header("origin", origin);
        let answer = preflight.header("access-control-request-method", "GET").send().await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, None), "{answer:?}");
    }
    let plain = server.get("/tasks").send().await;
    assert!(vary(&plain).contains(&"origin".to_owned()), "a cache must not mix them up: {plain:?}");
    let named = server.request("OPTIONS", "/tasks").no_key().header("origin", PAGE).send().await;
    named.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_origins_there_is_no_cross_origin_header() {
    let server = TestServer::start().await;
    let answer = server.get("/tasks").header("origin", PAGE).send().await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{answer:?}");
    assert!(!vary(&answer).contains(&"origin".to_owned()), "{answer:?}");
}
