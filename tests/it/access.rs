//! Who may call what, on every route that the code has. The routes come from the server's own OpenAPI document, which a
//! unit test holds equal to the table it routes by; what is expected of each is written by hand in `ROUTES`.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, HttpCall, ROUTES, SYSTEM_ROUTES, TestServer, as_shown_later, id_of};
use uuid::Uuid;

use task_repo_protocol::path;

const ROLES: [&str; 5] = ["producer", "worker", "viewer", "operator", "admin"];
/// All that one tenant's key may have.
const ALL_BUT_ADMIN: [&str; 4] = ["producer", "worker", "viewer", "operator"];
/// Stands in everything that the tasks of the victim hold.
const CANARY: &str = "hush-0f7d";

/// Who may call a route, by the contract.
#[derive(Debug, Clone, Copy)]
enum Who {
    Everybody,
    AnyKey,
    Roles(&'static [&'static str]),
}

/// A route of the code, and one way to call it.
#[derive(Debug, Clone)]
struct Operation {
    method: String,
    path: String,
    who: Who,
    body: Option<&'static str>,
}

impl Operation {
    /// The call, with `id` wherever an id stands and `token` wherever a lease token does.
    fn call(&self, server: &TestServer, id: &str, token: &str, task_type: &str) -> HttpCall {
        let path = self.path.replace("{task_id}", id).replace("{key_id}", id).replace("{asset}", "index.css");
        let path = path.replace("{result_id}", CANARY).replace("{task_type}", task_type);
        let call = server.request(&self.method, &path);
        let Some(body) = self.body else { return call };
        let mut body: Value = serde_json::from_str(body).unwrap();
        fill_in(&mut body, id, token, task_type);
        call.json(&body)
    }

    fn names_a_task(&self) -> bool {
        self.path.contains("{task_id}")
    }
}

/// Puts those wherever an id, a lease token or task types stand.
pub(crate) fn fill_in(body: &mut Value, id: &str, token: &str, task_type: &str) {
    match body {
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(item, id, token, task_type)),
        Value::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    "id" => *member = id.into(),
                    "lease_token" => *member = token.into(),
                    "task_type" => *member = task_type.into(),
                    "task_types" => *member = json!([task_type]),
                    _ => fill_in(member, id, token, task_type),
                }
            }
        }
        _ => {}
    }
}

/// What is expected of that route; nothing for a route that nobody has thought about.
fn expected(method: &str, path: &str) -> Vec<Operation> {
    let operation = |who, body| Operation { method: method.to_owned(), path: path.to_owned(), who, body };
    let below = path.strip_prefix(path::BASE);
    let resources = ROUTES.iter().filter(|route| route.method == method && Some(route.path) == below);
    let resources = resources.map(|route| operation(Who::Roles(route.roles), route.body));
    // Probes and documentation stand at the root and below the base path.
    let bare = below.unwrap_or(path);
    let system = SYSTEM_ROUTES.iter().chain(&[(path::DOCS_ASSET, false)]);
    let system = system.filter(|(path, _)| method == "GET" && *path == bare);
    let system =
        system.map(|(_, needs_key)| operation(if *needs_key { Who::AnyKey } else { Who::Everybody }, None));
    resources.chain(system).collect()
}

