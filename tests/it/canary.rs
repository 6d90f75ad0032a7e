//! A caller who drives the server program through all it can do, with a canary wherever text may stand.

use bson::{Document, doc};
use mongodb::Database;
use serde_json::{Value, json};
use task_repo_tests::{SYSTEM_ROUTES, eventually};
use uuid::Uuid;

use crate::verbs::with;

/// Part of every secret and payload. Long enough to be shortened like an id, and then still known by its ends.
pub(crate) const CANARY: &str = "c4n4ry-that-sings-c4n4";
/// Both ends of it, and part of every other spelling.
pub(crate) const PIECE: &str = "c4n4";

/// Calls the program, and remembers what must not be in its log.
pub(crate) struct Caller {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) secrets: Vec<String>,
}

impl Caller {
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}/api/v1{path}", self.url));
        request = request.bearer_auth(&self.key).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, &[], &body.to_string()).await
    }

    /// The body of a success.
    async fn done(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.send(method, path, headers, &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    }

    /// Ids and lease tokens of the tasks in the answer; secrets from then on.
    async fn claimed(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Vec<(String, String)> {
        let answer = self.done("POST", path, headers, body).await;
        let tasks = answer["tasks"].as_array().unwrap_or_else(|| panic!("no tasks: {answer}"));
        tasks.iter().map(|task| (self.keep(&task["id"]), self.keep(&task["lease"]["token"]))).collect()
    }

    /// A task full of canaries; its id is a secret from then on.
    async fn create(&mut self) -> String {
        let body = json!({
            "task_type": CANARY, "user_id": CANARY, "name": CANARY, "description": CANARY, "request": {CANARY: CANARY},
            "metadata": {CANARY: CANARY}, "tags": {CANARY: CANARY}, "template": {"service_type": CANARY},
        });
        let (status, task) = self.post("/tasks", body).await;
        assert_eq!(status, 201, "{task}");
        self.keep(&task["id"])
    }

    /// The same, and a lease on it.
    pub(crate) async fn claim(&mut self) -> (String, String) {
        let id = self.create().await;
        let (status, task) = self.post(&format!("/tasks/{id}/claim"), json!({"worker_id": CANARY})).await;
        assert_eq!(status, 200, "{task}");
        (id, self.keep(&task["lease"]["token"]))
    }

    fn keep(&mut self, secret: &Value) -> String {
        self.secrets.push(secret.as_str().expect("a secret").to_owned());
        self.secrets.last().unwrap().clone()
    }
}

/// Keys and tasks through their lives.
pub(crate) async fn work(caller: &mut Caller) {
    let body = json!({"name": CANARY, "roles": ["producer", "worker"], "tenant_id": "t"});
    let (_, issued) = caller.post("/keys", body).await;
    caller.keep(&issued["key"]);
    let key = caller.keep(&issued["id"]);
    let (status, rotated) = caller.post(&format!("/keys/{key}/rotate"), json!({})).await;
    assert_eq!(status, 200, "{rotated}");
    let secret = caller.keep(&rotated["key"]);
    let mut tenant =
        Caller { http: caller.http.clone(), url: caller.url.clone(), key: secret, secrets: Vec::new() };
    tenant.create().await;
    caller.secrets.append(&mut tenant.secrets);
    caller.send("DELETE", &format!("/keys/{key}"), &[], "").await;
    assert_eq!(tenant.send("GET", &format!("/tasks/{CANARY}"), &[], "").await.0, 401);

    for (verb, more) in [
        ("complete", json!({"result": CANARY, "result_id": CANARY})),
        ("fail", json!({"error": {"message": CANARY, "code": CANARY, "details": CANARY}})),
        ("release", json!({})),
        ("cancel", json!({})),
        ("heartbeat", json!({"progress": {"text": CANARY}})),
        ("logs", json!({"lines": [{"message": CANARY}]})),
    ] {
        let (id, token) = caller.claim().await;
        let mut body = with(json!({"lease_token": format!("{CANARY}-token")}), more);
        assert_eq!(caller.post(&format!("/tasks/{id}/{verb}"), body.clone()).await.0, 409);
        caller.post(&format!("/tasks/{id}/cancel"), json!({})).await;
        body["lease_token"] = token.into();
        let (status, receipt) = caller.post(&format!("/tasks/{id}/{verb}"), body).await;
        assert!(status == 200 || status == 204, "{verb}: {receipt}");
        for path in ["", "/status", "/executions", "/logs"] {
            caller.send("GET", &format!("/tasks/{id}{path}"), &[("X-User-ID", CANARY)], "").await;
        }
        caller.send("DELETE", &format!("/tasks/{id}?force=true"), &[], "").await;
    }
}

/// What moves tasks otherwise: many at once, by their type, after a wait, by hand, and too late.
pub(crate) async fn queue(caller: &mut Caller) {
    let user = ("X-User-ID", CANARY);
    let task = json!({"task_type": CANARY, "request": CANARY, "tags": {CANARY: CANARY}});
    let batch = json!({"tasks": [task, task, task, {CANARY: CANARY}]});
    for _ in 0..2 {
        let headers = [user, ("Idempotency-Key", "c4n4ry-idempotency-3")];
        let answer = caller.done("POST", "/tasks/batch", &headers, &batch).await;
        for result in &answer["results"].as_array().unwrap()[..3] {
            caller.keep(&result["task"]["id"]);
        }
    }
    let claim_id = caller.keep(&json!(Uuid::now_v7()));
    let claim = json!({
        "task_types": [CANARY], "worker_id": CANARY, "limit": 2, "claim_id": claim_id, "tags": {CANARY: CANARY},
    });
    let mut held = Vec::new();
    for _ in 0..2 {
        held = caller.claimed("/tasks/claim", &[user], &claim).await;
        assert_eq!(held.len(), 2);
    }
    let more = json!({"progress": {"text": CANARY}, "id": held[0].0, "lease_token": held[0].1});
    let beats = json!({"heartbeats": [more, {"id": held[1].0, "lease_token": CANARY}, {"id": CANARY, "lease_token": CANARY}]});
    caller.done("POST", "/tasks/heartbeat", &[], &beats).await;
    let outcome = |(id, token): &(String, String)| json!({"id": id, "lease_token": token, "outcome": "completed", "result": CANARY});
    let wrong = json!({"id": CANARY, "lease_token": CANARY, "outcome": CANARY});
    let next = json!({"task_types": [CANARY], "worker_id": CANARY});
    let outcomes = json!({"outcomes": [outcome(&held[0]), outcome(&held[1]), wrong], "claim": next});
    let (id, token) = caller.claimed("/tasks/outcomes", &[], &outcomes).await.remove(0);
    // The lease is lost: it was given back.
    let lease = json!({"lease_token": token});
    caller.done("POST", &format!("/tasks/{id}/release"), &[], &lease).await;
    let late = json!({"lease_token": token, "result": CANARY, "result_id": CANARY});
    for (verb, body) in [("complete", &late), ("heartbeat", &lease)] {
        assert_eq!(caller.post(&format!("/tasks/{id}/{verb}"), body.clone()).await.0, 409, "{verb}");
    }
    let lost = json!({"outcomes": [outcome(&(id.clone(), token))]});
    let answer = caller.done("POST", "/tasks/outcomes", &[], &lost).await;
    assert_eq!(answer["results"][0]["problem"]["code"], "lease_lost", "{answer}");

    let edit = json!({
        "name": CANARY, "description": CANARY, "request": CANARY, "metadata": {CANARY: CANARY},
        "tags": {CANARY: CANARY},
    });
    caller.done("PUT", &format!("/tasks/{id}"), &[user, ("If-Match", "*")], &edit).await;
    let status = format!("/tasks/{id}/status");
    caller.done("PUT", &status, &[], &json!({"status": "processing"})).await;
    let failed =
        json!({"status": "failed", "result": CANARY, "result_id": "c4n4ry-result", "error_message": CANARY});
    caller.done("PUT", &status, &[user], &failed).await;
    caller.done("POST", &format!("/tasks/{id}/execute"), &[user], &Value::Null).await;
}

/// A claim that waits until there is something.
pub(crate) async fn wait(caller: &mut Caller) {
    let queue = "c4n4ry-waited-for";
    let claim = json!({"task_types": [queue], "worker_id": CANARY, "wait_ms": 30_000});
    let metrics = format!("{}/api/v1/metrics", caller.url);
    let metrics = caller.http.get(metrics).bearer_auth(&caller.key);
    let create = async {
        eventually("the claim waits", async || {
            let asked = metrics.try_clone().expect("a request without a body").send().await;
            let metrics = asked.expect("an answer").text().await.expect("a text");
            metrics.lines().any(|line| line == "task_repo_waiting_claims 1")
        })
        .await;
        caller.post("/tasks", json!({"task_type": queue, "request": CANARY})).await
    };
    let ((status, claimed), _) = tokio::join!(caller.post("/tasks/claim", claim), create);
    assert_eq!(status, 200, "{claimed}");
    caller.keep(&claimed["tasks"][0]["lease"]["token"]);
    let id = caller.keep(&claimed["tasks"][0]["id"]);
    caller.done("GET", &format!("/tasks/{id}?wait_ms=1"), &[], &Value::Null).await;
}

/// What is only read.
pub(crate) async fn read(caller: &Caller) {
    for path in [
        "/tasks?status=any&tag=c4n4ry:c4n4ry&user_id=c4n4ry",
        "/tasks/by-result/c4n4ry-result",
        "/keys",
        "/failures",
    ] {
        caller.done("GET", path, &[("X-Tenant-ID", "default")], &Value::Null).await;
    }
    for (method, path, body) in [
        ("PUT", "/task-types/kept", json!({"description": CANARY, "request_schema": {"const": CANARY}})),
        ("POST", "/task-types/kept/pause", json!({"reason": CANARY})),
        ("GET", "/task-types/kept", Value::Null),
        ("GET", "/task-types", Value::Null),
        ("POST", "/task-types/kept/resume", json!({})),
        ("DELETE", "/task-types/kept", Value::Null),
    ] {
        caller.done(method, path, &[("X-Tenant-ID", "default")], &body).await;
    }
    for (path, _) in SYSTEM_ROUTES {
        let answer = caller.http.get(format!("{}{path}?", caller.url)).bearer_auth(&caller.key).send().await;
        assert!(answer.expect("an answer").status().is_success(), "{path}");
    }
}

/// Streams, opened with tokens.
pub(crate) async fn streams(caller: &mut Caller) {
    let id = caller.create().await;
    for path in [format!("/tasks/{id}/stream-token"), "/stream-token".to_owned()] {
        let (status, made) = caller.post(&path, json!({"expires_in_seconds": 60})).await;
        assert_eq!(status, 201, "{made}");
        let url = made["stream_url"].as_str().expect("a URL").to_owned();
        let token = json!(url.split_once("token=").expect("a token").1);
        caller.keep(&token);
        let mut stream = caller.http.get(format!("{}{url}", caller.url)).send().await.expect("an answer");
        assert_eq!(stream.status(), 200);
        assert!(stream.chunk().await.expect("a chunk").is_some());
        let wrong = format!("{}{url}{CANARY}", caller.url);
        assert_eq!(caller.http.get(wrong).send().await.expect("an answer").status(), 401);
    }
}

/// A task that cannot be read, with something secret in odd places of what is stored.
pub(crate) async fn unreadable(caller: &Caller, database: &Database) {
    let task = json!({"task_type": "odd", "request": CANARY, "user_id": CANARY});
    let (_, task) = caller.post("/tasks", task).await;
    let odd = doc! {"$set": {"attempt": CANARY, "lease": {"token": CANARY}, "claim_ids": [CANARY]}};
    let tasks = database.collection::<Document>("tasks");
    tasks.update_one(doc! {"task_type": "odd"}, odd).await.expect("an answer");
    let path = format!("/unreadable-tasks/{}", task["id"].as_str().expect("an id"));
    for (method, path) in [("GET", "/unreadable-tasks"), ("GET", &path), ("DELETE", &path)] {
        let (status, answer) = caller.send(method, path, &[], "").await;
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
    }
}

/// What is refused, each with something in it that nobody should read.
pub(crate) async fn refusals(caller: &mut Caller) {
    let task = json!({"task_type": "t", "request": CANARY}).to_string();
    for body in [task.as_str(), r#"{"task_type":"t","request":"c4n4ry 2"}"#, task.as_str()] {
        let (_, answer) =
            caller.send("POST", "/tasks", &[("Idempotency-Key", "c4n4ry-idempotency")], body).await;
        if answer["id"].is_string() {
            caller.keep(&answer["id"]);
        }
    }
    let long = format!(r#"{{"task_type":"t","request":"{}"}}"#, CANARY.repeat(200_000));
    for body in
        ["{\"c4n4ry", "c4n4ry", r#""c4n4ry""#, r#"{"c4n4ry":1}"#, r#"{"task_type":["c4n4ry"]}"#, &long]
    {
        for (method, path) in [
            ("POST", "/tasks"),
            ("POST", "/tasks/claim"),
            ("PUT", "/tasks/c4n4ry-that-sings-c4n4"),
            ("POST", "/tasks/c4n4ry-that-sings-c4n4/complete"),
            ("POST", "/keys"),
            ("POST", "/c4n4ry"),
            ("PATCH", "/tasks/c4n4ry-that-sings-c4n4"),
            ("POST", "/keys/c4n4ry-that-sings-c4n4/rotate"),
        ] {
            let (status, _) = caller.send(method, path, &[], body).await;
            assert!((400..500).contains(&status), "{method} {path} {body:.50}: {status}");
        }
    }
    for path in [
        "/tasks/c4n4ry-that-sings-c4n4",
        "/tasks/c4n4ry-that-sings-c4n4/status",
        "/tasks/by-result/c4n4ry",
        "/tasks?c4n4ry=c4n4ry",
        "/tasks?cursor=c4n4ry",
        "/tasks?tag=c4n4ry:c4n4ry",
    ] {
        caller.send("GET", path, &[], "").await;
    }
    for (name, value) in [
        ("X-API-Key", CANARY),
        ("Authorization", "Bearer c4n4ry"),
        ("Authorization", "c4n4ry"),
        ("X-User-ID", "c4n4ry é"),
        ("X-Tenant-ID", CANARY),
        ("If-Match", CANARY),
        ("Idempotency-Key", "c4n4ry é"),
        ("Cookie", CANARY),
        ("X-Request-ID", "c4n4ry é"),
        ("Content-Type", "text/c4n4ry"),
        ("Expect", CANARY),
        ("Upgrade", CANARY),
    ] {
        caller.send("POST", "/tasks", &[(name, value)], &task).await;
    }
}
