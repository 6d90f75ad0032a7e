//! A task of another tenant or another user is exactly like a missing one, on every route, and nothing changes it.

use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, HttpCall, ROUTES, Route, TestServer, assert_problem, id_of};
use uuid::Uuid;

const STATUSES: [&str; 6] = ["pending", "scheduled", "processing", "completed", "failed", "cancelled"];

/// Everything by which one caller is not another.
struct Stranger {
    key: Option<String>,
    tenant: Option<&'static str>,
    user: Option<&'static str>,
}

impl Stranger {
    fn dress(&self, mut call: HttpCall) -> HttpCall {
        if let Some(key) = &self.key {
            call = call.key(key);
        }
        if let Some(tenant) = self.tenant {
            call = call.tenant(tenant);
        }
        if let Some(user) = self.user {
            call = call.user(user);
        }
        call
    }
}

/// Callers who are not alice in tenant `default`.
async fn strangers(server: &TestServer) -> Vec<Stranger> {
    let roles = ["producer", "worker", "operator", "viewer"];
    let theirs = server.issue_key(&roles, json!({"tenant_id": "theirs"})).await;
    let ours = server.issue_key(&roles, json!({})).await;
    let admin = server.issue_key(&["admin", "producer", "worker", "operator"], json!({})).await;
    vec![
        Stranger { key: None, tenant: Some("theirs"), user: None },
        Stranger { key: None, tenant: Some("theirs"), user: Some("alice") },
        Stranger { key: None, tenant: None, user: Some("bob") },
        Stranger { key: None, tenant: None, user: Some("Alice") },
        Stranger { key: Some(theirs.clone()), tenant: None, user: None },
        Stranger { key: Some(theirs), tenant: Some("theirs"), user: Some("alice") },
        Stranger { key: Some(ours), tenant: None, user: Some("bob") },
        Stranger { key: Some(admin), tenant: Some("theirs"), user: None },
    ]
}

/// What an answer says, but for what names the request and the task.
fn told(answer: &HttpAnswer, id: &str) -> (u16, String) {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    (answer.status, body.to_string().replace(id, "ID"))
}

fn body_with_token(route: &Route, token: &Value) -> Option<Value> {
    let mut body: Value = serde_json::from_str(route.body?).unwrap();
    if body.get("lease_token").is_some() {
        body["lease_token"] = token.clone();
    }
    Some(body)
}

