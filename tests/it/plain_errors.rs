//! Errors read by somebody who has never seen the code: each names what is wrong and what is expected.

use serde_json::json;
use task_repo_tests::{TestServer, id_of};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_body_is_called_empty() {
    let server = TestServer::start().await;
    for path in ["/tasks", "/tasks/batch", "/tasks/claim", "/tasks/outcomes", "/keys"] {
        let problem = server.post(path).json_text("").send().await.problem(400, "malformed_json");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("the body is empty"), "{path}: {detail}");
    }
    let task = server.create(json!({"delay_seconds": 3600})).await;
    server.post(&format!("/tasks/{}/execute", id_of(&task))).json_text("").send().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_whose_plus_became_a_space_is_told() {
    let server = TestServer::start().await;
    for (query, is_told) in [
        ("created_after=2026-01-01T00:00:00+02:00", true),
        ("created_before=2026-01-01T00:00:00.5+00:00", true),
        ("created_after=2026-01-01 00:00:00", false),
        ("created_after=now", false),
    ] {
        let query = query.replace("01 00", "01%2000");
        let problem = server.get(&format!("/tasks?{query}")).send().await.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(detail.ends_with("in a query + is written %2B"), is_told, "{query}: {detail}");
    }
    server.get("/tasks?created_after=2026-01-01T00:00:00%2B02:00").send().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_stands_twice_is_told() {
    let server = TestServer::start().await;
    for name in ["X-Tenant-ID", "X-User-ID", "Idempotency-Key"] {
        let twice =
            server.post("/tasks").header(name, "a").header(name, "a").json(&json!({"task_type": "t"}));
        let problem = twice.send().await.problem(400, "invalid_parameter");
        assert_eq!(problem["detail"], format!("{name}: it may stand once only"));
        let wrong = server.post("/tasks").header(name, "a b").json(&json!({"task_type": "t"}));
        let problem = wrong.send().await.problem(400, "invalid_parameter");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{name}: 1 to ")), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_problem_repeats_much_of_what_was_sent() {
    let server = TestServer::start().await;
    let long = "x".repeat(5000);
    let item = |id: &str| json!({"id": id, "lease_token": "t", "outcome": "completed"});
    let body = json!({"outcomes": [item(&long), item(&Uuid::now_v7().to_string())]});
    let answer = server.post("/tasks/outcomes").json(&body).send().await.ok();
    let beat = json!({"heartbeats": [{"id": long, "lease_token": "t"}]});
    let beaten = server.post("/tasks/heartbeat").json(&beat).send().await.ok();
    let mut problems = vec![
        answer["results"][0]["problem"].clone(),
        answer["results"][1]["problem"].clone(),
        beaten["results"][0]["problem"].clone(),
    ];
    for path in ["/tasks/", "/tasks/by-result/"] {
        problems.push(server.get(&format!("{path}{long}")).send().await.problem(404, "task_not_found"));
    }
    problems.push(server.delete(&format!("/keys/{long}")).send().await.problem(404, "key_not_found"));
    for problem in problems {
        assert!(problem["code"].as_str().is_some_and(|code| code.ends_with("_not_found")), "{problem}");
        assert!(problem.to_string().len() < 600, "{problem}");
    }
}
