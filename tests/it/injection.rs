//! Text of callers is data wherever it reaches a filter: what an attacker writes matches itself and nothing else, and
//! comes back as it was sent. Here text stands in places found by hand; `places` takes those of the OpenAPI document.

use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, HttpCall, TestServer, as_shown_later, encode, id_of};
use uuid::Uuid;

use crate::corpus::{corpus, objects};

/// What stands in all that the victims own, and in nothing that the attackers send.
pub(crate) const CANARY: &str = "hush-5b1c";
/// All that one tenant's key may have.
pub(crate) const ALL_BUT_ADMIN: [&str; 4] = ["producer", "worker", "operator", "viewer"];

/// Of alice's tasks in the attackers' own tenant a waiting one and a leased one, each with a token.
pub(crate) struct Victims {
    pub(crate) free: (String, String),
    pub(crate) held: (String, String),
}

/// Tasks and keys of another tenant, and of another user of the attackers' own: waiting, leased and finished.
pub(crate) async fn victims(server: &TestServer) -> Victims {
    let mut tasks = Vec::new();
    for tenant in ["theirs", "default"] {
        server.issue(&ALL_BUT_ADMIN, json!({"name": CANARY, "tenant_id": tenant})).await;
    }
    for (tenant, user) in [("theirs", "alice"), ("theirs", "bob"), ("default", "alice")] {
        for status in ["pending", "processing", "completed"] {
            let fields = json!({
                "task_type": "victims", "user_id": user, "name": CANARY, "request": CANARY,
                "tags": {"k": "v", "owner": CANARY}, "metadata": {"a": CANARY},
            });
            let create = server.post("/tasks").tenant(tenant).header("Idempotency-Key", status).json(&fields);
            let task = create.user(user).send().await.ok();
            if status == "pending" {
                tasks.push((id_of(&task).to_owned(), "a token".to_owned()));
                continue;
            }
            let path = format!("/tasks/{}", id_of(&task));
            let claim = server
                .post(&format!("{path}/claim"))
                .tenant(tenant)
                .json(&json!({"worker_id": CANARY, "lease_seconds": 3600}));
            let token = claim.send().await.ok()["lease"]["token"].clone();
            tasks.push((id_of(&task).to_owned(), token.as_str().unwrap().to_owned()));
            if status == "completed" {
                let body = json!({"lease_token": token, "result": CANARY, "result_id": "victims"});
                server.post(&format!("{path}/complete")).tenant(tenant).json(&body).send().await.ok();
            }
        }
    }
    let mut of_alice = tasks.drain(6..);
    Victims { free: of_alice.next().unwrap(), held: of_alice.next().unwrap() }
}

/// All that is stored of the victims' tasks and keys, byte for byte but for when a key was used.
pub(crate) async fn stored(server: &TestServer) -> Vec<String> {
    let mut all = Vec::new();
    let of_victims = doc! {"metadata": {"$regex": CANARY}};
    for (collection, filter) in [("tasks", of_victims), ("api_keys", doc! {"name": CANARY})] {
        let collection = server.database().collection::<Document>(collection);
        let found = collection.find(filter).sort(doc! {"_id": 1}).await.unwrap();
        for mut document in found.try_collect::<Vec<_>>().await.unwrap() {
            document.remove("last_used_at");
            all.push(document.to_string());
        }
    }
    all
}

