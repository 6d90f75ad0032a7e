//! Requests whose fault cannot be seen by looking at them: the refusal names it.

use serde_json::json;
use task_repo_tests::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_before_a_body_are_named() {
    let server = TestServer::start().await;
    let body = r#"{"task_type":"t"}"#;
    let utf_16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(body.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for (path, bytes, cause) in [
        ("/tasks", format!("\u{feff}{body}").into_bytes(), "byte order mark"),
        ("/tasks", utf_16.clone(), "UTF-16"),
        ("/tasks/claim", "\u{feff}{}".as_bytes().to_vec(), "byte order mark"),
        ("/tasks/batch", "\u{feff}{\"tasks\":[]}".as_bytes().to_vec(), "byte order mark"),
        ("/tasks/outcomes", utf_16, "UTF-16"),
    ] {
        let problem = server.post(path).json_text(bytes).send().await.problem(400, "malformed_json");
        assert!(problem["detail"].as_str().unwrap().contains(cause), "{path}: {problem:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_number_in_another_spelling_is_told_how_to_write_it() {
    let server = TestServer::start().await;
    for (given, meant) in [("1.0", "write it as 1"), ("2e1", "write it as 20"), ("-0", "write it as 0")] {
        for field in ["max_attempts", "priority", "delay_seconds"] {
            let body = format!(r#"{{"task_type":"t","{field}":{given}}}"#);
            let problem =
                server.post("/tasks").json_text(body).send().await.problem(422, "validation_failed");
            let rule = problem["errors"][0]["msg"].as_str().unwrap();
            assert!(rule.contains("whole number") && rule.ends_with(meant), "{field} {given}: {rule}");
        }
    }
    let problem = server.post("/tasks").json(&json!({"task_type": "t", "max_attempts": 1.5})).send().await;
    let problem = problem.problem(422, "validation_failed");
    assert!(problem["errors"][0]["msg"].as_str().unwrap().ends_with("not 1.5"), "{problem:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plus_sign_that_a_query_turns_into_a_space_is_named() {
    let server = TestServer::start().await;
    for parameter in ["created_after", "created_before", "completed_after", "completed_before"] {
        let answer = server.get(&format!("/tasks?{parameter}=2030-01-31T08:00:00+01:00")).send().await;
        let problem = answer.problem(400, "invalid_parameter");
        assert!(problem["detail"].as_str().unwrap().contains("%2B"), "{problem:#}");
    }
}
