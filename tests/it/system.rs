//! Health, metrics, documentation, and what holds for every answer.

use std::collections::BTreeSet;
use std::io::Read;

use serde_json::{Value, json};
use task_repo_protocol::{ErrorCode, Problem, Role, Status, path};
use task_repo_tests::{HttpAnswer, ROUTES, SYSTEM_ROUTES, TestServer, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health() {
    let server = TestServer::start().await;
    let health = server.get("/health").no_key().send().await.ok();
    assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!("task-repo-service")));
    assert!(health["version"].as_str().is_some_and(|version| !version.is_empty()), "{health:#}");
    assert_eq!(server.get("/health/ready").no_key().send().await.status, 200);

    let viewer = server.issue_key(&["viewer"], json!({})).await;
    server.get("/health/detailed").no_key().send().await.problem(401, "unauthenticated");
    let detailed = server.get("/health/detailed").key(&viewer).send().await.ok();
    for (group, numbers) in [("dependencies", &["latency_ms"][..]), ("background", &["latency_ms", "lag_ms"])]
    {
        let members = detailed[group].as_object().filter(|members| !members.is_empty());
        for (name, member) in members.unwrap_or_else(|| panic!("no {group}: {detailed:#}")) {
            assert!(member["status"].is_string(), "{name}: {detailed:#}");
            for number in numbers {
                assert!(member.get(number).is_some(), "{name} has no {number}: {detailed:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_the_service_is_a_setting() {
    let server =
        TestServer::start_with(|settings| "other-name".clone_into(&mut settings.http.service_name)).await;
    assert_eq!(server.get("/health").send().await.ok()["service"], "other-name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics() {
    let server = TestServer::start().await;
    server.create(json!({})).await;
    let viewer = server.issue_key(&["viewer"], json!({})).await;
    server.get("/metrics").no_key().send().await.problem(401, "unauthenticated");
    let answer = server.get("/metrics").key(&viewer).send().await;
    let content_type = answer.success().header("content-type").unwrap();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    let text = answer.text();
    let samples: Vec<_> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(!samples.is_empty());
    for sample in samples {
        let value = sample.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "not the text form: {sample}");
    }
}

/// The values of the path constants, read from their source so that a new one cannot be forgotten here.
fn path_constants() -> BTreeSet<&'static str> {
    let source = include_str!("../../protocol/src/path.rs");
    let values = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1));
    // What the documentation's page is made of is no part of the contract.
    let part_of = |value: &&str| value.starts_with('/') && ![path::BASE, path::DOCS_ASSET].contains(value);
    values.filter(part_of).collect()
}

#[test]
fn the_table_of_routes_is_whole() {
    let known: BTreeSet<_> =
        ROUTES.iter().map(|route| route.path).chain(SYSTEM_ROUTES.iter().map(|(path, _)| *path)).collect();
    assert_eq!(known, path_constants());
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_lists_every_route() {
    let server = TestServer::start().await;
    let document = server.get("/openapi.json").no_key().send().await.ok();
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{}",
        document["openapi"]
    );
    let base = document["servers"][0]["url"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    let paths = document["paths"].as_object().unwrap();
    let listed: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.clone(), path)))
        .map(|(method, path)| (method.to_uppercase(), format!("{base}{path}")))
        .collect();
    let routes = ROUTES.iter().map(|route| (route.method, format!("{}{}", path::BASE, route.path)));
    let system = SYSTEM_ROUTES.iter().map(|(path, _)| ("GET", (*path).to_owned()));
    for (method, path) in routes.chain(system) {
        // The document and its page need not describe themselves.
        let is_itself = [path::OPENAPI, path::DOCS].contains(&path.as_str());
        assert!(
            is_itself || listed.contains(&(method.to_owned(), path.clone())),
            "{method} {path} is not documented"
        );
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let text = document.to_string();
    for word in Status::ALL.iter().map(Status::as_str) {
        assert!(text.contains(&format!("\"{word}\"")), "{word} is not documented");
    }
    for role in Role::ALL {
        assert!(text.contains(&serde_json::to_string(&role).unwrap()), "{role:?} is not documented");
    }
    for code in task_repo_protocol::ErrorCode::ALL {
        assert!(text.contains(code.as_str()), "{code} is not documented");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_shows_an_example_of_every_problem() {
    let server = TestServer::start().await;
    let document = server.get("/openapi.json").no_key().send().await.ok();
    let mut shown = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = &response["content"]["application/problem+json"];
                if content.is_null() {
                    continue;
                }
                // Creates have no task yet that could stand in the way.
                let examples = content["examples"].as_object().cloned().unwrap_or_default();
                assert!(!examples.is_empty() || status == "409", "{method} {path} {status} has no example");
                for (code, example) in examples {
                    let at = example["$ref"].as_str().and_then(|at| at.strip_prefix('#')).unwrap();
                    let problem: Problem =
                        serde_json::from_value(document.pointer(at).unwrap()["value"].clone()).unwrap();
                    assert_eq!(problem.code.as_str(), code, "{method} {path}");
                    assert_eq!(problem.status.to_string(), *status, "{method} {path} {code}");
                    assert!(!problem.detail.is_empty());
                    shown.insert(code);
                }
            }
        }
    }
    let unsent =
        [ErrorCode::TemplateNotFound, ErrorCode::ScheduleNotFound, ErrorCode::Duplicate, ErrorCode::Internal];
    for code in ErrorCode::ALL.iter().filter(|code| !unsent.contains(code)) {
        assert!(shown.contains(code.as_str()), "{code} has no example");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_shows_no_body_as_null() {
    let server = TestServer::start().await;
    let document = server.get("/openapi.json").no_key().send().await.ok();
    let (mut required, mut optional) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let body = &operation["requestBody"];
            if body.is_null() {
                continue;
            }
            let schema = &body["content"]["application/json"]["schema"];
            assert!(schema["$ref"].is_string(), "{method} {path}: {schema}");
            *if body["required"] == true { &mut required } else { &mut optional } += 1;
        }
    }
    assert_eq!(
        optional, 7,
        "cancel, execute, rotate, pause, resume and both stream tokens; {required} need one"
    );
}

