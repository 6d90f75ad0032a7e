//! Creates with one field, and what the service makes of it: taken, kept as given, or refused.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of};

const MILLISECONDS: usize = "2030-01-31T08:00:00.000Z".len();

/// The time that an answer shows, in the form the contract fixes.
pub(crate) fn time_of(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(text.len() == MILLISECONDS && text.ends_with('Z'), "{text}");
    text.parse().unwrap()
}

/// A create of `task_type` `t` with that field.
pub(crate) fn with(field: &str, value: &Value) -> Value {
    let mut body = json!({"task_type": "t"});
    body[field] = value.clone();
    body
}

pub(crate) async fn takes(server: &TestServer, field: &str, values: &[Value]) {
    for value in values {
        let answer = server.post("/tasks").json(&with(field, value)).send().await;
        assert_eq!(answer.status, 201, "{field} {value:.200}: {answer:?}");
    }
}

pub(crate) async fn keeps(server: &TestServer, field: &str, values: &[Value]) {
    for value in values {
        let created = server.post("/tasks").json(&with(field, value)).send().await.ok();
        assert_eq!(created[field], *value);
        assert_eq!(server.task(id_of(&created)).await[field], *value);
    }
}

pub(crate) async fn refuses(server: &TestServer, field: &str, values: &[Value]) {
    for value in values {
        let answer = server.post("/tasks").json(&with(field, value)).send().await;
        assert_eq!(answer.status, 422, "{field} {value:.200}: {answer:?}");
        let problem = answer.problem(422, "validation_failed");
        let mut errors = problem["errors"].as_array().unwrap().iter();
        assert!(errors.any(|error| error["loc"][1] == field), "{field} {value:.200}: {problem:#}");
    }
}
