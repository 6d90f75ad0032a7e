//! `GET /failures`: which attempts failed, timed out or were lost, by type, code and reason, told by the feed's roll-ups.

use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, in_seconds};

use crate::verbs::{claim, claim_one, create_many, id, pass_until_status, settle, tasks};

async fn failures(server: &TestServer, parameters: &[(&str, &str)]) -> Vec<Value> {
    let answer = server.get("/failures").query(parameters).send().await.ok();
    answer["failures"].as_array().expect("failures").clone()
}

/// The rows once there are so many failures in all.
async fn of_count(server: &TestServer, count: u64) -> Vec<Value> {
    let mut found = Vec::new();
    eventually("the failures are counted", async || {
        found = failures(server, &[("limit", "100")]).await;
        found.iter().map(|row| row["count"].as_u64().expect("a count")).sum::<u64>() == count
    })
    .await;
    found
}

/// Lets `count` tasks of a type fail for good, with that error.
async fn fail_many(
    server: &TestServer,
    task_type: &str,
    count: usize,
    error: impl Fn(usize) -> Value,
) -> Vec<Value> {
    create_many(server, count, |_| json!({"task_type": task_type})).await;
    let held = claim(server, task_type, json!({"limit": count})).await;
    let outcome = |(n, task): (usize, &Value)| json!({"id": id(task), "lease_token": task["lease"]["token"], "outcome": "failed", "retry": "never", "error": error(n)});
    let outcomes: Vec<_> = tasks(&held).iter().enumerate().map(outcome).collect();
    server.post("/tasks/outcomes").json(&json!({"outcomes": outcomes})).send().await.ok();
    tasks(&held).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_grouped_the_most_frequent_first() {
    let server = TestServer::start().await;
    fail_many(&server, "mail", 2, |_| json!({"message": "no such host", "code": "dns"})).await;
    let many = fail_many(&server, "mail", 5, |_| json!({"message": "full", "code": "quota"})).await;
    fail_many(&server, "video", 1, |_| json!({"message": "no code"})).await;
    let task = server.create(json!({"task_type": "video"})).await;
    let held = claim_one(&server, &task, json!({})).await;
    settle(&server, &held, "fail", json!({})).await.ok();
    let rows = of_count(&server, 9).await;
    let short = |row: &Value| {
        format!("{} {} {} {}", row["task_type"], row["error_code"], row["reason"], row["count"])
    };
    assert_eq!(
        rows.iter().map(short).collect::<Vec<_>>(),
        [
            r#""mail" "quota" "error" 5"#,
            r#""mail" "dns" "error" 2"#,
            r#""video" null "error" 1"#,
            r#""video" null "retry" 1"#,
        ]
    );
    assert_eq!((&rows[0]["message"], &rows[3]["message"]), (&json!("full"), &json!("it broke")));
    let sample = rows[0]["sample"].as_array().expect("a sample");
    assert_eq!(sample.len(), 3);
    assert!(sample.iter().all(|task| many.iter().any(|it| it["id"] == *task)));
    assert!(rows[0]["first_at"].as_str() <= rows[0]["last_at"].as_str());
    assert_eq!(failures(&server, &[("task_type", "video")]).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_each_other_and_belong_to_their_list() {
    let server = TestServer::start().await;
    fail_many(&server, "t", 5, |n| json!({"message": "m", "code": format!("c{n}")})).await;
    of_count(&server, 5).await;
    let first = server.get("/failures").query(&[("limit", "3")]).send().await.ok();
    let cursor = first["next_cursor"].as_str().expect("more");
    let second = server.get("/failures").query(&[("cursor", cursor), ("limit", "3")]).send().await.ok();
    assert_eq!(second["next_cursor"], Value::Null);
    let codes = |page: &Value| {
        page["failures"].as_array().unwrap().iter().map(|row| row["error_code"].clone()).collect::<Vec<_>>()
    };
    assert_eq!([codes(&first), codes(&second)].concat(), ["c0", "c1", "c2", "c3", "c4"]);
    let foreign = server.get("/failures").query(&[("cursor", cursor), ("task_type", "t")]).send().await;
    foreign.problem(400, "invalid_parameter");
    server.get("/failures").query(&[("cursor", "x")]).send().await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_one_until_it_is_completed_late() {
    let server = TestServer::start().await;
    let new = || server.create(json!({"task_type": "t"}));
    let [late, lost] = [new().await, new().await];
    let held = claim_one(&server, &late, json!({"lease_seconds": 1})).await;
    claim_one(&server, &lost, json!({"lease_seconds": 1})).await;
    for task in [&late, &lost] {
        pass_until_status(&server, task, "pending").await;
    }
    let rows = of_count(&server, 2).await;
    assert_eq!((rows.len(), &rows[0]["error_code"], &rows[0]["reason"]), (1, &json!("lost"), &Value::Null));
    settle(&server, &held, "complete", json!({})).await.ok();
    of_count(&server, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_a_hundred_codes_of_an_hour_the_rest_is_other() {
    let server = TestServer::start().await;
    fail_many(&server, "t", 130, |n| json!({"message": "m", "code": format!("c{n:03}")})).await;
    let most = async || failures(&server, &[("limit", "1")]).await;
    eventually("the rest is counted", async || most().await.iter().any(|row| row["count"] == 30)).await;
    assert_eq!(most().await[0]["error_code"], "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_caller_may_see_is_told() {
    let server = TestServer::start().await;
    fail_many(&server, "mine", 1, |_| json!({"message": "m"})).await;
    fail_many(&server, "other", 1, |_| json!({"message": "m"})).await;
    of_count(&server, 2).await;
    let limited = server.issue_key(&["viewer"], json!({"task_types": ["mine"]})).await;
    let seen = server.get("/failures").key(&limited).send().await.ok();
    assert_eq!(seen["failures"].as_array().unwrap().len(), 1);
    let asked = server.get("/failures").query(&[("task_type", "other")]).key(&limited).send().await.ok();
    assert_eq!(asked["failures"], json!([]));
    let foreign = server.get("/failures").tenant("elsewhere").send().await.ok();
    assert_eq!(foreign["failures"], json!([]));
    server.get("/failures").user("u").send().await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_is_a_month_ago_at_most() {
    let server = TestServer::start().await;
    let ago = |days: i64| in_seconds(-days * 86_400);
    assert_eq!(failures(&server, &[("since", &ago(30))]).await, Vec::<Value>::new());
    for (name, value) in
        [("since", &*ago(32)), ("since", "yesterday"), ("limit", "101"), ("task_type", "a b"), ("what", "1")]
    {
        server.get("/failures").query(&[(name, value)]).send().await.problem(400, "invalid_parameter");
    }
}