/// What `src` and `href` attributes of a page name.
fn links(page: &str) -> Vec<String> {
    ["src=\"", "href=\"", "src='", "href='"]
        .iter()
        .flat_map(|mark| {
            let quote = if mark.ends_with('"') { '"' } else { '\'' };
            page.split(mark).skip(1).filter_map(move |rest| Some(rest.split_once(quote)?.0.to_owned()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docs_page_needs_nothing_from_outside() {
    let server = TestServer::start().await;
    let mut at = path::DOCS.to_owned();
    let mut answer = server.get(&at).no_key().send().await;
    for _ in 0..3 {
        if (300..400).contains(&answer.status) {
            let location = reqwest::Url::parse(&format!("{}{at}", server.url())).unwrap();
            let location = location.join(answer.header("location").expect("a location")).unwrap();
            assert!(location.as_str().starts_with(&server.url()), "{location}");
            location.path().clone_into(&mut at);
            answer = server.get(&at).no_key().send().await;
        }
    }
    assert!(answer.success().header("content-type").unwrap().starts_with("text/html"));
    let page = answer.text();
    let base = reqwest::Url::parse(&format!("{}{at}", server.url())).unwrap();
    let mut texts = vec![page.clone()];
    for link in links(&page).iter().filter(|link| !link.starts_with("data:") && !link.starts_with('#')) {
        let url = base.join(link).unwrap();
        assert!(url.as_str().starts_with(&server.url()), "{link} leads outside");
        let resource = server.get(url.path()).no_key().send().await;
        texts.push(String::from_utf8_lossy(&resource.success().body).into_owned());
    }
    let whole = texts.concat();
    assert!(whole.contains(path::OPENAPI), "the page shows the document");
    for sheet in texts.iter().filter(|text| text.contains("@import") || text.contains("@font-face")) {
        assert!(!sheet.contains("url(http") && !sheet.contains("url(//"), "a style sheet loads from outside");
    }
    // The page of Swagger shows a badge from this host on public addresses unless told not to.
    if whole.contains("validator.swagger.io") {
        let off = [
            "\"validatorUrl\": null",
            "\"validatorUrl\":null",
            "\"validatorUrl\": \"none\"",
            "\"validatorUrl\":\"none\"",
        ];
        assert!(off.iter().any(|off| whole.contains(off)), "the validator's badge comes from outside");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_are_taken_made_and_returned() {
    let server = TestServer::start().await;
    let own = "my-request.1:2_3";
    for (method, path) in [
        ("GET", "/tasks"),
        ("GET", "/tasks/no-uuid"),
        ("GET", "/tasks?nonsense=1"),
        ("POST", "/tasks"),
        ("PATCH", "/tasks"),
        ("GET", "/nonsense"),
        ("GET", "/health"),
        ("GET", "/health/ready"),
        ("GET", "/health/detailed"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/keys"),
    ] {
        for key in [true, false] {
            let call = || {
                let call = server.request(method, path);
                if key { call } else { call.no_key() }
            };
            let answer = call().header("X-Request-ID", own).send().await;
            assert_eq!(answer.header("x-request-id"), Some(own), "{method} {path}");
            if answer.status >= 400 {
                assert_eq!(answer.json()["request_id"], own);
            }
            let (one, two) = (call().send().await, call().send().await);
            let made = |answer: &HttpAnswer| answer.header("x-request-id").unwrap().to_owned();
            assert_ne!(made(&one), made(&two), "{method} {path}");
        }
    }
    let created =
        server.post("/tasks").header("X-Request-ID", own).json(&json!({"task_type": "t"})).send().await;
    assert_eq!((created.status, created.header("x-request-id")), (201, Some(own)));
    let deleted =
        server.delete(&format!("/tasks/{}", id_of(&created.ok()))).header("X-Request-ID", own).send().await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.header("x-request-id"), Some(own));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_json_in_utf_8() {
    let server = TestServer::start().await;
    let task = server.create(json!({"name": "é 😀"})).await;
    for path in
        ["/tasks", &format!("/tasks/{}", id_of(&task)), &format!("/tasks/{}/status", id_of(&task)), "/keys"]
    {
        let answer = server.get(path).send().await;
        let content_type = answer.success().header("content-type").unwrap().to_lowercase().replace(' ', "");
        assert_eq!(content_type, "application/json;charset=utf-8", "{path}");
    }
    let created = server.post("/tasks").json(&json!({"task_type": "t"})).send().await;
    assert_eq!(created.header("content-type").unwrap().replace(' ', ""), "application/json;charset=utf-8");
}

fn unpacked(answer: &HttpAnswer) -> Vec<u8> {
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        None | Some("identity") => plain.clone_from(&answer.body),
        Some("gzip") => {
            flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
        }
        Some("br") => {
            brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut plain).unwrap();
        }
        Some(other) => panic!("{other} was not asked for"),
    }
    plain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_breaks_nothing() {
    let server = TestServer::start().await;
    let text = "compress me ".repeat(20_000);
    let task = server.create(json!({"request": text})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let plain = server.get(&path).send().await;
    let mut sizes = Vec::new();
    for encoding in [
        "gzip",
        "br",
        "gzip, br",
        "identity",
        "",
        "gzip;q=0.5, identity;q=0.1",
        "gzip;q=0, br;q=0",
        "identity;q=0, *;q=0",
        "identity;q=0",
        "*;q=0",
    ] {
        let answer = server.get(&path).header("Accept-Encoding", encoding).send().await;
        assert_eq!(answer.status, 200, "{encoding}");
        assert_eq!(unpacked(&answer), plain.body, "{encoding}");
        assert_eq!(
            answer.header("etag").map(|tag| tag.trim_start_matches("W/")),
            plain.header("etag"),
            "{encoding}"
        );
        sizes.push(answer.body.len());
        let missing = server.get("/tasks/no-uuid").header("Accept-Encoding", encoding).send().await;
        let problem: Value = serde_json::from_slice(&unpacked(&missing)).unwrap();
        assert_eq!((missing.status, &problem["code"]), (404, &json!("task_not_found")), "{encoding}");
    }
    assert!(sizes[3..5].iter().all(|size| *size == plain.body.len()), "identity is as it is: {sizes:?}");
    for page in ["/openapi.json", "/metrics", "/health"] {
        for encoding in ["gzip", "br"] {
            let answer = server.get(page).header("Accept-Encoding", encoding).send().await;
            assert!(!unpacked(answer.success()).is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_do_no_harm() {
    let server = TestServer::start().await;
    let pack = |body: &[u8]| {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(body, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
        packed
    };
    let send = async |body: Vec<u8>, encoding: &str| {
        server.post("/tasks").header("Content-Encoding", encoding).json_text(body).send().await
    };
    // The contract does not promise that compressed bodies are taken: taken they are taken whole, or else refused.
    let small = send(pack(br#"{"task_type":"packed","request":{"a":[1,  2]}}"#), "gzip").await;
    if small.status == 201 {
        assert_eq!(small.raw("request"), r#"{"a":[1,  2]}"#);
    } else {
        assert!((400..500).contains(&small.status), "{small:?}");
    }
    let large = format!(r#"{{"task_type":"packed","request":"{}"}}"#, "x".repeat(64 << 20));
    let large = send(pack(large.as_bytes()), "gzip").await;
    assert!((400..500).contains(&large.status), "{large:?}");
    for (body, encoding) in
        [(&b"no gzip"[..], "gzip"), (b"no brotli", "br"), (b"{}", "nonsense"), (b"\x1f\x8b", "gzip")]
    {
        let answer = send(body.to_vec(), encoding).await;
        assert!((400..500).contains(&answer.status), "{encoding}: {answer:?}");
    }
    let packed = server.get("/tasks?task_type=packed&status=any").send().await.ok();
    assert!(packed["tasks"].as_array().unwrap().len() <= 1);
}