/// Every place of a URL where a caller's text goes.
fn in_urls(server: &TestServer, text: &str) -> Vec<HttpCall> {
    let get = |parameters: &[(&str, &str)]| server.get("/tasks").query(parameters);
    let any = ("status", "any");
    let (both, keyed, valued) = (format!("{text}:{text}"), format!("{text}:v"), format!("k:{text}"));
    let mut calls = vec![
        get(&[("status", text)]),
        get(&[any, ("task_type", text)]),
        get(&[("task_type", text), ("task_type", "victims")]),
        get(&[any, ("user_id", text)]),
        get(&[any, ("tag", text)]),
        get(&[any, ("tag", &both)]),
        get(&[any, ("tag", &keyed)]),
        get(&[("tag", &valued), ("tag", "k:v")]),
        get(&[any, ("created_after", text)]),
        get(&[any, ("created_before", text)]),
        get(&[any, ("limit", text)]),
        get(&[any, ("cursor", text)]),
        get(&[any, ("include", text)]),
        get(&[(text, "victims")]),
        get(&[any, (&format!("task_type[{text}]"), "victims")]),
        get(&[any, (&format!("tenant{text}"), "theirs")]),
        server.get(&format!("/tasks?{}", text.replace(['\r', '\n', '\0', '#'], ""))),
        server.get(&format!("/tasks/{}?wait_ms=1", encode(text))),
    ];
    for path in ["", "/status", "/executions"] {
        calls.push(server.get(&format!("/tasks/{}{path}", encode(text))));
    }
    calls.push(server.get(&format!("/tasks/by-result/{}", encode(text))));
    calls.push(server.delete(&format!("/tasks/{}?force=true", encode(text))));
    for (method, path, body) in [
        ("PUT", "", json!({"name": "mine"})),
        ("PUT", "/status", json!({"status": "processing"})),
        ("POST", "/claim", json!({"worker_id": "w"})),
        ("POST", "/cancel", json!({})),
        ("POST", "/complete", json!({"lease_token": text})),
    ] {
        calls.push(server.request(method, &format!("/tasks/{}{path}", encode(text))).json(&body));
    }
    calls.push(server.delete(&format!("/keys/{}", encode(text))));
    calls.push(server.post(&format!("/keys/{}/rotate", encode(text))).json(&json!({})));
    calls
}

