//! Tokens that open one stream without a key, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};
use task_repo_tests::{EventStream, HttpAnswer, TestServer, id_of, unique_type};

async fn token(server: &TestServer, path: &str, body: Value) -> Value {
    let answer = server.post(path).json(&body).send().await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

fn url(token: &Value) -> String {
    let url = token["stream_url"].as_str().expect("a URL");
    url.strip_prefix("/api/v1").expect("below the base").to_owned()
}

async fn open(server: &TestServer, url: &str) -> EventStream {
    let stream = server.get(url).no_key().open().await;
    assert_eq!(stream.status(), 200, "{url}");
    stream
}

async fn refused(server: &TestServer, url: &str) {
    server.get(url).no_key().send().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_its_stream_at_every_server_and_no_other() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}", id_of(&task));
    let made = server.post(&format!("{path}/stream-token")).send().await;
    assert_eq!(made.status, 201, "the body may be left out: {made:?}");
    let made = made.json();
    assert_eq!(made.as_object().expect("an object").len(), 2, "{made}");
    let url = url(&made);
    assert!(url.starts_with(&format!("{path}/stream?token=")), "{url}");
    for server in [&server, &other] {
        assert_eq!(open(server, &url).await.next().await.expect("a snapshot").kind(), "task_snapshot");
        // For as long as it is good, as often as a browser comes again.
        let mut again = open(server, &format!("{url}&last_event_id=0")).await;
        let waits = tokio::time::timeout(Duration::from_millis(200), again.next()).await;
        assert!(waits.is_err(), "{waits:?}");
    }
    let text = url.split_once("token=").expect("a token").1.to_owned();
    let foreign = server.create(json!({})).await;
    let (claims, signature) = text.split_once('.').expect("two parts");
    for wrong in [
        format!("/tasks/{}/stream?token={text}", id_of(&foreign)),
        format!("/stream?token={text}"),
        format!("{path}?token={text}"),
        format!("{path}/status?token={text}"),
        format!("{path}/stream?token={claims}"),
        format!("{path}/stream?token={claims}."),
        format!("{path}/stream?token=.{signature}"),
        format!("{path}/stream?token={claims}A.{signature}"),
        format!("{path}/stream?token={claims}.A{}", &signature[1..]),
        format!("{path}/stream?token=x"),
        format!("{path}/stream?token="),
        format!("{path}/stream"),
    ] {
        refused(&server, &wrong).await;
    }
    server.post(&format!("{path}/cancel?token={text}")).no_key().send().await.problem(401, "unauthenticated");
    // Beside a credential it is ignored.
    let both = server.get(&format!("{path}/stream?token=x")).open().await;
    assert_eq!(both.status(), 200);
    server.get(&url).key("wrong").send().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_as_long_as_it_says() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}/stream-token", id_of(&task));
    let before = server.now();
    let usual = token(&server, &path, json!({})).await;
    let expires = |token: &Value| -> chrono::DateTime<chrono::Utc> {
        token["expires_at"].as_str().and_then(|text| text.parse().ok()).expect("a time")
    };
    let lasts = (expires(&usual) - before).num_seconds();
    assert!((599..=620).contains(&lasts), "{lasts}");
    let short = token(&server, &path, json!({"expires_in_seconds": 1})).await;
    let mut opened = open(&server, &url(&short)).await;
    server.let_pass_until(expires(&short)).await;
    server.let_pass(Duration::from_millis(10)).await;
    refused(&server, &url(&short)).await;
    opened.next().await.expect("a snapshot");
    server.delete(&format!("/tasks/{}", id_of(&task))).send().await.success();
    assert!(opened.next().await.is_some(), "what was opened stays open");
    let missing: HttpAnswer = server.post(&path).send().await;
    missing.problem(404, "task_not_found");
    let other = server.create(json!({})).await;
    let path = format!("/tasks/{}/stream-token", id_of(&other));
    for wrong in
        [json!({"expires_in_seconds": 0}), json!({"expires_in_seconds": 3601}), json!({"user_id": ["u"]})]
    {
        server.post(&path).json(&wrong).send().await.problem(422, "validation_failed");
    }
    server.post(&path).header("idempotency-key", "k").send().await.problem(400, "invalid_parameter");
    server
        .post("/stream-token")
        .header("idempotency-key", "k")
        .send()
        .await
        .problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_dies_with_its_key_and_survives_restarts() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}/stream-token", id_of(&task));
    let issued = server.issue(&["viewer"], json!({})).await;
    let made = server.post(&path).key(issued["key"].as_str().expect("a secret")).send().await.ok();
    let lasting = url(&token(&server, &path, json!({})).await);
    let mut opened = open(&other, &url(&made)).await;
    opened.next().await.expect("a snapshot");
    // A new secret is no new key.
    let rotate = format!("/keys/{}/rotate", id_of(&issued));
    server.post(&rotate).json(&json!({"overlap_seconds": 3600})).send().await.success();
    open(&other, &url(&made)).await.next().await.expect("a snapshot");
    server.delete(&format!("/keys/{}", id_of(&issued))).send().await.success();
    let end = tokio::time::timeout(Duration::from_secs(10), opened.next()).await.expect("it ends soon");
    assert!(end.is_none());
    refused(&server, &url(&made)).await;
    refused(&other, &url(&made)).await;
    drop(other);
    let server = server.restart_after(async {}).await;
    open(&server, &lasting).await.next().await.expect("a snapshot");
    // Another bootstrap key.
    let changed = server.sibling_with(|settings| settings.http.api_key = "another_key".into()).await;
    refused(&changed, &lasting).await;
    let both = server
        .sibling_with(|settings| {
            settings.http.api_key = "another_key".into();
            settings.http.api_key_previous = "test_api_key".into();
        })
        .await;
    open(&both, &lasting).await.next().await.expect("a snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_tenant_stream_has_exactly_its_filters_and_its_user() {
    let server = TestServer::start().await;
    let [mail, sms] = [unique_type(), unique_type()];
    let body_for = json!({"task_type": [mail, sms]});
    server
        .post("/stream-token")
        .json(&json!({"task_type": vec!["a"; 33]}))
        .send()
        .await
        .problem(422, "validation_failed");
    server
        .post("/stream-token")
        .json(&json!({"task_type": ["a b"]}))
        .send()
        .await
        .problem(422, "validation_failed");
    let bad_user = json!({"user_id": ["a\u{e9}"]});
    server.post("/stream-token").json(&bad_user).send().await.problem(422, "validation_failed");
    let body = json!({"task_type": body_for["task_type"], "user_id": ["anna"], "expires_in_seconds": 60});
    let made = url(&token(&server, "/stream-token", body).await);
    let mut stream = open(&server, &made).await;
    server.create(json!({"task_type": "other", "user_id": "anna"})).await;
    server.create(json!({"task_type": mail, "user_id": "bert"})).await;
    let seen = server.create(json!({"task_type": sms, "user_id": "anna"})).await;
    assert_eq!(stream.next().await.expect("a message").json()["task_id"], seen["id"]);
    let text = made.split_once("token=").expect("a token").1;
    refused(&server, &format!("/stream?token={text}")).await;
    refused(&server, &format!("/stream?task_type={mail}&user_id=anna&token={text}")).await;
    refused(&server, &format!("{made}&task_type=more")).await;
    let made = server.post("/stream-token").user("anna").send().await.ok();
    let mut stream = open(&server, &url(&made)).await;
    server.create(json!({"user_id": "bert"})).await;
    let seen = server.create(json!({"user_id": "anna"})).await;
    assert_eq!(stream.next().await.expect("a message").json()["task_id"], seen["id"]);
    let of_tenant = server.post("/stream-token").tenant("t2").send().await.ok();
    let mut stream = open(&server, &url(&of_tenant)).await;
    server.create(json!({})).await;
    let seen = server.post("/tasks").tenant("t2").json(&json!({"task_type": mail})).send().await.ok();
    assert_eq!(stream.next().await.expect("a message").json()["task_id"], seen["id"]);
}
