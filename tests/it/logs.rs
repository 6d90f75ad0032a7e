//! `POST` and `GET /tasks/{id}/logs`: what workers log about their tasks.

use std::time::Duration;

use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually};

use crate::verbs::{claim_one, id, pass_until_status, settle, token};

async fn log(server: &TestServer, held: &Value, lines: Value) -> task_repo_tests::HttpAnswer {
    let body = json!({"lease_token": token(held), "lines": lines});
    server.post(&format!("/tasks/{}/logs", id(held))).json(&body).send().await
}

async fn page(server: &TestServer, task: &Value, parameters: &[(&str, &str)]) -> Value {
    server.get(&format!("/tasks/{}/logs", id(task))).query(parameters).send().await.ok()
}

fn messages(page: &Value) -> Vec<&str> {
    page["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["message"].as_str().expect("text"))
        .collect()
}

/// All lines of a task, page by page.
async fn all(server: &TestServer, task: &Value, limit: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut parameters = vec![("limit", limit)];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = page(server, task, &parameters).await;
        all.extend(messages(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return all,
        }
    }
}

fn numbered(range: std::ops::Range<usize>) -> Value {
    range.map(|n| json!({"message": format!("{n}")})).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_back_as_they_were_sent_in_the_order_of_arrival() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    assert_eq!(page(&server, &task, &[]).await, json!({"lines": [], "next_cursor": null}));
    let held = claim_one(&server, &task, json!({})).await;
    let first = json!([{"message": "später", "level": "warn", "at": "2030-01-01T00:00:00Z"}, {"message": "  ", "level": null, "at": null}]);
    assert_eq!(log(&server, &held, first).await.status, 204);
    let other = server.sibling().await;
    assert_eq!(
        log(&other, &held, json!([{"message": "früher", "at": "2001-01-01T00:00:00+01:00"}])).await.status,
        204
    );
    let page = page(&server, &task, &[]).await;
    assert_eq!(messages(&page), ["später", "  ", "früher"]);
    let line = |n: usize| &page["lines"][n];
    assert_eq!(
        (&line(0)["level"], &line(0)["at"], &line(0)["attempt"]),
        (&json!("warn"), &json!("2030-01-01T00:00:00.000Z"), &json!(1))
    );
    assert_eq!((&line(1)["level"], &line(2)["at"]), (&json!("info"), &json!("2000-12-31T23:00:00.000Z")));
    let seqs: Vec<_> = (0..3).map(|n| line(n)["seq"].as_u64().expect("a number")).collect();
    assert!(seqs[0] < seqs[1] && seqs[1] < seqs[2], "{seqs:?}");
    assert!(seqs[2] < 1 << 53);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_attempts_and_what_comes_after_a_line() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let first = claim_one(&server, &task, json!({})).await;
    for n in 0..5 {
        log(&server, &first, numbered(10 * n..10 * n + 10)).await.success();
    }
    settle(&server, &first, "fail", json!({"retry_after_seconds": 0})).await.ok();
    pass_until_status(&server, &task, "pending").await;
    let second = claim_one(&server, &task, json!({})).await;
    log(&server, &second, numbered(50..60)).await.success();
    let expected: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    for limit in ["1", "7", "100"] {
        assert_eq!(all(&server, &task, limit).await, expected, "{limit}");
    }
    let middle = page(&server, &task, &[("limit", "25")]).await["lines"][24]["seq"].to_string();
    let rest = page(&server, &task, &[("after", &middle), ("limit", "100")]).await;
    assert_eq!(messages(&rest), expected[25..]);
    let of_second = page(&server, &task, &[("attempt", "2"), ("limit", "100")]).await;
    assert_eq!(messages(&of_second), expected[50..]);
    let cursor = page(&server, &task, &[]).await["next_cursor"].as_str().expect("more").to_owned();
    let get = |parameters: Vec<(&'static str, String)>| {
        let call = server.get(&format!("/tasks/{}/logs", id(&task)));
        async move {
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            call.query(&parameters).send().await
        }
    };
    for wrong in [
        vec![("cursor", cursor), ("attempt", "1".to_owned())],
        vec![("cursor", "x".to_owned())],
        vec![("limit", "0".to_owned())],
        vec![("limit", "101".to_owned())],
        vec![("attempt", "0".to_owned())],
        vec![("after", "-1".to_owned())],
        vec![("level", "warn".to_owned())],
    ] {
        get(wrong).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_lines_are_kept() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    for n in 0..13 {
        log(&server, &held, numbered(95 * n..95 * n + 95)).await.success();
    }
    let expected: Vec<_> = (13 * 95 - 1000..13 * 95).map(|n| n.to_string()).collect();
    assert_eq!(all(&server, &task, "100").await, expected);
    let long = "é".repeat(8192);
    for _ in 0..80 {
        log(&server, &held, json!([{"message": long}])).await.success();
    }
    // 64 lines of 16 KiB are a mebibyte.
    assert_eq!(all(&server, &task, "100").await, vec![long; 64]);
    let stored = server.database().collection::<bson::Document>("tasks_logs");
    let documents = stored.count_documents(bson::doc! {}).await.expect("a count");
    assert!(documents < 90, "what is too old is removed: {documents}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_an_ended_attempt_is_good_for_a_minute() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "complete", json!({})).await.ok();
    log(&server, &held, json!([{"message": "late"}])).await.success();
    server.jump(Duration::from_secs(61));
    let lost = log(&server, &held, json!([{"message": "too late"}])).await.problem(409, "lease_lost");
    assert_eq!(lost["ended"]["status"], "completed");
    let stranger = json!({"lease_token": "x", "lines": [{"message": "m"}]});
    server
        .post(&format!("/tasks/{}/logs", id(&task)))
        .json(&stranger)
        .send()
        .await
        .problem(409, "lease_lost");
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    pass_until_status(&server, &task, "pending").await;
    let next = claim_one(&server, &task, json!({})).await;
    log(&server, &next, json!([{"message": "of the second"}])).await.success();
    log(&server, &held, json!([{"message": "of the first"}])).await.success();
    let page = page(&server, &task, &[]).await;
    let attempts: Vec<_> =
        page["lines"].as_array().unwrap().iter().map(|line| line["attempt"].clone()).collect();
    assert_eq!(attempts, [2, 1], "each under its own attempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_line_refuses_the_call() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let good = json!({"message": "good"});
    for (bad, loc) in [
        (json!({"message": ""}), json!(["body", "lines", 1, "message"])),
        (json!({"message": "x".repeat(8193)}), json!(["body", "lines", 1, "message"])),
        (json!({"message": 7}), json!(["body", "lines", 1, "message"])),
        (json!({"message": "m", "level": "fatal"}), json!(["body", "lines", 1, "level"])),
        (json!({"message": "m", "at": "now"}), json!(["body", "lines", 1, "at"])),
        (json!({"message": "m", "more": 1}), json!(["body", "lines", 1, "more"])),
        (json!({}), json!(["body", "lines", 1, "message"])),
    ] {
        let problem = log(&server, &held, json!([good, bad])).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], loc, "{problem}");
    }
    for lines in [json!([]), numbered(0..101), Value::Null] {
        log(&server, &held, lines).await.problem(422, "validation_failed");
    }
    log(&server, &held, json!([{"message": "x".repeat(8192)}])).await.success();
    log(&server, &held, numbered(0..100)).await.success();
    assert_eq!(all(&server, &task, "100").await.len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_belong_to_their_task_and_go_with_it() {
    let server = TestServer::start().await;
    let task = server.create(json!({"retention_seconds": 60, "user_id": "u"})).await;
    let held = claim_one(&server, &task, json!({})).await;
    log(&server, &held, numbered(0..3)).await.success();
    let path = format!("/tasks/{}/logs", id(&task));
    server.get(&path).user("other").send().await.problem(404, "task_not_found");
    server.get(&path).tenant("elsewhere").send().await.problem(404, "task_not_found");
    server.get(&path).user("u").send().await.ok();
    settle(&server, &held, "complete", json!({})).await.ok();
    server.let_pass(Duration::from_secs(70)).await;
    let logs = server.database().collection::<bson::Document>("tasks_logs");
    eventually("the lines are gone", async || {
        logs.count_documents(bson::doc! {}).await.expect("a count") == 0
    })
    .await;
    server.get(&path).send().await.problem(404, "task_not_found");
}
