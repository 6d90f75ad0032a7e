//! What roles are about beyond the table of routes, which `access.rs` tries whole.

use serde_json::json;
use task_repo_tests::{ROUTES, TestServer, id_of};

const ROLES: [&str; 5] = ["producer", "worker", "viewer", "operator", "admin"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_role_changes_nothing() {
    let server = TestServer::start().await;
    for status in ["pending", "processing", "completed"] {
        let before = server.create_in(status, json!({})).await;
        for role in ROLES {
            let key = server.issue_key(&[role], json!({})).await;
            for route in ROUTES.iter().filter(|route| route.names_a_task() && !route.roles.contains(&role)) {
                let mut call = server.request(route.method, &route.path_for(id_of(&before))).key(&key);
                if let Some(body) = route.body {
                    call = call.json_text(body);
                }
                call.send().await.problem(403, "forbidden");
            }
            assert_eq!(server.get(&format!("/tasks/{}", id_of(&before))).key(&key).send().await.ok(), before);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_hold_several_roles() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["producer", "worker"], json!({})).await;
    let task = server.post("/tasks").key(&key).json(&json!({"task_type": "both"})).send().await.ok();
    let claim = json!({"task_types": ["both"], "worker_id": "w"});
    let claimed = server.post("/tasks/claim").key(&key).json(&claim).send().await.ok();
    let path = format!("/tasks/{}", id_of(&task));
    let token = json!({"lease_token": claimed["tasks"][0]["lease"]["token"]});
    server.post(&format!("{path}/cancel")).key(&key).send().await.ok();
    server.post(&format!("{path}/cancel")).key(&key).json(&token).send().await.ok();
    assert_eq!(server.get(&path).key(&key).send().await.ok()["status"], "cancelled");
    server.get("/keys").key(&key).send().await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_asks_for_the_role_that_goes_with_its_body() {
    let server = TestServer::start().await;
    let worker = server.issue_key(&["worker"], json!({})).await;
    let producer = server.issue_key(&["producer"], json!({})).await;
    let operator = server.issue_key(&["operator"], json!({})).await;
    let task = server.create(json!({})).await;
    let claimed = server.claim(task["task_type"].as_str().unwrap()).await;
    let cancel = |key: &str| server.post(&format!("/tasks/{}/cancel", id_of(&task))).key(key);
    let token = json!({"lease_token": claimed["lease"]["token"]});
    for empty in [json!({}), json!({"lease_token": null})] {
        cancel(&worker).json(&empty).send().await.problem(403, "forbidden");
    }
    cancel(&worker).send().await.problem(403, "forbidden");
    cancel(&producer).json(&token).send().await.problem(403, "forbidden");
    cancel(&operator).json(&token).send().await.problem(403, "forbidden");
    assert_eq!(server.task(id_of(&task)).await["version"], claimed["version"]);
    assert_eq!(cancel(&operator).send().await.ok()["status"], "processing");
    assert_eq!(cancel(&worker).json(&token).send().await.ok()["status"], "cancelled");
}
