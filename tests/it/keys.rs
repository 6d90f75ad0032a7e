//! Issued keys: issue, list, rotate, revoke, expire; tenants and task types.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use mongodb::bson::Document;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, as_shown_later, eventually, id_of, in_seconds};
use uuid::Uuid;

async fn status_of(server: &TestServer, key: &str) -> u16 {
    server.get("/tasks").key(key).send().await.status
}

fn secret(issued: &Value) -> &str {
    issued["key"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issued_and_listed() {
    let server = TestServer::start().await;
    let plain = server.post("/keys").json(&json!({"name": "plain", "roles": ["viewer"]})).send().await;
    assert_eq!(plain.status, 201);
    let plain = plain.ok();
    assert!(secret(&plain).len() >= 16, "a secret that can be guessed");
    assert_eq!(id_of(&plain).parse::<Uuid>().unwrap().to_string(), id_of(&plain));
    assert_eq!((&plain["name"], &plain["roles"]), (&json!("plain"), &json!(["viewer"])));
    assert_eq!((&plain["tenant_id"], &plain["task_types"]), (&json!("default"), &Value::Null));
    assert_eq!(plain["expires_at"], Value::Null);
    let age = Utc::now() - plain["created_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!(age.num_minutes().abs() < 5);

    let whole = json!({
        "name": "whole", "roles": ["producer", "worker"], "tenant_id": "default", "task_types": ["a", "b.c"],
        "expires_at": "2100-01-01T02:00:00+02:00",
    });
    let whole = server.post("/keys").json(&whole).send().await.ok();
    assert_eq!(whole["task_types"], json!(["a", "b.c"]));
    assert_eq!(whole["expires_at"], "2100-01-01T00:00:00.000Z");
    assert_ne!(secret(&plain), secret(&whole));

    let answer = server.get("/keys").send().await;
    let list = answer.ok();
    let keys = list["keys"].as_array().unwrap();
    for issued in [&plain, &whole] {
        let shown =
            keys.iter().find(|key| key["id"] == issued["id"]).expect("it is listed").as_object().unwrap();
        assert_eq!(shown["last_used_at"], Value::Null);
        assert!(!shown.contains_key("key"));
        for (member, value) in issued.as_object().unwrap().iter().filter(|(member, _)| *member != "key") {
            assert_eq!(shown.get(member), Some(value), "{member}");
        }
        assert!(!answer.text().contains(secret(issued)), "a list shows no secrets");
    }
    assert_eq!(status_of(&server, secret(&plain)).await, 200);
    eventually("the list shows when a key was used", async || {
        let list = server.get("/keys").send().await.ok();
        let keys = list["keys"].as_array().unwrap();
        keys.iter().any(|key| key["id"] == plain["id"] && key["last_used_at"].is_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_hash_is_kept() {
    let server = TestServer::start().await;
    let issued = server.issue(&["viewer"], json!({})).await;
    let rotated = server.post(&format!("/keys/{}/rotate", id_of(&issued))).json(&json!({})).send().await.ok();
    let database = server.database();
    let mut documents = 0;
    for collection in database.list_collection_names().await.unwrap() {
        let found = database.collection::<Document>(&collection).find(Document::new()).await.unwrap();
        for document in found.try_collect::<Vec<_>>().await.unwrap() {
            let text = format!("{document:?}");
            assert!(
                !text.contains(secret(&issued)) && !text.contains(secret(&rotated)),
                "{collection}: {text}"
            );
            documents += 1;
        }
    }
    assert!(documents > 0, "the key is kept somewhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_key_may_not_say() {
    let server = TestServer::start().await;
    let wrong = [
        ("name", json!(null)),
        ("name", json!(1)),
        ("roles", json!([])),
        ("roles", json!(null)),
        ("roles", json!("viewer")),
        ("roles", json!(["owner"])),
        ("roles", json!(["Viewer"])),
        ("roles", json!([1])),
        ("roles", json!({})),
        ("task_types", json!([])),
        ("task_types", json!(["a b"])),
        ("task_types", json!([""])),
        ("task_types", json!("a")),
        ("task_types", json!(["x".repeat(129)])),
        ("tenant_id", json!("")),
        ("tenant_id", json!("a b")),
        ("tenant_id", json!("é")),
        ("tenant_id", json!("x".repeat(129))),
        ("tenant_id", json!(1)),
        ("expires_at", json!("tomorrow")),
        ("expires_at", json!("2100-01-01")),
        ("expires_at", json!(4_102_444_800_i64)),
        ("nonsense", json!(1)),
        ("id", json!(Uuid::now_v7())),
        ("key", json!("my-own-secret-of-some-length")),
        ("last_used_at", json!(null)),
    ];
    for (field, value) in wrong {
        let mut body = json!({"name": "n", "roles": ["viewer"]});
        body[field] = value.clone();
        let answer = server.post("/keys").json(&body).send().await;
        assert_eq!(answer.status, 422, "{field} {value}: {answer:?}");
        assert_eq!(answer.problem(422, "validation_failed")["errors"][0]["loc"][1], field);
    }
    assert_eq!(server.get("/keys").send().await.ok(), json!({"keys": []}));
    let longest = server
        .issue(&["viewer"], json!({"tenant_id": "x".repeat(128), "task_types": ["x".repeat(128)]}))
        .await;
    assert_eq!(longest["tenant_id"], "x".repeat(128));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_with_an_overlap() {
    let server = TestServer::start().await;
    let issued = server
        .issue(
            &["viewer", "producer"],
            json!({"task_types": ["a"], "expires_at": "2100-01-01T00:00:00.000Z"}),
        )
        .await;
    let rotate =
        async |body: Value| server.post(&format!("/keys/{}/rotate", id_of(&issued))).json(&body).send().await;
    for wrong in [-1.0, 1.5] {
        rotate(json!({"overlap_seconds": wrong})).await.problem(422, "validation_failed");
    }
    rotate(json!({"nonsense": 1})).await.problem(422, "validation_failed");
    assert_eq!(status_of(&server, secret(&issued)).await, 200);

    let answer = rotate(json!({"overlap_seconds": 3600})).await;
    assert_eq!(answer.status, 200);
    let second = answer.ok();
    assert_ne!(secret(&second), secret(&issued));
    for (member, value) in issued.as_object().unwrap().iter().filter(|(member, _)| *member != "key") {
        assert_eq!(second[member], *value, "{member}");
    }
    assert_eq!(status_of(&server, secret(&second)).await, 200);
    assert_eq!(
        status_of(&server, secret(&issued)).await,
        200,
        "the old secret is good until the overlap ends"
    );

    let third = rotate(json!({"overlap_seconds": 0})).await.ok();
    assert_eq!(status_of(&server, secret(&third)).await, 200);
    eventually("the overlap has ended", async || status_of(&server, secret(&second)).await == 401).await;
    let listed = server.get("/keys").send().await.ok();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "a rotation is no new key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_are_good_in_the_overlap_and_only_the_new_one_after_it() {
    let server = TestServer::start().await;
    let sibling = server.sibling().await;
    let first = server.issue(&["viewer"], json!({})).await;
    let rotate = async |overlap: i64| {
        let call = server.post(&format!("/keys/{}/rotate", id_of(&first)));
        call.json(&json!({"overlap_seconds": overlap})).send().await.ok()
    };
    let second = rotate(600).await;
    let statuses = async |key: &str| [status_of(&server, key).await, status_of(&sibling, key).await];
    let in_overlap = [statuses(secret(&first)).await, statuses(secret(&second)).await];
    assert_eq!(in_overlap, [[200; 2]; 2]);
    // A longer overlap of a later rotation is for the secret that it replaces, not for one whose end is set.
    let third = rotate(3600).await;
    server.jump(Duration::from_secs(600));
    assert_eq!(statuses(secret(&first)).await, [401; 2], "the first secret's overlap has ended");
    for good in [&second, &third] {
        assert_eq!(statuses(secret(good)).await, [200; 2]);
    }
    let stored =
        server.database().collection::<Document>("api_keys").find_one(Document::new()).await.unwrap();
    let hashes = stored.unwrap().get_array("hashes").unwrap().len();
    rotate(0).await;
    let stored =
        server.database().collection::<Document>("api_keys").find_one(Document::new()).await.unwrap();
    assert_eq!(
        (hashes, stored.unwrap().get_array("hashes").unwrap().len()),
        (3, 1),
        "what is over is not kept"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_everywhere() {
    let server = TestServer::start().await;
    let sibling = server.sibling().await;
    let issued = server.issue(&["viewer"], json!({})).await;
    let other = server.issue(&["viewer"], json!({})).await;
    let path = format!("/keys/{}", id_of(&issued));
    let rotated = server.post(&format!("{path}/rotate")).json(&json!({})).send().await.ok();
    for key in [secret(&issued), secret(&rotated), secret(&other)] {
        assert_eq!(status_of(&server, key).await, 200);
        assert_eq!(status_of(&sibling, key).await, 200);
    }
    let answer = server.delete(&path).send().await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for server in [&server, &sibling] {
        for key in [secret(&issued), secret(&rotated)] {
            eventually("the key is refused", async || status_of(server, key).await == 401).await;
        }
        assert_eq!(status_of(server, secret(&other)).await, 200);
    }
    server.delete(&path).send().await.problem(404, "key_not_found");
    server.post(&format!("{path}/rotate")).json(&json!({})).send().await.problem(404, "key_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired() {
    let server = TestServer::start().await;
    let issued = server.issue(&["viewer"], json!({"expires_at": in_seconds(600)})).await;
    let expires_at: DateTime<Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(status_of(&server, secret(&issued)).await, 200);
    // A minute for this machine, however slow it is.
    server.jump((expires_at - server.now() - TimeDelta::minutes(1)).to_std().unwrap());
    assert_eq!(status_of(&server, secret(&issued)).await, 200, "it is refused before its time");
    server.jump(Duration::from_secs(60));
    assert_eq!(status_of(&server, secret(&issued)).await, 401, "its time has come");
    let past = server
        .post("/keys")
        .json(&json!({"name": "n", "roles": ["viewer"], "expires_at": "2001-01-01T00:00:00Z"}));
    let past = past.send().await;
    if past.status == 422 {
        past.problem(422, "validation_failed");
    } else {
        assert_eq!(status_of(&server, secret(&past.ok())).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_a_tenant() {
    let server = TestServer::start().await;
    let issue = |body: Value| server.post("/keys").json(&body);
    let by_default = issue(json!({"name": "n", "roles": ["viewer"]})).send().await.ok();
    assert_eq!(by_default["tenant_id"], "default");
    let by_header = issue(json!({"name": "n", "roles": ["viewer"]})).tenant("b").send().await.ok();
    assert_eq!(by_header["tenant_id"], "b");
    let both = json!({"name": "n", "roles": ["producer"], "tenant_id": "a"});
    let by_body = issue(both).tenant("b").send().await.ok();
    assert_eq!(by_body["tenant_id"], "a", "the body goes before the header");

    let key = secret(&by_body);
    let create = || server.post("/tasks").key(key).json(&json!({"task_type": "t"}));
    let task = as_shown_later(create().send().await.ok());
    assert_eq!(task["tenant_id"], "a");
    assert_eq!(create().tenant("a").send().await.ok()["tenant_id"], "a");
    for other in ["b", "default", "A", "a "] {
        let answer = create().tenant(other).send().await;
        if other == "a " {
            // White space around a header's value is no part of it.
            assert_eq!(answer.ok()["tenant_id"], "a");
        } else {
            answer.problem(403, "forbidden");
        }
    }
    let path = format!("/tasks/{}", id_of(&task));
    server.get(&path).send().await.problem(404, "task_not_found");
    assert_eq!(server.get(&path).tenant("a").send().await.ok(), task);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_key_reaches_all_tenants() {
    let server = TestServer::start().await;
    let admin = server.issue_key(&["admin", "producer"], json!({})).await;
    let mut ids = Vec::new();
    for tenant in ["default", "a", "b"] {
        let create = server.post("/tasks").key(&admin).tenant(tenant).json(&json!({"task_type": "t"}));
        let task = create.send().await.ok();
        assert_eq!(task["tenant_id"], tenant);
        ids.push(id_of(&task).to_owned());
        let listed = server.get("/tasks").key(&admin).tenant(tenant).send().await.ok();
        assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
    }
    server
        .get(&format!("/tasks/{}", ids[1]))
        .key(&admin)
        .tenant("b")
        .send()
        .await
        .problem(404, "task_not_found");
    let issued =
        server.post("/keys").key(&admin).json(&json!({"name": "n", "roles": ["viewer"], "tenant_id": "b"}));
    let issued = issued.send().await.ok();
    assert_eq!(
        server.get(&format!("/tasks/{}", ids[2])).key(secret(&issued)).send().await.ok()["tenant_id"],
        "b"
    );
    let deleted = server.delete(&format!("/keys/{}", id_of(&issued))).key(&admin).tenant("b").send().await;
    assert_eq!(deleted.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_types_limit_what_a_key_creates_claims_and_sees() {
    let server = TestServer::start().await;
    let key = server.issue_key(&["producer", "worker"], json!({"task_types": ["mine", "also.mine"]})).await;
    let create = |task_type: &str| server.post("/tasks").key(&key).json(&json!({"task_type": task_type}));
    create("theirs").send().await.problem(403, "forbidden");
    create("Mine").send().await.problem(403, "forbidden");
    let mine = create("mine").send().await.ok();
    create("also.mine").send().await.ok();

    let theirs = server.create(json!({"task_type": "theirs"})).await;
    let path = format!("/tasks/{}", id_of(&theirs));
    for (method, path, body) in [
        ("GET", path.clone(), None),
        ("GET", format!("{path}/status"), None),
        ("GET", format!("{path}/executions"), None),
        ("PUT", path.clone(), Some(json!({"name": "n"}))),
        ("PUT", format!("{path}/status"), Some(json!({"status": "processing"}))),
        ("POST", format!("{path}/claim"), Some(json!({"worker_id": "w"}))),
        ("POST", format!("{path}/cancel"), None),
        ("POST", format!("{path}/execute"), None),
        ("DELETE", path.clone(), None),
    ] {
        let mut call = server.request(method, &path).key(&key);
        if let Some(body) = body {
            call = call.json(&body);
        }
        call.send().await.problem(404, "task_not_found");
    }
    assert_eq!(server.get(&path).send().await.ok(), theirs, "nothing has changed");

    let listed = server.get("/tasks?status=any").key(&key).send().await.ok();
    let mut types: Vec<_> =
        listed["tasks"].as_array().unwrap().iter().map(|task| task["task_type"].as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, [Some("also.mine"), Some("mine")]);
    let asked = server.get("/tasks?task_type=theirs").key(&key).send().await;
    assert!(asked.status == 403 || asked.ok()["tasks"] == json!([]), "{asked:?}");

    let claim = |types: &[&str]| {
        server
            .post("/tasks/claim")
            .key(&key)
            .json(&json!({"task_types": types, "worker_id": "w", "limit": 10}))
    };
    for types in [&["theirs"][..], &["mine", "theirs"], &["no-such"]] {
        claim(types).send().await.problem(403, "forbidden");
    }
    let claimed = claim(&["mine"]).send().await.ok();
    assert_eq!(claimed["tasks"][0]["id"], mine["id"]);

    let done = server.claim("theirs").await;
    let body = json!({"lease_token": done["lease"]["token"], "result_id": "their-result"});
    server.post(&format!("{path}/complete")).json(&body).send().await.ok();
    server.get("/tasks/by-result/their-result").key(&key).send().await.problem(404, "task_not_found");
    assert_eq!(server.get("/tasks/by-result/their-result").send().await.ok()["id"], theirs["id"]);
}