/// A task of alice in that status, and the token of its latest lease, or some text.
async fn task_of_alice(server: &TestServer, status: &str) -> (Value, Value) {
    let fields = json!({"user_id": "alice", "name": "secret", "request": {"secret": true}});
    if status != "processing" {
        return (server.create_in(status, fields).await, json!("a token"));
    }
    let task = server.create(fields).await;
    let claim = server.post(&format!("/tasks/{}/claim", id_of(&task))).json(&json!({"worker_id": "w"}));
    let claimed = claim.send().await.ok();
    (server.task(id_of(&task)).await, claimed["lease"]["token"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_task_is_like_a_missing_one_on_every_route() {
    let server = TestServer::start().await;
    let strangers = strangers(&server).await;
    for status in STATUSES {
        let (before, token) = task_of_alice(&server, status).await;
        let id = id_of(&before);
        let history = server.get(&format!("/tasks/{id}/executions")).send().await.ok();
        for stranger in &strangers {
            for route in ROUTES.iter().filter(|route| route.names_a_task()) {
                let missing = Uuid::now_v7().to_string();
                let mut answers = Vec::new();
                for id in [id, &missing] {
                    let mut call = stranger.dress(server.request(route.method, &route.path_for(id)));
                    if let Some(body) = body_with_token(route, &token) {
                        call = call.json(&body);
                    }
                    let answer = call.send().await;
                    answer.problem(404, "task_not_found");
                    answers.push(told(&answer, id));
                }
                assert_eq!(answers[0], answers[1], "{status}: {} {}", route.method, route.path);
            }
            for (method, path) in
                [("DELETE", format!("/tasks/{id}?force=true")), ("GET", format!("/tasks/{id}?wait_ms=30000"))]
            {
                stranger.dress(server.request(method, &path)).send().await.problem(404, "task_not_found");
            }
            let stale = stranger.dress(server.put(&format!("/tasks/{id}")).header("If-Match", "\"1\""));
            stale.json(&json!({"name": "theirs now"})).send().await.problem(404, "task_not_found");
        }
        assert_eq!(server.task(id).await, before, "{status}");
        assert_eq!(server.get(&format!("/tasks/{id}/executions")).send().await.ok(), history, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_task_is_like_a_missing_one_in_batches() {
    let server = TestServer::start().await;
    let (before, token) = task_of_alice(&server, "processing").await;
    let (id, missing) = (id_of(&before), Uuid::now_v7().to_string());
    for stranger in strangers(&server).await {
        let mut bodies = vec![(
            "/tasks/heartbeat",
            json!({"heartbeats": [
                {"id": id, "lease_token": token, "progress": {"value": 0.5}},
                {"id": missing, "lease_token": token, "progress": {"value": 0.5}},
            ]}),
        )];
        for outcome in ["completed", "failed", "released", "cancelled"] {
            let mut items =
                [json!({"id": id, "lease_token": token}), json!({"id": missing, "lease_token": token})];
            for item in &mut items {
                item["outcome"] = outcome.into();
                if outcome == "failed" {
                    item["error"] = json!({"message": "m"});
                }
            }
            bodies.push(("/tasks/outcomes", json!({"outcomes": items})));
        }
        for (path, body) in bodies {
            let answer = stranger.dress(server.post(path)).json(&body).send().await.ok();
            let mut problems = Vec::new();
            for (result, id) in answer["results"].as_array().unwrap().iter().zip([id, &missing]) {
                assert_problem(&result["problem"], 404, "task_not_found");
                problems.push(result.to_string().replace(id, "ID"));
            }
            assert_eq!(problems[0], problems[1], "{body}");
        }
    }
    assert_eq!(server.task(id).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_find_and_claim_nothing() {
    let server = TestServer::start().await;
    let waiting = server.create(json!({"task_type": "shared", "user_id": "alice", "tags": {"k": "v"}})).await;
    let done = server.create(json!({"task_type": "done", "user_id": "alice"})).await;
    let claimed = server.claim("done").await;
    let body = json!({"lease_token": claimed["lease"]["token"], "result_id": "result-1", "result": "secret"});
    server.post(&format!("/tasks/{}/complete", id_of(&done))).json(&body).send().await.ok();
    for stranger in strangers(&server).await {
        for query in ["", "?status=any", "?status=completed&include=payload", "?task_type=shared", "?tag=k:v"]
        {
            let listed = stranger.dress(server.get(&format!("/tasks{query}"))).send().await.ok();
            assert_eq!(listed["tasks"], json!([]), "{query}");
            assert_eq!(listed["next_cursor"], json!(null), "{query}");
        }
        // For the user of another the answer may also be a refusal; it must not be the task.
        let asked = stranger.dress(server.get("/tasks?user_id=alice")).send().await;
        assert!(asked.status == 403 || asked.ok()["tasks"] == json!([]), "{asked:?}");
        let by_result = stranger.dress(server.get("/tasks/by-result/result-1")).send().await;
        by_result.problem(404, "task_not_found");
        let claim = json!({"task_types": ["shared"], "worker_id": "w", "limit": 1000});
        let nothing = stranger.dress(server.post("/tasks/claim")).json(&claim).send().await.ok();
        assert_eq!(nothing["tasks"], json!([]));
        let with_claim = json!({"outcomes": [], "claim": claim});
        let nothing = stranger.dress(server.post("/tasks/outcomes")).json(&with_claim).send().await.ok();
        assert_eq!(nothing["tasks"], json!([]));
    }
    assert_eq!(server.task(id_of(&waiting)).await, waiting);
    let alice = server.get("/tasks/by-result/result-1").user("alice").send().await.ok();
    assert_eq!(alice["result"], "secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_sees_and_claims_their_own() {
    let server = TestServer::start().await;
    let create = async |user: Option<&str>| {
        let call = server.post("/tasks").json(&json!({"task_type": "shared"}));
        let call = if let Some(user) = user { call.user(user) } else { call };
        call.send().await.ok()
    };
    let (nobodys, alices, bobs) =
        (create(None).await, create(Some("alice")).await, create(Some("bob")).await);
    let listed = async |user: Option<&str>| {
        let call = server.get("/tasks");
        let answer = if let Some(user) = user { call.user(user) } else { call }.send().await.ok();
        answer["tasks"].as_array().unwrap().iter().map(|task| id_of(task).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await, [id_of(&nobodys), id_of(&alices), id_of(&bobs)]);
    assert_eq!(listed(Some("alice")).await, [id_of(&alices)]);
    assert_eq!(listed(Some("bob")).await, [id_of(&bobs)]);
    let nobody = server.get(&format!("/tasks/{}", id_of(&nobodys))).user("alice").send().await;
    nobody.problem(404, "task_not_found");

    let claim = json!({"task_types": ["shared"], "worker_id": "w", "limit": 10});
    let claimed = server.post("/tasks/claim").user("bob").json(&claim).send().await.ok();
    assert_eq!(claimed["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(claimed["tasks"][0]["id"], bobs["id"]);
    let by_id = server.post(&format!("/tasks/{}/claim", id_of(&alices))).user("alice");
    assert_eq!(by_id.json(&json!({"worker_id": "w"})).send().await.ok()["id"], alices["id"]);
    assert_eq!(listed(None).await, [id_of(&nobodys)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_id_belongs_to_tenant_and_user() {
    let server = TestServer::start().await;
    let claim = json!({"task_types": ["shared"], "worker_id": "w", "claim_id": Uuid::new_v4()});
    let task = server.create(json!({"task_type": "shared", "user_id": "alice"})).await;
    let first = server.post("/tasks/claim").json(&claim).send().await.ok();
    assert_eq!(first["tasks"][0]["id"], task["id"]);
    for stranger in strangers(&server).await {
        let other = stranger.dress(server.post("/tasks/claim")).json(&claim).send().await.ok();
        assert_eq!(other["tasks"], json!([]));
    }
    let alice = server.post("/tasks/claim").user("alice").json(&claim).send().await.ok();
    assert_eq!(alice["tasks"], json!([]), "the same claim id for a user is another");
    let again = server.post("/tasks/claim").json(&claim).send().await.ok();
    assert_eq!(again["tasks"][0]["lease"]["token"], first["tasks"][0]["lease"]["token"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_shows_strangers_nothing() {
    let server = TestServer::start().await;
    for _ in 0..4 {
        server.create(json!({"task_type": "shared", "user_id": "alice"})).await;
    }
    let page = server.get("/tasks?limit=2").send().await.ok();
    let cursor = page["next_cursor"].as_str().expect("there is more");
    for stranger in strangers(&server).await {
        let call = stranger.dress(server.get("/tasks")).query(&[("limit", "2"), ("cursor", cursor)]);
        let answer = call.send().await;
        assert!(answer.status == 400 || answer.ok()["tasks"] == json!([]), "{answer:?}");
    }
}
