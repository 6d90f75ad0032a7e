//! Every place of a request where a caller's text goes, by the server's own OpenAPI document: also a new parameter or
//! field meets the corpus, without anybody having thought of it.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::iter;
use serde_json::{Value, json};
use task_repo_protocol::path;
use task_repo_tests::{HttpCall, ROUTES, Route, TestServer, encode, id_of};
use uuid::Uuid;

use crate::access::fill_in;
use crate::corpus::{corpus, objects};
use crate::injection::{ALL_BUT_ADMIN, CANARY, Victims, stored, victims};

/// Bodies that have room for what those in [`ROUTES`] have not.
const MORE_BODIES: &[(&str, &str, &str)] = &[
    ("PUT", path::TASK_STATUS, r#"{"status":"completed"}"#),
    ("PUT", path::TASK_STATUS, r#"{"status":"failed"}"#),
    (
        "POST",
        path::TASKS_OUTCOMES,
        r#"{"outcomes":[{"id":"x","lease_token":"x","outcome":"failed","error":{"message":"m"}}],
            "claim":{"task_types":["t"],"worker_id":"w"}}"#,
    ),
];
/// Proof that somebody may settle a task: no text of the corpus is that.
const PROOFS: [&str; 2] = ["id", "lease_token"];

/// A place in a request.
#[derive(Debug, Clone)]
struct Place {
    method: String,
    path: String,
    body: Option<Value>,
    /// `path`, `query`, `header` or `body`.
    at: String,
    name: Vec<String>,
    /// Whether it is a field that any text may stand in.
    is_text: bool,
}

/// Which task a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// One of a victim, by itself or with the token of its lease.
    Theirs { is_held: bool },
    /// One of the attacker's own that waits.
    Free,
    /// One that the attacker has a lease on.
    Held,
    /// One that the attacker works on without a lease.
    Begun,
    /// None that exists.
    Nothing,
}

impl Place {
    fn is_list(&self) -> bool {
        self.method == "GET" && self.path == path::TASKS
    }

    fn about(&self) -> About {
        let body = self.body.as_ref().map(ToString::to_string).unwrap_or_default();
        let is_held = body.contains("lease_token");
        if ["X-User-ID", "X-Tenant-ID"].contains(&self.name[0].as_str()) {
            // Whoever says whose tasks are meant names those of others; anybody else has tasks of their own.
            About::Theirs { is_held }
        } else if ["path", "query"].contains(&self.at.as_str()) {
            About::Nothing
        } else if is_held {
            About::Held
        } else if ["completed", "failed"].iter().any(|status| body.contains(status)) {
            About::Begun
        } else if self.path.contains("{task_id}") {
            About::Free
        } else {
            About::Nothing
        }
    }
}

/// What of a schema is behind references and choices.
fn resolved<'a>(document: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        schema = if let Some(reference) = schema["$ref"].as_str() {
            document.pointer(reference.trim_start_matches('#')).expect("a schema")
        } else if let Some(choices) = schema["oneOf"].as_array() {
            choices.iter().find(|choice| choice["type"] != "null").expect("a choice")
        } else {
            return schema;
        }
    }
}

/// Every field of a schema and of what is in it, and whether any text may stand there.
fn fields(document: &Value, schema: &Value, name: &[String], found: &mut Vec<(Vec<String>, bool)>) {
    let schema = resolved(document, schema);
    if !name.is_empty() {
        let kind = &schema["type"];
        let is_string = kind.is_null() || kind == "string" || kind == &json!(["string", "null"]);
        let is_bound = ["format", "enum", "pattern"].iter().any(|rule| schema.get(rule).is_some());
        found.push((name.to_vec(), is_string && !is_bound));
    }
    let below = |step: &str| [name, &[step.to_owned()]].concat();
    if let Some(properties) = schema["properties"].as_object() {
        for (property, schema) in properties {
            fields(document, schema, &below(property), found);
        }
    } else if let Some(items) = schema.get("items") {
        fields(document, items, &below("0"), found);
    }
}