/// Every place of a body where a caller's text goes, with `value` there.
fn in_bodies(server: &TestServer, value: &Value) -> Vec<HttpCall> {
    let id = Uuid::now_v7().to_string();
    let task = |field: &str| json!({"task_type": "attack", field: value});
    let mut bodies: Vec<(String, Value)> = [
        "task_type",
        "user_id",
        "name",
        "description",
        "request",
        "metadata",
        "tags",
        "template",
        "retry",
        "run_at",
        "priority",
    ]
    .iter()
    .map(|field| ("/tasks".to_owned(), task(field)))
    .collect();
    let claim = |extra: Value| {
        let mut body = json!({"task_types": ["attack.none"], "worker_id": "w", "limit": 100});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for extra in [
        json!({"task_types": value}),
        json!({"task_types": [value]}),
        json!({"task_types": ["victims.none", value]}),
        json!({"worker_id": value}),
        json!({"claim_id": value}),
        json!({"tags": value}),
        json!({"tags": [value]}),
        json!({"tags": {"k": value}}),
        json!({"limit": value}),
    ] {
        bodies.push(("/tasks/claim".to_owned(), claim(extra.clone())));
        bodies.push(("/tasks/outcomes".to_owned(), json!({"outcomes": [], "claim": claim(extra)})));
    }
    let lease = |extra: Value| {
        let mut body = json!({"id": id, "lease_token": value});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    bodies.extend([
        ("/tasks/batch".to_owned(), json!({"tasks": [value, task("name")]})),
        ("/tasks/heartbeat".to_owned(), json!({"heartbeats": [value, lease(json!({})), lease(json!({"id": value}))]})),
        (
            "/tasks/outcomes".to_owned(),
            json!({"outcomes": [value, lease(json!({"outcome": "completed"})), lease(json!({"id": value, "outcome": value}))]}),
        ),
        ("/tasks/claim".to_owned(), value.clone()),
        (format!("/tasks/{id}/complete"), json!({"lease_token": value, "result_id": value, "result": value})),
        (format!("/tasks/{id}/fail"), json!({"lease_token": value, "error": {"message": value, "details": value}})),
        (format!("/tasks/{id}/heartbeat"), json!({"lease_token": value, "progress": {"text": value}})),
        (format!("/tasks/{id}/release"), json!({"lease_token": value})),
        (format!("/tasks/{id}/cancel"), json!({"lease_token": value})),
        ("/keys".to_owned(), json!({"name": value, "roles": [value], "tenant_id": value})),
    ]);
    bodies.iter().map(|(path, body)| server.post(path).json(body)).collect()
}

/// The headers that every request may have, where a header can hold the text at all; credentials last.
fn in_headers(server: &TestServer, text: &str) -> (Vec<HttpCall>, Vec<HttpCall>) {
    if text.bytes().any(|byte| byte < b' ') {
        return (Vec::new(), Vec::new());
    }
    let task = json!({"task_type": "attack.headers"});
    let calls = |name: &str, value: &str| {
        let get = server.get("/tasks?status=any").no_key().header(name, value);
        [get, server.post("/tasks").no_key().header(name, value).json(&task)]
    };
    let with_key = calls("X-Request-ID", text).into();
    let bearer = format!("Bearer {text}");
    let alone = [("X-API-Key", text), ("Authorization", text), ("Authorization", bearer.as_str())];
    (with_key, alone.iter().flat_map(|(name, value)| calls(name, value)).collect())
}

/// Sends calls; no answer says that the server or the database is at a loss, and none tells of a victim.
async fn send_all(calls: impl IntoIterator<Item = HttpCall>) {
    for answer in join_all(calls.into_iter().map(HttpCall::send)).await {
        assert!(answer.status < 500, "{answer:?}");
        assert!(!answer.text().contains(CANARY), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_reaches_beyond_the_caller() {
    let server = TestServer::start().await;
    victims(&server).await;
    let key = server.issue_key(&ALL_BUT_ADMIN, json!({})).await;
    let limited = server
        .issue_key(
            &["producer", "worker"],
            json!({"task_types": ["attack", "attack.none", "attack.headers"]}),
        )
        .await;
    let before = stored(&server).await;
    assert_eq!(before.len(), 9 + 2);
    // Bob of tenant `default` owns nothing; the limited key may not see the type that the victims' tasks have.
    let as_bob = |call: HttpCall| call.key(&key).user("bob");
    let as_limited = |call: HttpCall| call.key(&limited);
    for text in corpus() {
        let value = Value::from(text.as_str());
        for calls in [in_urls(&server, &text), in_bodies(&server, &value)] {
            send_all(calls.into_iter().map(as_bob)).await;
        }
        for calls in [in_urls(&server, &text), in_bodies(&server, &value)] {
            send_all(calls.into_iter().map(as_limited)).await;
        }
        let (with_key, alone) = in_headers(&server, &text);
        send_all(with_key.into_iter().map(as_limited)).await;
        send_all(alone).await;
    }
    for value in objects() {
        send_all(in_bodies(&server, &value).into_iter().map(as_bob)).await;
        send_all(in_bodies(&server, &value).into_iter().map(as_limited)).await;
    }
    assert_eq!(stored(&server).await, before);
}

/// The ids of a page or claim.
pub(crate) fn ids(answer: &HttpAnswer) -> Vec<String> {
    let body = answer.ok();
    body["tasks"].as_array().unwrap().iter().map(|task| id_of(task).to_owned()).collect()
}

/// What changes a task otherwise keeps the text as it was sent, too.
async fn assert_comes_back(server: &TestServer, text: &str) {
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let edit = json!({
        "name": text, "description": text, "request": {text: text}, "metadata": {text: text}, "tags": {"text": text},
        "template": {"service_type": text},
    });
    let edited = server.put(&path).json(&edit).send().await.ok();
    for member in ["name", "description", "request", "metadata", "tags"] {
        assert_eq!(edited[member], edit[member], "{text:?}");
    }
    let token = server.post(&format!("{path}/claim")).json(&json!({"worker_id": text})).send().await.ok();
    let error =
        json!({"message": text, "code": text.chars().take(128).collect::<String>(), "details": {text: text}});
    let fail = json!({"lease_token": token["lease"]["token"], "error": error, "retry": "never"});
    server.post(&format!("{path}/fail")).json(&fail).send().await.ok();
    assert_eq!(server.task(id_of(&task)).await["error"], error, "{text:?}");
    let task = server.create(json!({})).await;
    let status = format!("/tasks/{}/status", id_of(&task));
    server.put(&status).json(&json!({"status": "processing"})).send().await.ok();
    let done = json!({"status": "completed", "result": {text: text}, "result_id": text});
    let done_task = server.put(&status).json(&done).send().await.ok();
    assert_eq!((&done_task["result"], &done_task["result_id"]), (&done["result"], &done["result_id"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_matches_itself_alone_and_comes_back_as_sent() {
    let server = TestServer::start().await;
    victims(&server).await;
    // Longest first: what is cut anywhere, or compared in a looser way than byte for byte, finds a second one.
    let texts: Vec<_> = corpus().into_iter().filter(|text| !text.is_empty() && text.len() <= 510).collect();
    let mut created = Vec::new();
    for text in &texts {
        let fields = json!({
            "task_type": "corpus", "name": text, "description": text, "tags": {"text": text},
            "metadata": {"text": text, "list": [text]}, "request": {text: [text]},
            "template": {"service_type": text, "parameters": {text: text}},
        });
        let answer = server.post("/tasks").json(&fields).send().await;
        if answer.status == 422 {
            // NUL may be refused; nothing else in here may.
            assert!(text.contains('\0') || text.len() > 255, "{text:?}: {answer:?}");
            continue;
        }
        let task = as_shown_later(answer.ok());
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(task[name], *value, "{text:?}");
        }
        assert_eq!(server.task(id_of(&task)).await, task, "{text:?}");
        created.push((text, id_of(&task).to_owned()));
    }
    assert!(created.len() > 80, "{}", created.len());
    for (text, id) in &created {
        let tag = format!("text:{text}");
        for status in ["pending", "any"] {
            let page = server.get("/tasks").query(&[("status", status), ("tag", &tag), ("limit", "100")]);
            assert_eq!(ids(&page.send().await), [&**id], "{text:?} {status}");
        }
    }
    for (text, id) in &created {
        let claim =
            json!({"task_types": ["corpus"], "worker_id": text, "limit": 100, "tags": {"text": text}});
        let claimed = server.post("/tasks/claim").json(&claim).send().await;
        assert_eq!(ids(&claimed), [&**id], "{text:?}");
        let lease = &claimed.ok()["tasks"][0]["lease"];
        let wrong = json!({"lease_token": text, "result_id": text});
        server.post(&format!("/tasks/{id}/complete")).json(&wrong).send().await.problem(409, "lease_lost");
        let beat = json!({"lease_token": lease["token"], "progress": {"text": text}});
        server.post(&format!("/tasks/{id}/heartbeat")).json(&beat).send().await.ok();
        assert_eq!(server.task(id).await["progress"]["text"], **text);
        let done = json!({"lease_token": lease["token"], "result_id": text, "result": {(*text): text}});
        server.post(&format!("/tasks/{id}/complete")).json(&done).send().await.ok();
    }
    // A URL does not keep these, however they are spelled: they are steps of its path.
    let in_paths = created.iter().filter(|(text, _)| !matches!(text.as_str(), "." | ".."));
    for (text, id) in in_paths {
        let found = server.get(&format!("/tasks/by-result/{}", encode(text))).send().await.ok();
        assert_eq!((&found["id"], &found["result_id"]), (&json!(id), &json!(text)));
        assert_eq!(found["result"], json!({(*text): text}));
        let history = server.get(&format!("/tasks/{id}/executions")).send().await.ok();
        assert_eq!(history["executions"][0]["worker_id"], **text);
    }
    for (text, _) in &created {
        assert_comes_back(&server, text).await;
    }
}
