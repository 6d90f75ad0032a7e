//! `request_schema`: which schemas are taken, and what is said of a request that does not fit.

use std::time::Duration;

use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, eventually, unique_type};

use crate::verbs::{claim_one, id, shown};

async fn put(server: &TestServer, queue: &str, schema: &Value) -> HttpAnswer {
    let settings = json!({"request_schema": schema});
    server.put(&format!("/task-types/{queue}")).json(&settings).send().await
}

fn mail() -> Value {
    json!({"type": "object", "required": ["to"], "additionalProperties": false,
        "properties": {"to": {"type": "string", "pattern": "^[a-z]+$"}, "cc": {"items": {"type": "string"}},
            "cents": {"multipleOf": 0.01, "maximum": 9_007_199_254_740_992_u64}}})
}

/// The places and kinds of all faults.
#[track_caller]
fn faults(problem: &Value) -> Vec<(Value, &str)> {
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("faults are expected in {problem}"));
    errors.iter().map(|error| (error["loc"].clone(), error["type"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_fit_is_refused_with_each_place() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let shown = put(&server, &queue, &mail()).await.ok();
    assert_eq!(shown["settings"]["request_schema"], mail());
    let create = async |request: &str| {
        let body = format!(r#"{{"task_type":"{queue}","request":{request}}}"#);
        server.post("/tasks").json_text(body).send().await
    };
    for fits in [
        r#"{"to":"ann"}"#,
        r#"{"to":"ann","cents":1070468.14}"#,
        r#"{"to":"ann","cents":9007199254740992}"#,
        r#"{"to":"ann","cc":[]}"#,
    ] {
        create(fits).await.ok();
    }
    for (request, place, kind) in [
        ("null", json!(["body", "request"]), "type_error"),
        ("{}", json!(["body", "request", "to"]), "missing"),
        (r#"{"to":7}"#, json!(["body", "request", "to"]), "type_error"),
        (r#"{"to":"ANN"}"#, json!(["body", "request", "to"]), "value_error"),
        (r#"{"to":"ann","x.y":1}"#, json!(["body", "request", "x.y"]), "unknown_field"),
        (r#"{"to":"ann","cc":["a",1]}"#, json!(["body", "request", "cc", 1]), "type_error"),
        (r#"{"to":"ann","cents":1070468.145}"#, json!(["body", "request", "cents"]), "value_error"),
        (r#"{"to":"ann","cents":9007199254740993}"#, json!(["body", "request", "cents"]), "value_error"),
    ] {
        let problem = create(request).await.problem(422, "validation_failed");
        assert_eq!(faults(&problem), [(place, kind)], "{request}");
    }
    // None at all counts as null.
    let absent = server.post("/tasks").json(&json!({"task_type": queue})).send().await;
    assert_eq!(faults(&absent.problem(422, "validation_failed"))[0].0, json!(["body", "request"]));
    let many: Vec<_> = (0..50).map(|n| format!("\"x{n}\":1")).collect();
    let problem = create(&format!("{{\"to\":\"ann\",{}}}", many.join(","))).await;
    assert_eq!(faults(&problem.problem(422, "validation_failed")).len(), 20);
    assert_eq!(
        server.get(&format!("/tasks?task_type={queue}")).send().await.ok()["tasks"].as_array().unwrap().len(),
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_batch_and_in_an_edit_it_is_held_against_it_too() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let early = server.create(json!({"task_type": queue, "request": 7})).await;
    put(&server, &queue, &mail()).await.ok();
    let tasks = json!({"tasks": [
        {"task_type": queue, "request": {"to": "ann"}},
        {"task_type": queue, "priority": 101},
        {"task_type": queue, "request": {"to": "ann", "x": 1}},
        {"task_type": unique_type(), "request": 7},
    ]});
    let answer = server.post("/tasks/batch").json(&tasks).send().await.ok();
    let results = answer["results"].as_array().unwrap();
    assert!(results[0]["task"].is_object() && results[3]["task"].is_object());
    let place = json!(["body", "tasks", 2, "request", "x"]);
    assert_eq!(faults(&results[2]["problem"]), [(place, "unknown_field")]);

    let path = format!("/tasks/{}", id(&early));
    let edit = |body: Value| server.put(&path).json(&body).send();
    let problem = edit(json!({"request": {"to": 1}})).await.problem(422, "validation_failed");
    assert_eq!(faults(&problem), [(json!(["body", "request", "to"]), "type_error")]);
    edit(json!({"request": null})).await.problem(422, "validation_failed");
    assert_eq!(shown(&server, &early).await, early, "a refused edit changes nothing");
    edit(json!({"name": "what is there already is not looked at"})).await.ok();
    edit(json!({"request": {"to": "bob"}})).await.ok();
    // The settings may change while the task waits; what it has is not looked at again.
    put(&server, &queue, &json!(false)).await.ok();
    claim_one(&server, &early, json!({})).await;
    server.post("/tasks").json(&json!({"task_type": queue})).send().await.problem(422, "validation_failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_answered_whatever_the_schema_says_by_then() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let body = json!({"task_type": queue, "request": 7});
    let call = |body: &Value| server.post("/tasks").header("Idempotency-Key", "once").json(body).send();
    let first = call(&body).await.ok();
    put(&server, &queue, &mail()).await.ok();
    let again = call(&body).await;
    assert_eq!((again.header("idempotent-replayed"), again.ok()), (Some("true"), first));
    call(&json!({"task_type": queue, "request": 8})).await.problem(422, "idempotency_key_reused");

    let batch = json!({"tasks": [{"task_type": queue, "request": 7}, {"task_type": queue, "request": {"to": "ann"}}]});
    let call = || server.post("/tasks/batch").header("Idempotency-Key", "batch").json(&batch).send();
    let first = call().await.ok();
    assert!(first["results"][0]["problem"].is_object() && first["results"][1]["task"].is_object());
    let again = call().await;
    assert_eq!((again.header("idempotent-replayed"), again.ok()), (Some("true"), first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_schema_is_refused_with_its_place() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
    let wide: serde_json::Map<_, _> = (0..1001).map(|n| (format!("p{n}"), json!({}))).collect();
    let mut laughs = serde_json::Map::new();
    laughs.insert("a0".to_owned(), json!({"type": "string"}));
    for n in 1..30 {
        let before = json!({"$ref": format!("#/$defs/a{}", n - 1)});
        laughs.insert(format!("a{n}"), json!({"allOf": [before, before, before]}));
    }
    for (schema, place) in [
        (json!({"$ref": "http://169.254.169.254/latest"}), json!(["$ref"])),
        (json!({"$ref": "file:///etc/passwd"}), json!(["$ref"])),
        (json!({"properties": {"a": {"$ref": "#"}}}), json!(["properties", "a", "$ref"])),
        (json!({"$defs": {"a": {"$ref": "#/$defs/a"}}}), json!(["$defs", "a", "$ref"])),
        (json!({"$schema": "https://example.com/mine"}), json!(["$schema"])),
        (json!({"pattern": "(?=a)"}), json!(["pattern"])),
        (json!({"pattern": r"(a)\1"}), json!(["pattern"])),
        (
            json!({"properties": {"a": {"pattern": "(((a{99}){99}){99}){99}"}}}),
            json!(["properties", "a", "pattern"]),
        ),
        (json!({"type": "strnig"}), json!(["type"])),
        (json!({"properties": []}), json!(["properties"])),
        (json!({"description": "x".repeat(65_536)}), json!([])),
        (deep, json!([])),
        (json!([]), json!([])),
        (json!("object"), json!([])),
        (json!({"properties": wide}), Value::Null),
        (json!({"$defs": laughs}), Value::Null),
    ] {
        let problem = put(&server, &queue, &schema).await.problem(422, "validation_failed");
        let text: String = schema.to_string().chars().take(200).collect();
        let loc = problem["errors"][0]["loc"].as_array().unwrap();
        assert_eq!(loc[..2], [json!("body"), json!("request_schema")], "{text}");
        if let Value::Array(place) = place {
            assert_eq!(loc[2..], place, "{text}");
        }
        assert!(problem.to_string().len() < 2_000, "{problem}");
    }
    server.get(&format!("/task-types/{queue}")).send().await.problem(404, "task_type_not_found");
    for older in ["http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema"] {
        put(&server, &queue, &json!({"$schema": older, "type": "object"})).await.ok();
    }
    put(&server, &queue, &json!({"format": "email", "unknown-keyword": 7})).await.ok();
    server.create(json!({"task_type": queue, "request": "no address"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_a_request_cannot_stop_the_service() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let many: Vec<_> = (0..200).map(|n| json!({"multipleOf": n + 1})).collect();
    put(&server, &queue, &json!({"allOf": many, "maximum": 10})).await.ok();
    for number in
        ["1e999999999".to_owned(), "1e-999999999".to_owned(), "9".repeat(500_000), "-1e400".to_owned()]
    {
        let body = format!(r#"{{"task_type":"{queue}","request":{number}}}"#);
        server.post("/tasks").json_text(body).send().await.problem(422, "validation_failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_holds_on_every_server() {
    let one = TestServer::start().await;
    let other = one.sibling().await;
    let queue = unique_type();
    for (schema, request) in [(json!({"type": "string"}), json!(1)), (json!({"type": "integer"}), json!("a"))]
    {
        put(&one, &queue, &schema).await.ok();
        let begun = std::time::Instant::now();
        eventually("the schema holds there", async || {
            let call = other.post("/tasks").json(&json!({"task_type": queue, "request": request}));
            call.send().await.status == 422
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