/// Every route of the code with what is expected of it. Panics at one without an expectation.
async fn operations(server: &TestServer) -> Vec<Operation> {
    let document = server.get("/openapi.json").no_key().send().await.ok();
    let mut operations = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let expected = expected(&method, path);
            assert!(!expected.is_empty(), "nobody has said who may call {method} {path}");
            operations.extend(expected);
            seen.insert((method, path.clone()));
        }
    }
    for route in ROUTES {
        let route = (route.method.to_owned(), format!("{}{}", path::BASE, route.path));
        assert!(seen.contains(&route), "the code does not have {route:?}");
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_key_nothing_but_public_routes_answers() {
    let server = TestServer::start().await;
    let revoked = server.issue(&ROLES, json!({})).await;
    server.delete(&format!("/keys/{}", id_of(&revoked))).send().await.success();
    let expired = server.issue_key(&ROLES, json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    let task = server.create(json!({})).await;
    let bearer = |key: &str| ("Authorization", format!("Bearer {key}"));
    let wrong = [
        bearer(""),
        bearer("test_api_ke"),
        bearer("test_api_key2"),
        bearer("TEST_API_KEY"),
        bearer("test_api_key test_api_key"),
        bearer(revoked["key"].as_str().unwrap()),
        bearer(&expired),
        ("Authorization", "test_api_key".to_owned()),
        ("Authorization", "Basic dGVzdF9hcGlfa2V5".to_owned()),
        ("X-API-Key", String::new()),
        ("X-API-Key", "Bearer test_api_key".to_owned()),
        ("Cookie", "api_key=test_api_key".to_owned()),
    ];
    for operation in operations(&server).await {
        let call = || operation.call(&server, id_of(&task), "token", "t").no_key();
        let mut answers =
            vec![call().send().await, call().query(&[("api_key", "test_api_key")]).send().await];
        for (name, value) in &wrong {
            answers.push(call().header(name, value).send().await);
        }
        // Two keys leave open which counts, and a wrong one is not made good by another beside it.
        let two = call().header("Authorization", "Bearer x").header("Authorization", "Bearer test_api_key");
        answers.push(two.send().await);
        answers.push(
            call().header("Authorization", "Bearer x").header("X-API-Key", "test_api_key").send().await,
        );
        for answer in answers {
            if matches!(operation.who, Who::Everybody) {
                assert!([200, 400, 404].contains(&answer.status), "{operation:?}: {answer:?}");
            } else {
                answer.problem(401, "unauthenticated");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    }
    assert_eq!(server.task(id_of(&task)).await, task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_alone_may_do_what_the_contract_says() {
    let server = TestServer::start().await;
    let missing = Uuid::now_v7().to_string();
    let operations = operations(&server).await;
    for role in ROLES {
        let key = server.issue_key(&[role], json!({})).await;
        for operation in &operations {
            let answer = operation.call(&server, &missing, "token", "t").key(&key).send().await;
            let may = match operation.who {
                Who::Everybody | Who::AnyKey => true,
                Who::Roles(roles) => roles.contains(&role),
            };
            if may {
                assert!(
                    [200, 201, 204, 404].contains(&answer.status),
                    "{role} should: {operation:?}: {answer:?}"
                );
            } else {
                assert_eq!(answer.status, 403, "{role} should not: {operation:?}: {answer:?}");
                answer.problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_key_cannot_name_another_tenant() {
    let server = TestServer::start().await;
    let key = server.issue_key(&ALL_BUT_ADMIN, json!({"tenant_id": "ours"})).await;
    let victim = server.post("/tasks").tenant("theirs").json(&json!({"task_type": "t"})).send().await.ok();
    let victim = as_shown_later(victim);
    for operation in operations(&server).await {
        let call = || operation.call(&server, id_of(&victim), "token", "t").key(&key);
        let answers = [
            call().tenant("theirs").send().await,
            call().tenant("default").send().await,
            call().tenant("Ours").send().await,
            call().tenant("").send().await,
            call().tenant("ours").tenant("theirs").send().await,
            call().tenant("ours, theirs").send().await,
        ];
        for answer in answers {
            if matches!(operation.who, Who::Everybody) {
                assert!([200, 400, 404].contains(&answer.status), "{operation:?}: {answer:?}");
            } else {
                assert_eq!(answer.status, 403, "{operation:?}: {answer:?}");
                answer.problem(403, "forbidden");
            }
        }
    }
    let now = server.get(&format!("/tasks/{}", id_of(&victim))).tenant("theirs").send().await.ok();
    assert_eq!(now, victim);
}

/// Tasks of alice in tenant `default`, with a canary wherever text may stand: waiting, under a lease, and finished.
async fn victims(server: &TestServer) -> Vec<(String, String)> {
    let fields = json!({
        "task_type": "secret.type", "user_id": "alice", "name": CANARY, "description": CANARY, "request": CANARY,
        "metadata": {CANARY: CANARY}, "tags": {CANARY: CANARY}, "template": {"service_type": CANARY},
    });
    let mut victims = Vec::new();
    for status in ["pending", "processing", "completed", "failed"] {
        let task = server.create(fields.clone()).await;
        let id = id_of(&task).to_owned();
        if status == "pending" {
            victims.push((id, Uuid::new_v4().to_string()));
            continue;
        }
        let claim = server.post(&format!("/tasks/{id}/claim")).json(&json!({"worker_id": CANARY}));
        let token = claim.send().await.ok()["lease"]["token"].as_str().unwrap().to_owned();
        let settled = json!({"lease_token": token, "result": CANARY, "result_id": CANARY});
        let failed = json!({"lease_token": token, "retry": "never", "error": {"message": CANARY}});
        let settle = match status {
            "completed" => Some(("complete", settled)),
            "failed" => Some(("fail", failed)),
            _ => None,
        };
        if let Some((verb, body)) = settle {
            server.post(&format!("/tasks/{id}/{verb}")).json(&body).send().await.ok();
        }
        victims.push((id, token));
    }
    victims
}

/// Everything that is stored of alice's tasks and of the keys, byte for byte but for when a key was used.
async fn stored(server: &TestServer) -> Vec<String> {
    let mut all = Vec::new();
    for (collection, filter) in
        [("tasks", doc! {"user_id": "alice", "tenant": "default"}), ("api_keys", doc! {})]
    {
        let collection = server.database().collection::<Document>(collection);
        let found = collection.find(filter).sort(doc! {"_id": 1}).await.unwrap();
        for mut document in found.try_collect::<Vec<_>>().await.unwrap() {
            document.remove("last_used_at");
            all.push(document.to_string());
        }
    }
    all
}

/// What an answer to a stranger may be: no word of the victim, and 404 where one of its tasks is named.
#[track_caller]
fn assert_tells_nothing(operation: &Operation, answer: &HttpAnswer) {
    assert!(
        !answer.text().contains(CANARY) || operation.path.contains("{result_id}"),
        "{operation:?}: {answer:?}"
    );
    if operation.names_a_task() {
        answer.problem(404, "task_not_found");
    } else if operation.path.contains("{result_id}") {
        let problem = answer.problem(404, "task_not_found");
        assert_eq!(problem["detail"], format!("no task has produced the result {CANARY}"));
    } else if operation.path.contains("{key_id}") || operation.path.ends_with(path::KEYS) {
        answer.problem(403, "forbidden");
    } else if operation.path.contains("{task_type}") {
        // In a tenant of its own a stranger may have a type of the same name.
        assert!([200, 204, 403, 404].contains(&answer.status), "{operation:?}: {answer:?}");
    } else {
        assert!([200, 201, 403].contains(&answer.status), "{operation:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_with_all_roles_learn_and_change_nothing_on_any_route() {
    let server = TestServer::start().await;
    let victims = victims(&server).await;
    let issue = async |extra: Value| server.issue_key(&ALL_BUT_ADMIN, extra).await;
    let strangers = [
        (issue(json!({"tenant_id": "theirs"})).await, None),
        (issue(json!({"tenant_id": "theirs"})).await, Some("alice")),
        (issue(json!({"task_types": ["secret", "secret.typ", "secret.type2"]})).await, None),
        (issue(json!({"task_types": ["secret"]})).await, Some("alice")),
        (issue(json!({})).await, Some("bob")),
    ];
    let operations = operations(&server).await;
    let before = stored(&server).await;
    assert_eq!(before.len(), victims.len() + strangers.len());
    for (key, user) in &strangers {
        for (id, token) in &victims {
            for operation in &operations {
                let mut call = operation.call(&server, id, token, "secret.type").key(key);
                if let Some(user) = user {
                    call = call.user(user);
                }
                if operation.method == "GET" && operation.path.ends_with(path::TASKS) {
                    call = call.query(&[("status", "any"), ("include", "payload"), ("limit", "100")]);
                }
                assert_tells_nothing(operation, &call.send().await);
            }
        }
        assert_eq!(stored(&server).await, before, "{user:?}");
    }
    // The same calls by who may make them do find it: what is proven above is not that nobody finds anything.
    let (id, _) = &victims[2];
    assert_eq!(server.get(&format!("/tasks/by-result/{CANARY}")).user("alice").send().await.ok()["id"], **id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_of_the_service_itself_are_nobodys() {
    let server = TestServer::start().await;
    server.get("/tasks").tenant("_system").send().await.problem(403, "forbidden");
    server
        .post("/tasks")
        .tenant("_system")
        .json(&json!({"task_type": "t"}))
        .send()
        .await
        .problem(403, "forbidden");
    let key = json!({"name": "n", "roles": ["viewer"], "tenant_id": "_system"});
    let problem = server.post("/keys").json(&key).send().await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["loc"], json!(["body", "tenant_id"]));
}
