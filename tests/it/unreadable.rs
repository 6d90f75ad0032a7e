//! Documents that this server cannot read, as an operator or a defect may leave them: they stop nobody, and are counted
//! and named.

use bson::{Bson, DateTime, Document, doc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};

use crate::verbs::{claim, claim_one, create_many, id, ids, pass_until_status, post, settle, tasks};

/// More than a look of a loop, or a page, holds.
const MANY: usize = 600;

/// Makes what is stored of a task unreadable; what its indexes look at stays as it is.
async fn spoil(server: &TestServer, filter: Document) -> u64 {
    let tasks = server.database().collection::<Document>("tasks");
    let update = doc! {"$set": {"attempt": "one"}};
    tasks.update_many(filter, update).await.expect("the database answers").modified_count
}

fn key(task: &Value) -> bson::Uuid {
    bson::Uuid::parse_str(id(task)).expect("a UUID")
}

/// Tasks of a queue that cannot be read, and one behind them that can.
async fn spoilt_queue(server: &TestServer, fields: &Value) -> (String, Value) {
    let queue = unique_type();
    let task = |_| {
        let mut task = fields.clone();
        task["task_type"] = queue.clone().into();
        task
    };
    create_many(server, MANY, task).await;
    assert_eq!(spoil(server, doc! {"task_type": &queue}).await, MANY as u64);
    let good = server.create(task(0)).await;
    (queue, good)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_reach_what_lies_behind_them() {
    let server = TestServer::start().await;
    let fields = json!({"tags": {"colour": "red"}, "user_id": "ann"});
    for more in
        [json!({}), json!({"limit": 10}), json!({"tags": {"colour": "red"}}), json!({"wait_ms": 5000})]
    {
        let (queue, good) = spoilt_queue(&server, &fields).await;
        assert_eq!(ids(&claim(&server, &queue, more.clone()).await), [id(&good)], "{more}");
    }
    let (queue, good) = spoilt_queue(&server, &fields).await;
    let body = json!({"task_types": [queue], "worker_id": "w"});
    let claimed = server.post("/tasks/claim").user("ann").json(&body).send().await.ok();
    assert_eq!(ids(&claimed), [id(&good)]);
    // One that comes while somebody waits behind them.
    let (queue, good) = spoilt_queue(&server, &fields).await;
    claim(&server, &queue, json!({})).await;
    let body = json!({"task_types": [queue], "worker_id": "w", "wait_ms": 10_000});
    let (claimed, created) = tokio::join!(
        server.post("/tasks/claim").json(&body).send(),
        server.create(json!({"task_type": queue, "priority": 1}))
    );
    assert_ne!(id(&created), id(&good));
    assert_eq!(ids(&claimed.ok()), [id(&created)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_what_lies_behind_them_page_by_page() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let nth = |n: usize| json!({"task_type": queue, "user_id": "ann", "name": n.to_string()});
    create_many(&server, 300, nth).await;
    // Most pages begin, end or consist of some that cannot be read.
    let bad: Vec<_> =
        (0..300).filter(|n| n % 7 < 3 || (100..220).contains(n)).map(|n| n.to_string()).collect();
    spoil(&server, doc! {"name": {"$in": &bad}}).await;
    for filter in [
        vec![],
        vec![("status", "any")],
        vec![("status", "any"), ("user_id", "ann")],
        vec![("task_type", &*queue)],
    ] {
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut call = server.get("/tasks").query(&filter).query(&[("limit", "7")]);
            if let Some(cursor) = &cursor {
                call = call.query(&[("cursor", cursor)]);
            }
            let page = call.send().await.ok();
            seen.extend(tasks(&page).iter().map(|task| task["name"].as_str().expect("a name").to_owned()));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        let mut good: Vec<_> = (0..300).map(|n| n.to_string()).filter(|n| !bad.contains(n)).collect();
        good.sort();
        seen.sort();
        assert_eq!(seen, good, "{filter:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_move_what_lies_behind_them() {
    let server = TestServer::start().await;
    let collection = server.database().collection::<Document>("tasks");
    let long_ago = DateTime::from_millis(1_000_000);

    create_many(&server, MANY, |_| json!({"task_type": "due", "delay_seconds": 3600})).await;
    let good = server.create(json!({"task_type": "due", "delay_seconds": 1})).await;
    spoil(&server, doc! {"task_type": "due", "_id": {"$ne": key(&good)}}).await;
    let overdue = doc! {"$set": {"run_at": long_ago}};
    collection.update_many(doc! {"attempt": "one"}, overdue).await.expect("an answer");
    pass_until_status(&server, &good, "pending").await;

    create_many(&server, MANY, |_| json!({"task_type": "held"})).await;
    claim(&server, "held", json!({"limit": MANY})).await;
    spoil(&server, doc! {"task_type": "held"}).await;
    let lost = doc! {"$set": {"lease_until": long_ago}};
    collection.update_many(doc! {"task_type": "held"}, lost).await.expect("an answer");
    let good = server.create(json!({"task_type": "lost"})).await;
    claim_one(&server, &good, json!({"lease_seconds": 1})).await;
    pass_until_status(&server, &good, "pending").await;

    let health = server.get("/health/detailed").send().await.ok();
    for job in ["promoter", "sweeper"] {
        let job = &health["background"][job];
        assert_eq!(job["status"], "degraded", "a loop that cannot read a task does not fail: {health:#}");
        assert_eq!(job["unmoved"], MANY, "{health:#}");
        assert!(job["lag_ms"].as_f64().is_some_and(|lag| lag > 1e12), "since 1970: {job}");
    }
    assert_eq!(health["status"], "degraded", "{health:#}");
    let metrics = server.get("/metrics").send().await.text();
    for line in
        ["task_repo_background_unmoved{job=\"promoter\"}", "task_repo_background_failing{job=\"sweeper\"}"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    let gone = server.create(json!({"task_type": "gone"})).await;
    let over = doc! {"$set": {"attempt": "one", "remove_at": long_ago}};
    collection.update_one(doc! {"_id": key(&gone)}, over).await.expect("an answer");
    eventually("its retention ends all the same", async || {
        collection.find_one(doc! {"_id": key(&gone)}).await.expect("an answer").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_without_an_id_of_ours_stop_no_loop() {
    let server = TestServer::start().await;
    let collection = server.database().collection::<Document>("tasks");
    let long_ago = DateTime::from_millis(1_000_000);
    for strange in [
        doc! {"status": "scheduled", "run_at": long_ago},
        doc! {"status": "processing", "lease_until": long_ago},
        doc! {"status": "completed", "remove_at": long_ago},
    ] {
        collection.insert_many((0..MANY).map(|_| strange.clone())).await.expect("an answer");
    }
    let due = server.create(json!({"delay_seconds": 1})).await;
    let lost = server.create(json!({})).await;
    claim_one(&server, &lost, json!({"lease_seconds": 1})).await;
    let gone = server.create(json!({"retention_seconds": 0})).await;
    post(&server, &gone, "cancel", json!({})).await.ok();
    pass_until_status(&server, &due, "pending").await;
    pass_until_status(&server, &lost, "pending").await;
    eventually("what may be removed is removed, ours or not", async || {
        let left = collection.count_documents(doc! {"remove_at": {"$exists": true}}).await;
        left.expect("an answer") == 0
    })
    .await;
    let health = server.get("/health/detailed").send().await.ok();
    for job in ["promoter", "sweeper"] {
        assert_eq!(health["background"][job]["unmoved"], MANY, "{health:#}");
    }
    assert_eq!(health["unreadable"]["documents"][0]["field"], "_id", "{health:#}");
    collection.delete_many(doc! {"tenant": {"$exists": false}}).await.expect("an answer");
    eventually("the jobs are well again", async || {
        let health = server.get("/health/detailed").send().await.ok();
        health["background"].as_object().expect("jobs").values().all(|job| job["status"] == "healthy")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_another_tenant_are_not_there() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    spoil(&server, doc! {"_id": key(&task)}).await;
    let path = format!("/tasks/{}", id(&task));
    server.get(&path).tenant("other").send().await.problem(404, "task_not_found");
    let cancel = server.post(&format!("{path}/cancel")).tenant("other").json(&json!({}));
    cancel.send().await.problem(404, "task_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_named_is_unavailable_and_its_neighbours_are_not() {
    let server = TestServer::start().await;
    let made = create_many(&server, 3, |_| json!({"task_type": "named"})).await;
    let held = claim(&server, "named", json!({"limit": 3, "lease_seconds": 600})).await;
    let held = tasks(&held);
    spoil(&server, doc! {"_id": key(&made[1])}).await;
    let before =
        server.database().collection::<Document>("tasks").find_one(doc! {"_id": key(&made[1])}).await;
    let path = format!("/tasks/{}", id(&made[1]));
    for answer in [
        server.get(&path).send().await,
        server.get(&format!("{path}/status")).send().await,
        server.get(&format!("{path}/executions")).send().await,
        post(&server, &made[1], "execute", json!({})).await,
        server.put(&path).json(&json!({"priority": 7})).send().await,
        server.delete(&path).query(&[("force", "true")]).send().await,
    ] {
        let problem = answer.problem(503, "unavailable");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("cannot read")), "{problem}");
    }
    let outcome =
        |task: &Value| json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": "completed"});
    let outcomes: Vec<_> = held.iter().map(outcome).collect();
    let answer = server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
    for (task, result) in held.iter().zip(answer["results"].as_array().expect("results")) {
        if id(task) == id(&made[1]) {
            // The server that has leased it need not read it to know what its end is.
            assert!(result["receipt"].is_object() || result["problem"]["code"] == "unavailable", "{result}");
        } else {
            assert_eq!(result["receipt"]["status"], "completed", "{result}");
        }
    }
    assert!(before.expect("an answer").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_counted_and_named_without_their_contents() {
    let server = TestServer::start().await;
    let secret = server.create(json!({"task_type": "secret", "user_id": "ann"})).await;
    let tasks = server.database().collection::<Document>("tasks");
    let update = doc! {"$set": {"attempts": [{"id": "hush-hush"}], "losses": "hush-hush"}};
    tasks.update_one(doc! {"_id": key(&secret)}, update).await.expect("an answer");
    for _ in 0..2 {
        claim(&server, "secret", json!({})).await;
    }
    let health = server.get("/health/detailed").send().await.ok();
    let unreadable = &health["unreadable"];
    assert_eq!(unreadable["count"], 1, "{health:#}");
    let document = &unreadable["documents"][0];
    assert_eq!(
        (&document["collection"], &document["field"]),
        (&json!("tasks"), &json!("attempts[0].id")),
        "{document}"
    );
    let masked = document["id"].as_str().expect("an id");
    assert!(id(&secret).starts_with(&masked[..4]) && !masked.contains(id(&secret)), "{masked}");
    assert!(!health.to_string().contains("hush"), "values are not shown");
    let metrics = server.get("/metrics").send().await.text();
    assert!(metrics.contains("task_repo_unreadable_documents_total{collection=\"tasks\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_read_stops_no_other_key() {
    let server = TestServer::start().await;
    let (good, bad) =
        (server.issue(&["viewer"], json!({})).await, server.issue(&["viewer"], json!({})).await);
    let keys = server.database().collection::<Document>("api_keys");
    let update = doc! {"$set": {"roles": 7}};
    let named = doc! {"_id": bson::Uuid::parse_str(bad["id"].as_str().unwrap()).unwrap()};
    keys.update_one(named, update).await.expect("an answer");
    let listed = server.get("/keys").send().await.ok();
    let listed: Vec<_> =
        listed["keys"].as_array().expect("keys").iter().map(|key| key["id"].clone()).collect();
    assert_eq!(listed, [good["id"].clone()]);
    let call = |key: &Value| server.get("/tasks").key(key["key"].as_str().unwrap()).send();
    call(&good).await.ok();
    call(&bad).await.problem(503, "unavailable");
    let health = server.get("/health/detailed").send().await.ok();
    assert_eq!(health["unreadable"]["documents"][0]["collection"], "api_keys", "{health:#}");
    let revoked = server.delete(&format!("/keys/{}", bad["id"].as_str().unwrap())).send().await;
    assert_eq!(revoked.status, 204, "whether it can be read or not");
    assert_eq!(keys.count_documents(doc! {}).await.expect("an answer"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_came_back_into_shape_is_worked_on() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": "mended"})).await;
    spoil(&server, doc! {"_id": key(&task)}).await;
    assert!(tasks(&claim(&server, "mended", json!({})).await).is_empty());
    let mended = doc! {"$set": {"attempt": Bson::Int64(0)}};
    let collection = server.database().collection::<Document>("tasks");
    collection.update_one(doc! {"_id": key(&task)}, mended).await.expect("an answer");
    let held = claim(&server, "mended", json!({"wait_ms": 5000})).await;
    settle(&server, &tasks(&held)[0], "complete", json!({})).await.ok();
}
