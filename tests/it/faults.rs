//! All faults of a body in one answer: where each is, in which order, and in words that need no knowledge of Rust.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, assert_problem};
use uuid::Uuid;

/// The places of a problem's faults with their kinds, in order.
fn places(problem: &Value) -> Vec<(Value, String)> {
    let errors = problem["errors"].as_array().expect("errors");
    errors
        .iter()
        .map(|error| (error["loc"].clone(), error["type"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn expected(places: &[(Value, &str)]) -> Vec<(Value, String)> {
    places.iter().map(|(loc, kind)| (loc.clone(), (*kind).to_owned())).collect()
}

fn message<'p>(problem: &'p Value, loc: &Value) -> &'p str {
    let errors = problem["errors"].as_array().expect("errors");
    let error =
        errors.iter().find(|error| &error["loc"] == loc).unwrap_or_else(|| panic!("no {loc}: {problem:#}"));
    error["msg"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_names_all_faults_in_the_order_of_the_text() {
    let server = TestServer::start().await;
    let body = r#"{"a.b":1,"retry":{"strategy":"fixed","jitter":2,"backoff":"expo"},"priority":101,"name":"",
        "max_attempts":2.5,"tags":{"k":1,"a:b":"c"},"delay_seconds":"5","run_at":"tomorrow","metadata":[],
        "template":{"service_type":7}}"#;
    let problem = server.post("/tasks").json_text(body).send().await.problem(422, "validation_failed");
    let all = expected(&[
        (json!(["body", "a.b"]), "unknown_field"),
        (json!(["body", "retry", "strategy"]), "unknown_field"),
        (json!(["body", "retry", "jitter"]), "value_error"),
        (json!(["body", "retry", "backoff"]), "value_error"),
        (json!(["body", "priority"]), "value_error"),
        (json!(["body", "name"]), "value_error"),
        (json!(["body", "max_attempts"]), "type_error"),
        (json!(["body", "tags", "k"]), "type_error"),
        (json!(["body", "tags", "a:b"]), "value_error"),
        (json!(["body", "delay_seconds"]), "type_error"),
        (json!(["body", "run_at"]), "value_error"),
        (json!(["body", "metadata"]), "type_error"),
        (json!(["body", "template", "service_type"]), "type_error"),
        (json!(["body", "task_type"]), "missing"),
    ]);
    assert_eq!(places(&problem), all, "{problem:#}");
    for (loc, words) in [
        (
            json!(["body", "priority"]),
            "a whole number from 0 to 100, or one of low, medium, high, critical is expected, not 101",
        ),
        (json!(["body", "name"]), "a string of 1 to 255 characters is expected, not one of 0"),
        (json!(["body", "max_attempts"]), "a whole number from 1 to 50 is expected, not 2.5"),
        (json!(["body", "delay_seconds"]), "a whole number from 0 to 31536000 is expected, not a string"),
        (json!(["body", "retry", "jitter"]), "a number from 0 to 1 is expected, not 2"),
        (
            json!(["body", "retry", "backoff"]),
            "one of exponential, linear, fixed is expected; did you mean exponential?",
        ),
    ] {
        assert_eq!(message(&problem, &loc), words);
    }
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains("13 more faults")),
        "{problem:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_comes_last_in_the_order_of_the_table() {
    let server = TestServer::start().await;
    let fail = server.post(&format!("/tasks/{}/fail", Uuid::now_v7()));
    let problem = fail.json_text(r#"{"error":{"code":7},"retry":"sometimes"}"#).send().await;
    let all = expected(&[
        (json!(["body", "error", "code"]), "type_error"),
        (json!(["body", "retry"]), "value_error"),
        (json!(["body", "lease_token"]), "missing"),
        (json!(["body", "error", "message"]), "missing"),
    ]);
    assert_eq!(places(&problem.problem(422, "validation_failed")), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_items_faults_name_the_innermost_member() {
    let server = TestServer::start().await;
    let good = json!({"task_type": "t"});
    let bad = json!({"task_type": "t", "retry": {"strategy": "fixed"}, "lease_seconds": 0});
    let answer =
        server.post("/tasks/batch").json(&json!({"tasks": [good, good, good, bad]})).send().await.ok();
    let problem = &answer["results"][3]["problem"];
    assert_problem(problem, 422, "validation_failed");
    let all = expected(&[
        (json!(["body", "tasks", 3, "lease_seconds"]), "value_error"),
        (json!(["body", "tasks", 3, "retry", "strategy"]), "unknown_field"),
    ]);
    assert_eq!(places(problem), all, "{problem:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_beyond_the_form_are_told_beside_faults_of_the_form() {
    let server = TestServer::start().await;
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let body = format!(
        r#"{{"priority":101,"request":{deep},"metadata":{{"n":123456789012345678901234567890}},"delay_seconds":1,
            "run_at":"2030-01-01T00:00:00Z"}}"#
    );
    let problem = server.post("/tasks").json_text(body).send().await.problem(422, "validation_failed");
    let all = expected(&[
        (json!(["body", "priority"]), "value_error"),
        (json!(["body", "request"]), "value_error"),
        (json!(["body", "metadata"]), "value_error"),
        (json!(["body", "delay_seconds"]), "value_error"),
        (json!(["body", "task_type"]), "missing"),
    ]);
    assert_eq!(places(&problem), all, "{problem:#}");
    // Which fields go with an outcome cannot be told while the outcome is not known.
    let outcome = json!({"id": "x", "lease_token": "x", "outcome": "complete", "delay_seconds": 1});
    let answer = server.post("/tasks/outcomes").json(&json!({"outcomes": [outcome]})).send().await.ok();
    let problem = &answer["results"][0]["problem"];
    assert_eq!(places(problem), expected(&[(json!(["body", "outcomes", 0, "outcome"]), "value_error")]));
    assert!(
        message(problem, &json!(["body", "outcomes", 0, "outcome"])).ends_with("did you mean completed?")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_field_leads_to_the_known_one() {
    let server = TestServer::start().await;
    for (field, near) in [
        ("type", "task_type"),
        ("taskType", "task_type"),
        ("Task_Type", "task_type"),
        ("priorty", "priority"),
        ("delay", "delay_seconds"),
        ("max_atempts", "max_attempts"),
        ("retention", "retention_seconds"),
    ] {
        let problem = server.post("/tasks").json(&json!({"task_type": "t", field: 1})).send().await;
        let problem = problem.problem(422, "validation_failed");
        let words = format!("there is no such field here; did you mean {near}?");
        assert_eq!(message(&problem, &json!(["body", field])), words);
    }
    let problem = server.post("/tasks").json(&json!({"task_type": "t", "version": 1, "zzz": 1})).send().await;
    let problem = problem.problem(422, "validation_failed");
    assert_eq!(message(&problem, &json!(["body", "version"])), "only the server sets this field");
    assert!(message(&problem, &json!(["body", "zzz"])).contains("there are delay_seconds, description"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_a_bound_whatever_the_body() {
    let server = TestServer::start().await;
    let many: Vec<_> = (0..50_000).map(|n| format!(r#""field-{n}":{n}"#)).collect();
    let long = format!(r#"{{"task_type":"t","{}":1}}"#, "k".repeat(1 << 20));
    for (path, body) in [
        ("/tasks", format!("{{{}}}", many.join(","))),
        ("/tasks", long),
        ("/tasks/batch", format!(r#"{{"tasks":[{}1],"x":1}}"#, "1,".repeat(4 << 20))),
        ("/tasks/batch", format!(r#"{{"tasks":[{}1]}}"#, "{},".repeat(2_000_000))),
        ("/tasks/claim", format!(r#"{{"task_types":[{}1]}}"#, "1,".repeat(400_000))),
    ] {
        let answer = server.post(path).json_text(body).send().await;
        let problem = answer.problem(422, "validation_failed");
        assert!((1..=20).contains(&places(&problem).len()), "{problem:.1000}");
        assert!(answer.body.len() < 16 << 10, "{} bytes", answer.body.len());
    }
}