/// All places of all routes.
async fn places(server: &TestServer) -> Vec<Place> {
    let document = server.get("/openapi.json").send().await.ok();
    let mut places = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(path) = path.strip_prefix(path::BASE) else { continue };
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            let is_it = |route: &&Route| route.method == method && route.path == path;
            let more = MORE_BODIES.iter().filter(|(by, at, _)| (*by, *at) == (&*method, path));
            let bodies = ROUTES.iter().filter(is_it).map(|route| route.body);
            let bodies: Vec<_> = bodies.chain(more.map(|(.., body)| Some(*body))).collect();
            let body_of = |text: Option<&str>| text.map(|text| serde_json::from_str(text).unwrap());
            let place = |at: &str, name: Vec<String>, body: Option<Value>, is_text| Place {
                method: method.clone(),
                path: path.to_owned(),
                body,
                at: at.to_owned(),
                name,
                is_text,
            };
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            places.extend(parameters.map(|parameter| {
                let text = |member: &str| parameter[member].as_str().unwrap().to_owned();
                place(&text("in"), vec![text("name")], bodies.first().copied().and_then(body_of), false)
            }));
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            for body in bodies {
                let mut found = Vec::new();
                fields(&document, schema, &[], &mut found);
                places.extend(
                    found.into_iter().map(|(name, is_text)| place("body", name, body_of(body), is_text)),
                );
            }
        }
    }
    places
}

/// Puts a value where that name leads, through whatever has to be there.
fn put(body: &mut Value, name: &[String], value: &Value) {
    let Some((step, rest)) = name.split_first() else { return *body = value.clone() };
    if step == "0" {
        if body.get(0).is_none() {
            *body = json!([null]);
        }
        put(&mut body[0], rest, value);
    } else {
        if !body.is_object() {
            *body = json!({});
        }
        put(&mut body[step], rest, value);
    }
}

/// Who sends the corpus, and what is theirs.
struct Attackers {
    /// Of tenant `default`, with all roles but `admin`.
    key: String,
    /// Of tenant `nowhere`, with all roles.
    admin: String,
    /// Tasks of bob in tenant `default`, each with its token if it has one.
    own: BTreeMap<About, Vec<(String, String)>>,
}

impl Attackers {
    async fn of(server: &TestServer) -> Self {
        let key = server.issue_key(&ALL_BUT_ADMIN, json!({})).await;
        let roles = [&ALL_BUT_ADMIN[..], &["admin"]].concat();
        let admin = server.issue_key(&roles, json!({"tenant_id": "nowhere"})).await;
        Self { key, admin, own: BTreeMap::new() }
    }

    /// Makes new tasks, enough for each of these places.
    async fn stock_up(&mut self, server: &TestServer, places: &[Place]) {
        for kind in [About::Free, About::Held, About::Begun] {
            let count = places.iter().filter(|place| place.about() == kind).count();
            let task_type = format!("mine.{kind:?}");
            let tasks = vec![json!({"task_type": task_type, "user_id": "bob"}); count];
            let batch = server.post("/tasks/batch").key(&self.key).json(&json!({"tasks": tasks}));
            let mut tasks = batch.send().await.ok()["results"].clone();
            let mut tasks: Vec<_> =
                tasks.as_array_mut().unwrap().iter_mut().map(|result| result["task"].take()).collect();
            if kind == About::Held {
                let claim = json!({
                    "task_types": [task_type], "worker_id": "w", "limit": count, "lease_seconds": 3600,
                });
                let claimed = server.post("/tasks/claim").key(&self.key).json(&claim).send().await.ok();
                claimed["tasks"].as_array().unwrap().clone_into(&mut tasks);
            } else if kind == About::Begun {
                let begin = json!({"status": "processing"});
                let begin = tasks.iter().map(|task| {
                    server.put(&format!("/tasks/{}/status", id_of(task))).key(&self.key).json(&begin).send()
                });
                join_all(begin).await.iter().for_each(|answer| drop(answer.ok()));
            }
            let token = |task: &Value| task["lease"]["token"].as_str().unwrap_or("a token").to_owned();
            self.own.insert(kind, tasks.iter().map(|task| (id_of(task).to_owned(), token(task))).collect());
        }
    }

