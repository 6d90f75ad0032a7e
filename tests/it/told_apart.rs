//! Users, tenants and keys are told apart byte by byte, whatever they are called.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use task_repo_tests::{HttpCall, TestServer, id_of};
use uuid::Uuid;

use crate::corpus::corpus;
use crate::injection::ids;

/// What of the corpus can be the name of a user or tenant. Tenants that begin with `_` are the service's own.
fn names() -> Vec<String> {
    let is_name =
        |text: &String| task_repo_protocol::key::visible_ascii(text, 128).is_ok() && !text.starts_with('_');
    let names: Vec<_> = corpus().into_iter().filter(is_name).collect();
    assert!(names.len() > 50, "{}", names.len());
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_tenants_are_told_apart_byte_by_byte() {
    let server = TestServer::start().await;
    let admin = server.issue_key(&["admin"], json!({"tenant_id": "nowhere"})).await;
    let mut issued = Vec::new();
    for (n, name) in names().into_iter().enumerate() {
        let issue = server.post("/keys").key(&admin);
        let body = json!({"name": name, "roles": ["viewer"]});
        let key = if n % 2 == 0 {
            issue.tenant(&name).json(&body).send().await.ok()
        } else {
            let mut body = body;
            body["tenant_id"] = name.as_str().into();
            issue.json(&body).send().await.ok()
        };
        assert_eq!((&key["name"], &key["tenant_id"]), (&json!(name), &json!(name)));
        issued.push((name, id_of(&key).to_owned()));
    }
    for (name, id) in &issued {
        let listed = server.get("/keys").key(&admin).tenant(name).send().await.ok();
        let ids: Vec<_> = listed["keys"].as_array().unwrap().iter().map(id_of).collect();
        assert_eq!(ids, [&**id], "{name:?}");
    }
    for text in [".*.*", "$ne$ne", "xx", "Nowhere", "NOWHERE"] {
        let listed = server.get("/keys").key(&admin).tenant(text).send().await.ok();
        assert_eq!(listed["keys"], json!([]), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_who_wait_are_told_apart_byte_by_byte() {
    let server = TestServer::start().await;
    // What another server creates is found only by looking for what the waiting callers want.
    let other = server.sibling().await;
    let names = names();
    let claim = json!({"task_types": ["t"], "worker_id": "w", "limit": 100, "wait_ms": 28_000});
    let claims = join_all(names.iter().map(|name| {
        let call = server.post("/tasks/claim").user(name).json(&claim).send();
        tokio::time::timeout(Duration::from_secs(20), call)
    }));
    let (claims, created) = tokio::join!(claims, async {
        server.until_claims_wait("t", names.len()).await;
        let create = |name: &String| other.post("/tasks").user(name).json(&json!({"task_type": "t"})).send();
        join_all(names.iter().map(create)).await
    });
    for ((name, claim), created) in names.iter().zip(claims).zip(created) {
        let claim = claim.unwrap_or_else(|_| panic!("{name:?} was not given its task"));
        assert_eq!(ids(&claim), [id_of(&created.ok())], "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_tenants_and_keys_are_told_apart_byte_by_byte() {
    let server = TestServer::start().await;
    let names = names();
    let mut created = Vec::new();
    for name in &names {
        // The same idempotency key for every user and every tenant is another key each time; and the other way round.
        let create =
            |call: HttpCall, key: &str| call.header("Idempotency-Key", key).json(&json!({"task_type": "t"}));
        let as_user = create(server.post("/tasks").user(name), "same").send().await.ok();
        let as_tenant = create(server.post("/tasks").tenant(name), "same").send().await.ok();
        let by_key = create(server.post("/tasks").tenant("keys"), name).send().await.ok();
        assert_eq!((&as_user["user_id"], &as_tenant["tenant_id"]), (&json!(name), &json!(name)));
        created.push((name, as_user, as_tenant, by_key));
    }
    for (name, as_user, as_tenant, by_key) in &created {
        let one = server.get("/tasks?limit=100").user(name).send().await;
        assert_eq!(ids(&one), [id_of(as_user)], "{name:?}");
        let one = server.get("/tasks?limit=100").query(&[("user_id", name)]).send().await;
        assert_eq!(ids(&one), [id_of(as_user)], "{name:?}");
        let mut found = ids(&server.get("/tasks?limit=100").tenant(name).send().await);
        // Tenant `default` has all the users' tasks too.
        found.retain(|id| !created.iter().any(|(_, as_user, ..)| id_of(as_user) == id));
        assert!(found == [id_of(as_tenant)] || *name == "default", "{name:?}: {found:?}");
        let again = server.post("/tasks").tenant("keys").header("Idempotency-Key", name);
        assert_eq!(again.json(&json!({"task_type": "t"})).send().await.ok()["id"], by_key["id"], "{name:?}");
    }
    for (name, as_user, ..) in &created {
        let claim = json!({"task_types": ["t"], "worker_id": "w", "limit": 100});
        let claimed = server.post("/tasks/claim").user(name).json(&claim).send().await;
        assert_eq!(ids(&claimed), [id_of(as_user)], "{name:?}");
        let token = &claimed.ok()["tasks"][0]["lease"]["token"];
        let done = json!({"lease_token": token, "result_id": "same"});
        let path = format!("/tasks/{}/complete", id_of(as_user));
        server.post(&path).user(name).json(&done).send().await.ok();
    }
    for (name, as_user, ..) in &created {
        let found = server.get("/tasks/by-result/same").user(name).send().await.ok();
        assert_eq!(found["id"], as_user["id"], "{name:?}");
    }
    // Cursors of one list lead nowhere in another, also with their inside rewritten.
    let foreign =
        json!({"filters": {"$ne": null}, "priority": {"$gt": 0}, "time": 0, "id": Uuid::nil()}).to_string();
    for cursor in [foreign.as_str(), "eyIkbmUiOm51bGx9", "e30"] {
        let call = server.get("/tasks").query(&[("cursor", cursor)]);
        call.send().await.problem(400, "invalid_parameter");
    }
}
