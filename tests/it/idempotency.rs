//! `Idempotency-Key`: the same create twice makes one task.

use std::collections::BTreeSet;

use bson::{Document, doc};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, HttpCall, TestServer, assert_problem, id_of, unique_type};

const REPLAYED: &str = "idempotent-replayed";

fn keyed(call: HttpCall, key: &str) -> HttpCall {
    call.header("Idempotency-Key", key)
}

async fn count(server: &TestServer, task_type: &str) -> usize {
    let query = [("task_type", task_type), ("status", "any"), ("limit", "100")];
    let page = server.get("/tasks").query(&query).send().await.ok();
    page["tasks"].as_array().unwrap().len()
}

#[track_caller]
fn assert_replay(replay: &HttpAnswer, first: &HttpAnswer) {
    assert_eq!(replay.status, first.status, "{replay:?}");
    assert_eq!(replay.text(), first.text());
    assert_eq!(replay.header("location"), first.header("location"));
    assert_eq!(replay.header(REPLAYED), Some("true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_comes_again() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let text =
        format!(r#"{{"task_type":"{task_type}","request":{{"n":1234567890123456789012345,"a":[1,  2]}}}}"#);
    let create = async || keyed(server.post("/tasks").json_text(text.as_str()), "key-1").send().await;
    let first = create().await;
    assert_eq!((first.success().status, first.header(REPLAYED)), (201, None));
    assert_replay(&create().await, &first);
    let path = format!("/tasks/{}", first.raw("id").trim_matches('"'));
    server.put(&path).json(&json!({"name": "changed since", "priority": 1})).send().await.success();
    assert_replay(&create().await, &first);
    assert_eq!(server.delete(&path).send().await.status, 204);
    assert_replay(&create().await, &first);
    assert_eq!(count(&server, &task_type).await, 0, "a replay makes no second task");
    let sibling = server.sibling().await;
    let elsewhere = keyed(sibling.post("/tasks").json_text(text.as_str()), "key-1").send().await;
    assert_replay(&elsewhere, &first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_json_value_is_the_same_body() {
    let server = TestServer::start().await;
    let send = async |body: &str| keyed(server.post("/tasks").json_text(body), "same").send().await;
    let first = send(r#"{"task_type":"same","name":"Aé","request":{"a":1,"b":[true,null]}}"#).await;
    first.success();
    for same in [
        r#"{ "task_type" : "same" , "name":"Aé", "request": { "a" : 1, "b" : [ true , null ] } }"#,
        r#"{"request":{"b":[true,null],"a":1},"name":"Aé","task_type":"same"}"#,
        r#"{"task_type":"same","name":"\u0041\u00e9","request":{"\u0061":1,"b":[true,null]}}"#,
        "\n{\"task_type\":\"same\",\"name\":\"Aé\",\"request\":{\"a\":1,\"b\":[true,null]}}\r\n",
    ] {
        assert_replay(&send(same).await, &first);
    }
    for other in [
        r#"{"task_type":"same","name":"Aé","request":{"a":1,"b":[null,true]}}"#,
        r#"{"task_type":"same","name":"Aé","request":{"a":2,"b":[true,null]}}"#,
        r#"{"task_type":"same","name":"Aé","request":{"a":"1","b":[true,null]}}"#,
        r#"{"task_type":"same","name":"Aé","request":{"a":1,"b":[true,null],"c":1}}"#,
        r#"{"task_type":"same","name":"AÉ","request":{"a":1,"b":[true,null]}}"#,
        r#"{"task_type":"same","name":"Aé"}"#,
        r#"{"task_type":"same","name":"Aé","request":{"a":1,"b":[true,null]},"priority":51}"#,
    ] {
        let problem = send(other).await.problem(422, "idempotency_key_reused");
        assert_eq!(problem["retryable"], false);
    }
    assert_eq!(count(&server, "same").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_beyond_64_bits_tell_bodies_apart() {
    let server = TestServer::start().await;
    let pairs = [
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("9007199254740992", "9007199254740993"),
        ("0.1234567890123456789012345678901", "0.1234567890123456789012345678902"),
        ("1e400", "1e401"),
    ];
    for (n, (one, two)) in pairs.into_iter().enumerate() {
        let send = async |number: &str| {
            let body = format!(r#"{{"task_type":"numbers","request":[{number}]}}"#);
            keyed(server.post("/tasks").json_text(body), &format!("number-{n}")).send().await
        };
        let first = send(one).await;
        first.success();
        assert_replay(&send(one).await, &first);
        send(two).await.problem(422, "idempotency_key_reused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_belong_to_tenant_and_user() {
    let server = TestServer::start().await;
    let body = json!({"task_type": "scoped"});
    let call = || keyed(server.post("/tasks").json(&body), "shared");
    let callers = [
        call(),
        call().tenant("b"),
        call().user("alice"),
        call().user("bob"),
        call().tenant("b").user("alice"),
    ];
    let mut first = Vec::new();
    for caller in callers {
        let answer = caller.send().await;
        assert_eq!((answer.success().status, answer.header(REPLAYED)), (201, None));
        first.push(answer);
    }
    let mut ids: Vec<_> = first.iter().map(|answer| id_of(&answer.ok()).to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), first.len());
    let replays = [
        call(),
        call().tenant("b"),
        call().user("alice"),
        call().user("bob"),
        call().tenant("b").user("alice"),
    ];
    for (replay, first) in replays.into_iter().zip(&first) {
        assert_replay(&replay.send().await, first);
    }
    // To another key of the same tenant it is the same.
    let key = server.issue_key(&["producer"], json!({"tenant_id": "b"})).await;
    assert_replay(&call().key(&key).send().await, &first[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_path_is_another_body() {
    let server = TestServer::start().await;
    let single = json!({"task_type": "paths"});
    let batch = json!({"tasks": [single]});
    let first = keyed(server.post("/tasks").json(&single), "one").send().await;
    first.success();
    let other = keyed(server.post("/tasks/batch").json(&batch), "one").send().await;
    other.problem(422, "idempotency_key_reused");
    let first = keyed(server.post("/tasks/batch").json(&batch), "two").send().await;
    first.success();
    keyed(server.post("/tasks").json(&single), "two").send().await.problem(422, "idempotency_key_reused");
    assert_replay(&keyed(server.post("/tasks/batch").json(&batch), "two").send().await, &first);
    assert_eq!(count(&server, "paths").await, 2);
    let keys =
        keyed(server.post("/keys").json(&json!({"name": "n", "roles": ["viewer"]})), "three").send().await;
    keys.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_created_once() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let tasks =
        json!({"tasks": [{"task_type": task_type}, {"task_type": "bad type"}, {"task_type": task_type}]});
    let create = async || keyed(server.post("/tasks/batch").json(&tasks), "batch").send().await;
    let first = create().await;
    assert_eq!(first.ok()["results"].as_array().unwrap().len(), 3);
    assert_replay(&create().await, &first);
    assert_eq!(count(&server, &task_type).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_not_remembered() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let create = async |body: Value| keyed(server.post("/tasks").json(&body), "later").send().await;
    let wrong = json!({"task_type": task_type, "priority": 101});
    create(wrong.clone()).await.problem(422, "validation_failed");
    create(wrong).await.problem(422, "validation_failed");
    let malformed = keyed(server.post("/tasks").json_text("{"), "later").send().await;
    malformed.problem(400, "malformed_json");
    let right = create(json!({"task_type": task_type})).await;
    assert_eq!((right.success().status, right.header(REPLAYED)), (201, None));
    assert_replay(&create(json!({"task_type": task_type})).await, &right);
    let viewer = server.issue_key(&["viewer"], json!({})).await;
    let refused = keyed(server.post("/tasks").key(&viewer).json(&json!({"task_type": task_type})), "later")
        .send()
        .await;
    refused.problem(403, "forbidden");
    assert_eq!(count(&server, &task_type).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_creates() {
    let server = TestServer::start().await;
    let sibling = server.sibling().await;
    let task_type = unique_type();
    let body = json!({"task_type": task_type});
    for round in 0..5 {
        let key = format!("round-{round}");
        let calls = (0..16).map(|n| {
            let server = if n % 2 == 0 { &server } else { &sibling };
            keyed(server.post("/tasks").json(&body), &key).send()
        });
        let mut ids: Vec<String> = Vec::new();
        for answer in join_all(calls).await {
            if answer.status == 409 {
                let problem = answer.problem(409, "duplicate");
                assert_eq!(answer.header("retry-after"), Some("1"), "{problem:#}");
                assert_eq!(problem["retryable"], true);
            } else {
                assert_eq!(answer.status, 201, "{answer:?}");
                ids.push(id_of(&answer.ok()).to_owned());
            }
        }
        let replay = keyed(server.post("/tasks").json(&body), &key).send().await;
        assert_eq!(replay.header(REPLAYED), Some("true"), "{replay:?}");
        ids.push(id_of(&replay.ok()).to_owned());
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(count(&server, &task_type).await, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_repeat_after_a_day_one_creates_and_the_others_get_its_task() {
    let server = TestServer::start().await;
    let sibling = server.sibling().await;
    let body = json!({"task_type": "t", "request": 1});
    let first = keyed(server.post("/tasks").json(&body), "daily").send().await.ok();
    let mut day_before = id_of(&first).to_owned();
    for _ in 0..10 {
        let yesterday = bson::DateTime::from_chrono(server.now() - TimeDelta::hours(25));
        let tasks = server.database().collection::<Document>("tasks");
        tasks.update_many(doc! {}, doc! { "$set": { "created_at": yesterday } }).await.expect("a write");
        let create = |number: usize| {
            let server = if number.is_multiple_of(2) { &server } else { &sibling };
            keyed(server.post("/tasks").json(&body), "daily").send()
        };
        let answers = join_all((0..6).map(create)).await;
        let created = answers.iter().filter(|answer| answer.header(REPLAYED).is_none());
        assert_eq!(created.count(), 1);
        let ids: BTreeSet<_> = answers.iter().map(|answer| id_of(&answer.ok()).to_owned()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert!(!ids.contains(&day_before));
        day_before = ids.into_iter().next().expect("one");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_first_task_was_refused_takes_no_other_body() {
    let server = TestServer::start().await;
    let task_type = unique_type();
    let too_large = "x".repeat(1 << 20);
    let good = json!({"task_type": task_type, "name": "good"});
    let batch = json!({"tasks": [{"task_type": task_type, "request": too_large}, good, good]});
    let send = async |body: &Value| keyed(server.post("/tasks/batch").json(body), "k").send().await;
    let first = send(&batch).await;
    assert_eq!(first.ok()["results"][0]["problem"]["code"], "payload_too_large");
    assert_eq!(count(&server, &task_type).await, 2);
    assert_replay(&send(&batch).await, &first);
    for other in [json!({"tasks": [good]}), json!({"tasks": [good, good, good]})] {
        let problem = send(&other).await.problem(422, "idempotency_key_reused");
        assert_eq!(problem.get("task_id"), None, "no task has it alone");
    }
    let single = keyed(server.post("/tasks").json(&good), "k").send().await;
    single.problem(422, "idempotency_key_reused");
    assert_eq!(count(&server, &task_type).await, 2, "nothing was created beside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_for_fewer_types_gets_its_part_of_a_batch_again() {
    let server = TestServer::start().await;
    let (a, b) = (unique_type(), unique_type());
    for (n, types) in [[&a, &b], [&b, &a]].into_iter().enumerate() {
        let body = json!({"tasks": [
            {"task_type": types[0], "name": types[0], "request": {"n": 0}},
            {"task_type": types[1], "name": types[1], "request": {"n": 1}},
        ]});
        let create = async |secret: &str| {
            let call = keyed(server.post("/tasks/batch").key(secret).json(&body), &format!("parts-{n}"));
            call.send().await.ok()["results"].clone()
        };
        let both = server.issue_key(&["producer"], json!({"task_types": [a, b]})).await;
        let only_b = server.issue_key(&["producer"], json!({"task_types": [b]})).await;
        let first = create(&both).await;
        let again = create(&only_b).await;
        for (place, name) in types.into_iter().enumerate() {
            assert_eq!(first[place]["task"]["task_type"], name.as_str(), "{first:#}");
            if *name == b {
                assert_eq!(again[place], first[place]);
            } else {
                assert_problem(&again[place]["problem"], 403, "forbidden");
            }
        }
        assert_eq!((count(&server, &a).await, count(&server, &b).await), (n + 1, n + 1));
    }
}

/// The limits that an answer shows.
fn limits(task: &Value) -> [Value; 5] {
    ["max_attempts", "retry", "lease_seconds", "timeout_seconds", "retention_seconds"]
        .map(|it| task[it].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_shows_the_limits_of_the_first_answer_whatever_holds_by_then() {
    let server = TestServer::start().await;
    // It has other defaults, as a later release or another setting may.
    let other = server.sibling_with(|settings| settings.tasks.task_retention_seconds = 7_000).await;
    for body in [
        json!({"task_type": "plain"}),
        json!({"task_type": "explicit", "max_attempts": 3, "lease_seconds": 60, "timeout_seconds": 300,
            "retention_seconds": 604_800, "retry": {"backoff": "exponential", "base_seconds": 5}}),
        json!({"task_type": "own", "max_attempts": 7, "lease_seconds": 61, "retention_seconds": null,
            "retry": {"backoff": "fixed"}}),
    ] {
        let key = unique_type();
        let call =
            |server: &TestServer| server.post("/tasks").header("Idempotency-Key", &key).json(&body).send();
        let first = call(&server).await.ok();
        // What has changed since is no part of the first answer.
        let edit = json!({"max_attempts": 9, "lease_seconds": 9, "timeout_seconds": 9, "retention_seconds": 9,
            "retry": {"backoff": "linear"}});
        server.put(&format!("/tasks/{}", first["id"].as_str().unwrap())).json(&edit).send().await.ok();
        assert_eq!(call(&other).await.ok(), first, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_of_a_task_are_those_of_its_creation_for_good() {
    let server = TestServer::start().await;
    let other = server.sibling_with(|settings| settings.tasks.task_retention_seconds = 7_000).await;
    let at = async |server: &TestServer, body: Value| server.create(body).await;
    let (here, there) = (at(&server, json!({})).await, at(&other, json!({})).await);
    assert_eq!(limits(&here)[..4], limits(&there)[..4]);
    assert_eq!((&here["retention_seconds"], &there["retention_seconds"]), (&json!(604_800), &json!(7_000)));
    let usual = json!({"backoff": "exponential", "base_seconds": 5, "cap_seconds": 3600, "jitter": 0.2});
    assert_eq!(limits(&here), [json!(3), usual, json!(60), json!(300), json!(604_800)]);
    for task in [&here, &there] {
        let path = format!("/tasks/{}", task["id"].as_str().unwrap());
        for server in [&server, &other] {
            assert_eq!(limits(&server.get(&path).send().await.ok()), limits(task), "whoever is asked");
        }
    }
    // One that says itself what is usual elsewhere keeps to it.
    let explicit = at(&other, json!({"retention_seconds": 604_800})).await;
    assert_eq!(explicit["retention_seconds"], 604_800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_deleted_task_answers_as_the_first_time_and_another_key_makes_another_task() {
    let server = TestServer::start().await;
    let body = json!({"task_type": "t", "request": [1]});
    let create = |key: &'static str| server.post("/tasks").header("Idempotency-Key", key).json(&body).send();
    let first = create("one").await;
    let path = format!("/tasks/{}", id_of(&first.ok()));
    assert_eq!(server.delete(&path).send().await.status, 204);
    let again = create("one").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(again.ok(), first.ok());
    server.get(&path).send().await.problem(404, "task_not_found");
    let other = create("two").await;
    assert_eq!((other.status, other.header("idempotent-replayed")), (201, None));
    server.get(&format!("/tasks/{}", id_of(&other.ok()))).send().await.ok();
}