    /// The call with that value there; nothing where a URL or header cannot hold it.
    fn call(
        &mut self,
        server: &TestServer,
        victims: &Victims,
        place: &Place,
        value: &Value,
    ) -> Option<HttpCall> {
        let name = place.name[0].as_str();
        let text = value.as_str();
        let ((id, token), task_type) = match place.about() {
            About::Theirs { is_held: true } => (victims.held.clone(), "victims"),
            About::Theirs { is_held: false } => (victims.free.clone(), "victims"),
            About::Nothing => ((Uuid::now_v7().to_string(), "a token".to_owned()), "mine.none"),
            kind => (self.own.get_mut(&kind).and_then(Vec::pop).expect("enough tasks"), "mine.none"),
        };
        let mut path = place.path.clone();
        if place.at == "path" {
            path = path.replace(&format!("{{{name}}}"), &encode(text?));
        }
        path = path
            .replace("{task_type}", "mine.type")
            .replace("{task_id}", &id)
            .replace("{key_id}", &id)
            .replace("{result_id}", "victims");
        let mut call = server.request(&place.method, &path.replace("{asset}", "index.css"));
        if place.is_list() && name != "status" {
            call = call.query(&[("status", "any"), ("limit", "100")][..if name == "limit" { 1 } else { 2 }]);
        }
        if let Some(mut body) = place.body.clone() {
            fill_in(&mut body, &id, &token, task_type);
            if place.at == "body" {
                put(&mut body, &place.name, value);
            }
            call = call.json(&body);
        } else if place.at == "body" {
            let mut body = json!({});
            put(&mut body, &place.name, value);
            call = call.json(&body);
        }
        if place.at == "query" {
            call = call.query(&[(name, text?)]);
        }
        if place.at == "header" {
            let text = text?;
            // These two tenants are there, and an admin may name them.
            let is_known = name == "X-Tenant-ID" && ["default", "theirs"].contains(&text);
            if is_known || text.bytes().any(|byte| byte < b' ') {
                return None;
            }
            call = call.header(name, text);
        }
        Some(if name == "X-Tenant-ID" {
            call.key(&self.admin)
        } else if place.path.starts_with(path::KEYS) {
            call.key(&self.admin).tenant("nowhere")
        } else if name == "X-User-ID" || is_of_all_users(&place.path) {
            call.key(&self.key)
        } else {
            call.key(&self.key).user(if place.is_list() { "nobody" } else { "bob" })
        })
    }
}

/// Whether a call of that path is refused on behalf of a user.
fn is_of_all_users(path: &str) -> bool {
    path == path::FAILURES || path.starts_with(path::TASK_TYPES)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_place_of_a_request_takes_text_for_more_than_text() {
    let server = TestServer::start().await;
    let victims = victims(&server).await;
    let mut attackers = Attackers::of(&server).await;
    let places = places(&server).await;
    let before = stored(&server).await;
    let mut heard: BTreeMap<String, bool> = BTreeMap::new();
    for (n, value) in corpus().into_iter().map(Value::from).chain(objects()).enumerate() {
        attackers.stock_up(&server, &places).await;
        let mut calls = Vec::new();
        for (m, place) in places.iter().enumerate() {
            // What must be a number, a time or one of some words is refused for that: part of the corpus will do.
            if place.at == "body" && !place.is_text && value.is_string() && (n + m) % 8 != 0 {
                continue;
            }
            if let Some(call) = attackers.call(&server, &victims, place, &value) {
                calls.push(async move { (place, call.send().await) });
            }
        }
        let mut answers = iter(calls).buffer_unordered(32);
        while let Some((place, answer)) = answers.next().await {
            assert!(answer.status < 500, "{place:?}: {answer:?}");
            // Another's user, and tenants that are the service's own.
            let is_reserved =
                place.name[0] == "X-Tenant-ID" && value.as_str().is_some_and(|it| it.starts_with('_'));
            let is_of_all_users = place.name[0] == "X-User-ID" && is_of_all_users(&place.path);
            assert!(
                answer.status != 403 || place.name[0] == "user_id" || is_reserved || is_of_all_users,
                "{place:?}: {answer:?}"
            );
            assert!(!answer.text().contains(CANARY), "{place:?}: {answer:?}");
            if place.is_list() && place.at == "query" && answer.status == 200 {
                assert_eq!(answer.ok()["tasks"], json!([]), "{place:?}");
            }
            let name = format!("{} {} {}", place.method, place.path, place.name.join("."));
            let is_proof = place.name.iter().any(|step| PROOFS.contains(&step.as_str()));
            if place.is_text && !is_proof {
                *heard.entry(name).or_default() |= value.is_string() && answer.status < 300;
            }
        }
    }
    assert_eq!(stored(&server).await, before);
    // Else the texts may have been refused for something else than themselves, or not have been looked at.
    let unheard: Vec<_> = heard.iter().filter(|(_, heard)| !**heard).collect();
    assert!(unheard.is_empty() && heard.len() > 30, "nothing reached {unheard:?}");
}
