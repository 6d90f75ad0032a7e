//! Bodies that are not JSON (400), and JSON that does not fit (422).

use serde_json::{Value, json};
use task_repo_tests::{ROUTES, Route, TestServer, assert_problem};
use uuid::Uuid;

fn routes_with_bodies() -> impl Iterator<Item = (&'static Route, &'static str)> {
    ROUTES.iter().filter_map(|route| Some((route, route.body?)))
}

async fn assert_nothing_was_created(server: &TestServer) {
    let tasks = server.get("/tasks").query(&[("status", "any")]).send().await.ok();
    assert_eq!(tasks["tasks"], json!([]), "something refused was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_json_is_malformed() {
    let server = TestServer::start().await;
    let wrong: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"}",
        b"[",
        b"nonsense",
        b"{\"task_type\":\"t\"",
        b"{\"task_type\":\"t\"}}",
        b"{\"task_type\":\"t\"} x",
        b"{\"task_type\":\"t\",}",
        b"{'task_type':'t'}",
        b"{task_type:\"t\"}",
        b"{\"task_type\":\"t\",\"request\":01}",
        b"{\"task_type\":\"t\",\"request\":1.}",
        b"{\"task_type\":\"t\",\"request\":.5}",
        b"{\"task_type\":\"t\",\"request\":+1}",
        b"{\"task_type\":\"t\",\"request\":NaN}",
        b"{\"task_type\":\"t\",\"request\":Infinity}",
        b"{\"task_type\":\"t\",\"request\":[1,]}",
        b"{\"task_type\":\"t\",\"request\":tru}",
        b"{\"task_type\":\"t\",\"request\":{\"a\" 1}}",
        b"{\"task_type\":\"t\",\"request\":\"\\x\"}",
        b"{\"task_type\":\"t\",\"request\":\"\\u12\"}",
        b"{\"task_type\":\"t\",\"request\":\"line\nbreak\"}",
        b"{\"task_type\":\"t\",\"request\":\"\x00\"}",
        b"{\"task_type\":\"t\",\"request\":\"\xff\"}",
        b"{\"task_type\":\"t\",\"request\":\"\xed\xa0\x80\"}",
        b"{\"task_type\":\"t\",\"name\":\"\xc3\x28\"}",
        b"{\"task_type\":\"t\"}\x00",
        b"\xff\xfe{\x00}\x00",
        b"{\"task_type\":\"t\" /* why */}",
        b"{\"task_type\":\"t\"}{}",
        b"{\"task_type\":\"t\",\"request\":}",
        b"{\"task_type\":\"t\",\"request\":[}]}",
    ];
    for body in wrong {
        let answer = server.post("/tasks").json_text(*body).send().await;
        assert_eq!(answer.status, 400, "{}: {answer:?}", String::from_utf8_lossy(body));
        answer.problem(400, "malformed_json");
    }
    let unclosed = format!(r#"{{"task_type":"t","request":{}"#, "[".repeat(100_000));
    server.post("/tasks").json_text(unclosed).send().await.problem(400, "malformed_json");
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_with_a_body_refuses_what_does_not_fit() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7().to_string();
    for (route, body) in routes_with_bodies() {
        let send = async |text: String| {
            server.request(route.method, &route.path_for(&id)).json_text(text).send().await
        };
        for text in ["{", "{]", "nonsense", &format!("{body}}}")] {
            send(text.to_owned()).await.problem(400, "malformed_json");
        }
        for text in ["[]", "[[]]", r#""text""#, "7", "true", &format!("[{body}]")] {
            send(text.to_owned()).await.problem(422, "validation_failed");
        }
        let mut with_more: Value = serde_json::from_str(body).unwrap();
        with_more["nonsense"] = Value::Null;
        let problem = send(with_more.to_string()).await.problem(422, "validation_failed");
        assert_eq!(
            problem["errors"][0]["loc"],
            json!(["body", "nonsense"]),
            "{} {}",
            route.method,
            route.path
        );
        // Each of the members is of another kind than a number beyond all bounds, and none may be left out for it.
        let whole: Value = serde_json::from_str(body).unwrap();
        for member in whole.as_object().unwrap().keys() {
            let mut wrong = whole.clone();
            wrong[member] = "@".into();
            let text = wrong.to_string().replace("\"@\"", "1e400");
            let problem = send(text).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["loc"][1], member.as_str(), "{} {}", route.method, route.path);
        }
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn required_fields_are_named_when_missing() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7();
    let cases = [
        ("POST", "/tasks".to_owned(), json!({}), "task_type"),
        ("POST", "/tasks/batch".to_owned(), json!({}), "tasks"),
        ("POST", "/tasks/claim".to_owned(), json!({"worker_id": "w"}), "task_types"),
        ("POST", "/tasks/claim".to_owned(), json!({"task_types": ["t"]}), "worker_id"),
        ("POST", "/tasks/heartbeat".to_owned(), json!({}), "heartbeats"),
        ("POST", "/tasks/outcomes".to_owned(), json!({}), "outcomes"),
        ("PUT", format!("/tasks/{id}/status"), json!({}), "status"),
        ("POST", format!("/tasks/{id}/claim"), json!({}), "worker_id"),
        ("POST", format!("/tasks/{id}/complete"), json!({}), "lease_token"),
        ("POST", format!("/tasks/{id}/fail"), json!({"error": {"message": "m"}}), "lease_token"),
        ("POST", format!("/tasks/{id}/fail"), json!({"lease_token": "x"}), "error"),
        ("POST", format!("/tasks/{id}/release"), json!({}), "lease_token"),
        ("POST", format!("/tasks/{id}/heartbeat"), json!({}), "lease_token"),
        ("POST", "/keys".to_owned(), json!({"roles": ["viewer"]}), "name"),
        ("POST", "/keys".to_owned(), json!({"name": "n"}), "roles"),
    ];
    for (method, path, body, missing) in cases {
        let problem =
            server.request(method, &path).json(&body).send().await.problem(422, "validation_failed");
        let expected = json!(["body", missing]);
        let errors = problem["errors"].as_array().unwrap();
        assert!(errors.iter().any(|error| error["loc"] == expected), "{path}: {problem:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_only_the_server_sets_are_refused() {
    let server = TestServer::start().await;
    let fields = json!({
        "id": Uuid::now_v7(), "tenant_id": "default", "status": "pending", "reason": null, "attempt": 0, "losses": 0,
        "lease": null, "progress": null, "cancel_requested_at": null, "result": null, "result_id": null, "error": null,
        "usage": {}, "created_at": "2030-01-01T00:00:00Z", "updated_at": null, "started_at": null, "completed_at": null,
        "version": 1, "_id": 1, "Task_Type": "t", "type": "t", "": 1,
    });
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", task["id"].as_str().unwrap());
    for (field, value) in fields.as_object().unwrap() {
        let mut body = json!({"task_type": "t"});
        body[field] = value.clone();
        let problem = server.post("/tasks").json(&body).send().await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], json!(["body", field]), "{problem:#}");
        let edit = json!({field: value});
        server.put(&path).json(&edit).send().await.problem(422, "validation_failed");
    }
    assert_eq!(server.get(&path).send().await.ok(), task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_no_object() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7();
    // Each list holds in order what the object's fields would: it must not be taken for one.
    let cases = [
        ("POST", "/tasks".to_owned(), r#"["t"]"#),
        ("POST", "/tasks".to_owned(), r#"{"task_type":"t","template":["svc",{}]}"#),
        ("POST", "/tasks".to_owned(), r#"{"task_type":"t","retry":["fixed",1,2,0.5]}"#),
        ("POST", "/tasks".to_owned(), r#"{"task_type":"t","metadata":[]}"#),
        ("PUT", format!("/tasks/{id}"), r#"["name"]"#),
        ("PUT", format!("/tasks/{id}"), r#"{"template":["svc",{}]}"#),
        ("PUT", format!("/tasks/{id}/status"), r#"["processing"]"#),
        ("POST", "/tasks/claim".to_owned(), r#"[["t"],1,"w",60,0]"#),
        ("POST", format!("/tasks/{id}/claim"), r#"["w",60]"#),
        ("POST", format!("/tasks/{id}/complete"), r#"["token",1,"r",null]"#),
        ("POST", format!("/tasks/{id}/complete"), r#"{"lease_token":"x","usage":[1,2,3]}"#),
        ("POST", format!("/tasks/{id}/fail"), r#"{"lease_token":"x","error":["m","c",null]}"#),
        ("POST", format!("/tasks/{id}/heartbeat"), r#"{"lease_token":"x","progress":[0.5,"t"]}"#),
        ("POST", format!("/tasks/{id}/release"), r#"["token",0]"#),
        ("POST", format!("/tasks/{id}/cancel"), r#"["token"]"#),
        ("POST", "/keys".to_owned(), r#"["n",["viewer"]]"#),
        ("POST", format!("/keys/{id}/rotate"), "[60]"),
        ("POST", "/tasks/batch".to_owned(), r#"[[{"task_type":"t"}]]"#),
        ("POST", "/tasks/outcomes".to_owned(), r#"{"outcomes":[],"claim":[["t"],1,"w"]}"#),
    ];
    for (method, path, body) in cases {
        let answer = server.request(method, &path).json_text(body).send().await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        answer.problem(422, "validation_failed");
    }
    let items = [
        ("/tasks/batch", r#"{"tasks":[["t"]]}"#),
        ("/tasks/heartbeat", r#"{"heartbeats":[["x","x"]]}"#),
        ("/tasks/outcomes", r#"{"outcomes":[["x","x","completed"]]}"#),
    ];
    for (path, body) in items {
        let answer = server.post(path).json_text(body).send().await.ok();
        assert_problem(&answer["results"][0]["problem"], 422, "validation_failed");
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_surrogate_pair_is_no_text() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7();
    let task = [
        r#""name":"@""#,
        r#""description":"a@b""#,
        r#""user_id":"@""#,
        r#""request":"@""#,
        r#""request":{"@":1}"#,
        r#""request":[[{"a":["@"]}]]"#,
        r#""metadata":{"a":"@"}"#,
        r#""metadata":{"@":1}"#,
        r#""tags":{"a":"@"}"#,
        r#""tags":{"@":"a"}"#,
        r#""tags":["@"]"#,
        r#""template":{"service_type":"@"}"#,
        r#""@":1"#,
        r#""retry":{"@":1}"#,
        r#""template":{"parameters":{"a":"@"}}"#,
        r#""run_at":"@""#,
        r#""priority":"@""#,
    ];
    let mut cases: Vec<_> = task
        .iter()
        .map(|field| ("POST", "/tasks".to_owned(), format!(r#"{{"task_type":"t",{field}}}"#)))
        .chain(
            task.iter()
                .filter(|field| !field.contains("user_id"))
                .map(|field| ("PUT", format!("/tasks/{id}"), format!("{{{field}}}"))),
        )
        .collect();
    let others = [
        ("POST", "/tasks".to_owned(), r#"{"task_type":"@"}"#),
        ("PUT", format!("/tasks/{id}/status"), r#"{"status":"failed","error_message":"@"}"#),
        ("PUT", format!("/tasks/{id}/status"), r#"{"status":"completed","result":["@"]}"#),
        ("POST", format!("/tasks/{id}/complete"), r#"{"lease_token":"x","result":{"@":1}}"#),
        ("POST", format!("/tasks/{id}/complete"), r#"{"lease_token":"x","result_id":"@"}"#),
        ("POST", format!("/tasks/{id}/fail"), r#"{"lease_token":"x","error":{"message":"@"}}"#),
        ("POST", format!("/tasks/{id}/fail"), r#"{"lease_token":"x","error":{"message":"m","code":"@"}}"#),
        (
            "POST",
            format!("/tasks/{id}/fail"),
            r#"{"lease_token":"x","error":{"message":"m","details":["@"]}}"#,
        ),
        ("POST", format!("/tasks/{id}/heartbeat"), r#"{"lease_token":"x","progress":{"text":"@"}}"#),
        ("POST", format!("/tasks/{id}/claim"), r#"{"worker_id":"@"}"#),
        ("POST", "/tasks/claim".to_owned(), r#"{"task_types":["t"],"worker_id":"@"}"#),
        ("POST", "/tasks/claim".to_owned(), r#"{"task_types":["t"],"worker_id":"w","tags":{"a":"@"}}"#),
        ("POST", "/keys".to_owned(), r#"{"name":"@","roles":["viewer"]}"#),
    ];
    cases.extend(others.map(|(method, path, body)| (method, path, body.to_owned())));
    for (method, path, body) in &cases {
        for half in [r"\ud83d", r"\ude00", r"\ud83d\ud83d", r"\ude00\ud83d", r"\uD83Dx"] {
            let text = body.replace('@', half);
            let answer = server.request(method, path).json_text(text.as_str()).send().await;
            assert_eq!(answer.status, 422, "{text}: {answer:?}");
            answer.problem(422, "validation_failed");
        }
    }
    assert_nothing_was_created(&server).await;
    let whole =
        server.post("/tasks").json_text(r#"{"task_type":"t","name":"\ud83d\ude00"}"#).send().await.ok();
    assert_eq!(whole["name"], "😀");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_beyond_all_bounds_do_not_fit() {
    let server = TestServer::start().await;
    let id = Uuid::now_v7();
    let task = [
        r#""priority":@"#,
        r#""delay_seconds":@"#,
        r#""max_attempts":@"#,
        r#""lease_seconds":@"#,
        r#""timeout_seconds":@"#,
        r#""retention_seconds":@"#,
        r#""retry":{"jitter":@}"#,
        r#""retry":{"base_seconds":@}"#,
        r#""metadata":{"a":[@]}"#,
        r#""name":@"#,
        r#""tags":{"a":@}"#,
        r#""tags":[@]"#,
        r#""run_at":@"#,
        r#""due_date":@"#,
        r#""template":@"#,
        r#""nonsense":@"#,
    ];
    let mut cases: Vec<_> =
        task.iter().map(|field| ("/tasks".to_owned(), format!(r#"{{"task_type":"t",{field}}}"#))).collect();
    let others = [
        ("/tasks/claim".to_owned(), r#"{"task_types":["t"],"worker_id":"w","limit":@}"#),
        ("/tasks/claim".to_owned(), r#"{"task_types":["t"],"worker_id":"w","wait_ms":@}"#),
        ("/tasks/claim".to_owned(), r#"{"task_types":["t"],"worker_id":"w","lease_seconds":@}"#),
        (format!("/tasks/{id}/complete"), r#"{"lease_token":"x","usage":{"credits_consumed":@}}"#),
        (format!("/tasks/{id}/complete"), r#"{"lease_token":"x","usage":{"tokens_used":@}}"#),
        (
            format!("/tasks/{id}/fail"),
            r#"{"lease_token":"x","error":{"message":"m"},"retry_after_seconds":@}"#,
        ),
        (format!("/tasks/{id}/release"), r#"{"lease_token":"x","delay_seconds":@}"#),
        (format!("/tasks/{id}/heartbeat"), r#"{"lease_token":"x","progress":{"value":@}}"#),
        (format!("/tasks/{id}/heartbeat"), r#"{"lease_token":"x","lease_seconds":@}"#),
        (format!("/keys/{id}/rotate"), r#"{"overlap_seconds":@}"#),
    ];
    cases.extend(others.map(|(path, body)| (path, body.to_owned())));
    for (path, body) in &cases {
        for number in
            ["1e400", "-1e400", "1e999999999999", &"9".repeat(400), &format!("-{}.5", "9".repeat(310))]
        {
            let text = body.replace('@', number);
            let answer = server.post(path).json_text(text.as_str()).send().await;
            assert_eq!(answer.status, 422, "{text:.200}: {answer:?}");
            answer.problem(422, "validation_failed");
        }
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nesting_beyond_all_bounds_does_not_fit() {
    let server = TestServer::start().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for depth in [33, 127, 128, 129, 1000, 100_000] {
        for value in [nested(depth), objects(depth)] {
            for field in ["request", "metadata", "template", "name", "tags", "priority", "nonsense", "retry"]
            {
                let body = format!(r#"{{"task_type":"t","{field}":{value}}}"#);
                server.post("/tasks").json_text(body).send().await.problem(422, "validation_failed");
            }
            server.post("/tasks").json_text(value.clone()).send().await.problem(422, "validation_failed");
            let batch = format!(r#"{{"tasks":[{value}]}}"#);
            let answer = server.post("/tasks/batch").json_text(batch).send().await.ok();
            assert_problem(&answer["results"][0]["problem"], 422, "validation_failed");
        }
    }
    assert_nothing_was_created(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nesting_beyond_all_bounds_does_not_fit_with_an_idempotency_key_either() {
    let server = TestServer::start().await;
    let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for depth in [33, 5000, 50_000, 100_000] {
        for value in [lists(depth), objects(depth)] {
            let task = format!(r#"{{"task_type":"t","request":{value}}}"#);
            for body in [&task, &value] {
                let create = server.post("/tasks").header("Idempotency-Key", "deep").json_text(body.as_str());
                create.send().await.problem(422, "validation_failed");
            }
            let batch = server.post("/tasks/batch").header("Idempotency-Key", "deep-batch");
            let answer = batch.json_text(format!(r#"{{"tasks":[{task},{value}]}}"#)).send().await.ok();
            for result in answer["results"].as_array().unwrap() {
                assert_problem(&result["problem"], 422, "validation_failed");
            }
        }
    }
    assert_eq!(server.get("/health").send().await.status, 200);
    assert_nothing_was_created(&server).await;
}
