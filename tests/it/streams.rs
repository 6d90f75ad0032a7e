//! Watching a task: what happens to it, as it happens, from any server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use task_repo_tests::{EventStream, StreamEvent, TestServer, id_of, unique_type};

/// The stream of that task.
pub(crate) async fn watch(server: &TestServer, id: &str) -> EventStream {
    let stream = server.get(&format!("/tasks/{id}/stream")).open().await;
    assert_eq!(stream.status(), 200);
    stream
}

/// Type, seq and data of a message.
fn shown(event: &StreamEvent) -> (String, u64, Value) {
    let json = event.json();
    (event.kind(), event.seq(), json["data"].clone())
}

async fn next(stream: &mut EventStream) -> (String, u64, Value) {
    shown(&stream.next().await.expect("a message"))
}

async fn post(server: &TestServer, path: &str, body: Value) -> Value {
    server.post(path).json(&body).send().await.ok()
}

/// Claims the task; returns its lease token.
pub(crate) async fn claim(server: &TestServer, id: &str) -> String {
    let claimed = post(server, &format!("/tasks/{id}/claim"), json!({"worker_id": "w"})).await;
    claimed["lease"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_told_in_order() {
    let server = TestServer::start().await;
    let retry = json!({"backoff": "fixed", "base_seconds": 1, "jitter": 0});
    let new = json!({"task_type": unique_type(), "retry": retry, "max_attempts": 5});
    let task = server.post("/tasks").json(&new).send().await.ok();
    let (id, task_type) = (id_of(&task), task["task_type"].clone());
    assert_eq!(task["stream_url"], format!("/api/v1/tasks/{id}/stream"));
    assert_eq!(server.task(id).await.get("stream_url"), None, "it stands in the answer to a create only");
    let mut stream = watch(&server, id).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("cache-control"), Some("no-store"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    let first = stream.next().await.expect("a snapshot");
    assert!(stream.retry_ms.is_some_and(|pause| (500..=2000).contains(&pause)));
    assert_eq!(first.id.as_deref(), Some("1"));
    let snapshot = first.json();
    assert_eq!((&snapshot["event_type"], &snapshot["task_id"]), (&json!("task_snapshot"), &json!(id)));
    assert_eq!((&snapshot["task_type"], &snapshot["timestamp"]), (&task_type, &task["updated_at"]));
    let mut status = server.get(&format!("/tasks/{id}/status")).send().await.ok();
    status["cancel_requested_at"] = Value::Null;
    assert_eq!(snapshot["data"], status);

    let one = format!("/tasks/{id}");
    server.put(&one).json(&json!({"name": "n"})).send().await.ok();
    assert_eq!(next(&mut stream).await, ("task_updated".to_owned(), 2, json!({})));
    let token = claim(&server, id).await;
    let started = ("task_started".to_owned(), 3, json!({"attempt": 1, "worker_id": "w"}));
    assert_eq!(next(&mut stream).await, started);
    let beat = json!({"lease_token": token, "progress": {"value": 0.7, "text": "Processed batch 2/5"}});
    post(&server, &format!("{one}/heartbeat"), beat).await;
    let progress = json!({"text": "Processed batch 2/5", "value": 0.7});
    assert_eq!(next(&mut stream).await, ("progress_update".to_owned(), 4, progress));
    let error = json!({"message": "it broke", "code": "broken"});
    let fail = json!({"lease_token": token, "error": error});
    let receipt = post(&server, &format!("{one}/fail"), fail).await;
    let data = json!({"attempt": 1, "error": error, "run_at": receipt["run_at"]});
    assert_eq!(next(&mut stream).await, ("task_retrying".to_owned(), 5, data));
    server.let_pass(Duration::from_millis(1500)).await;
    assert_eq!(next(&mut stream).await, ("task_updated".to_owned(), 6, json!({})), "the promotion");
    let token = claim(&server, id).await;
    assert_eq!(next(&mut stream).await.1, 7);
    post(&server, &format!("{one}/release"), json!({"lease_token": token})).await;
    assert_eq!(next(&mut stream).await, ("task_released".to_owned(), 8, json!({"attempt": 2})));
    let token = claim(&server, id).await;
    assert_eq!(
        next(&mut stream).await,
        ("task_started".to_owned(), 9, json!({"attempt": 2, "worker_id": "w"}))
    );
    post(&server, &format!("{one}/cancel"), json!({})).await;
    assert_eq!(next(&mut stream).await, ("task_cancel_requested".to_owned(), 10, json!({})));
    // Spelled as no JSON library would spell it.
    let body = format!(
        "{{\"lease_token\":\"{token}\",\"result\":{{\"b\" : 1e400,\r\n \"a\":12345678901234567890123}}}}"
    );
    server.post(&format!("{one}/complete")).json_text(body).send().await.success();
    let last = stream.next().await.expect("the end");
    assert_eq!((last.kind(), last.seq()), ("task_completed".to_owned(), 11));
    assert!(
        last.text.ends_with("\"data\":{\"b\" : 1e400,   \"a\":12345678901234567890123}}"),
        "{}",
        last.text
    );
    assert!(stream.next().await.is_none(), "the server closes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_closes_the_stream_and_a_final_task_tells_its_end_at_once() {
    let server = TestServer::start().await;
    let error = json!({"message": "broken", "code": null});
    for (status, kind, data) in [
        ("completed", "task_completed", Value::Null),
        ("failed", "task_failed", json!({"attempt": 1, "reason": "error", "error": error})),
        ("cancelled", "task_cancelled", json!({})),
    ] {
        let task = server.create_in(status, json!({})).await;
        let mut stream = watch(&server, id_of(&task)).await;
        let snapshot = stream.next().await.expect("a snapshot");
        assert_eq!((snapshot.id.as_deref(), snapshot.kind().as_str()), (None, "task_snapshot"));
        let end = stream.next().await.expect("the end");
        assert_eq!(shown(&end), (kind.to_owned(), task["version"].as_u64().expect("a version"), data));
        assert_eq!(end.id, Some(task["version"].to_string()));
        assert!(stream.next().await.is_none());
    }
    let task = server.create(json!({})).await;
    let mut stream = watch(&server, id_of(&task)).await;
    stream.next().await.expect("a snapshot");
    server.delete(&format!("/tasks/{}", id_of(&task))).send().await.success();
    assert_eq!(next(&mut stream).await, ("task_deleted".to_owned(), 2, json!({})));
    assert!(stream.next().await.is_none());
    server.get(&format!("/tasks/{}/stream", id_of(&task))).send().await.problem(404, "task_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_comes_at_most_each_quarter_of_a_second_and_the_last_before_the_end() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let id = id_of(&task);
    let token = claim(&server, id).await;
    let mut stream = watch(&server, id).await;
    let work = async {
        for step in 1..=40 {
            let beat = json!({"lease_token": token, "progress": {"value": f64::from(step) / 40.0}});
            post(&server, &format!("/tasks/{id}/heartbeat"), beat).await;
            tokio::time::sleep(Duration::from_millis(20)).await; // tidy: sleep — progress that comes in time
        }
        post(&server, &format!("/tasks/{id}/complete"), json!({"lease_token": token})).await;
    };
    let read = async {
        let (mut values, mut times, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = stream.next().await {
            seqs.push(event.seq());
            if event.kind() == "progress_update" {
                values.push(event.json()["data"]["value"].as_f64().expect("a value"));
                times.push(Instant::now());
            } else {
                assert_eq!(event.kind(), if seqs.len() == 1 { "task_snapshot" } else { "task_completed" });
            }
        }
        (values, times, seqs)
    };
    let ((values, times, seqs), ()) = tokio::join!(read, work);
    assert_eq!(values.last(), Some(&1.0), "the last value arrives, before the end");
    assert!(values.is_sorted() && seqs.is_sorted_by(|a, b| a < b), "{values:?} {seqs:?}");
    // The last one does not wait for its time where the end comes first.
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    let pauses: Vec<_> = pauses.take(times.len().saturating_sub(2)).collect();
    assert!(
        !pauses.is_empty() && pauses.iter().all(|pause| *pause >= Duration::from_millis(200)),
        "{pauses:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_does_is_told_too_and_results_are_byte_exact() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    for turn in 0..2 {
        let task = server.create(json!({})).await;
        let id = id_of(&task);
        let (mut here, mut there) = (watch(&server, id).await, watch(&other, id).await);
        let token = claim(&other, id).await;
        // The second time the next change comes here before the event log has told of the claim.
        if turn == 0 {
            here.next().await.expect("a snapshot");
            assert_eq!(next(&mut here).await.0, "task_started");
        }
        let beat = json!({"lease_token": token, "progress": {"text": "half"}});
        post(&other, &format!("/tasks/{id}/heartbeat"), beat).await;
        let last = if turn == 0 { &other } else { &server };
        let body = format!("{{\"lease_token\":\"{token}\",\"result\":[ 1.10, \"ü\\u00fc\" ]}}");
        last.post(&format!("/tasks/{id}/complete")).json_text(body).send().await.success();
        for stream in [&mut here, &mut there] {
            let rest = stream.rest().await;
            let kinds: Vec<_> =
                rest.iter().map(StreamEvent::kind).filter(|kind| kind != "task_snapshot").collect();
            let expected = ["task_started", "progress_update", "task_completed"];
            assert_eq!(kinds, expected[expected.len() - kinds.len()..], "{turn}");
            assert!(kinds.len() >= 2, "the progress arrives before the end: {kinds:?}");
            let end = rest.last().expect("the end");
            assert!(end.text.ends_with("\"data\":[ 1.10, \"ü\\u00fc\" ]}"), "{}", end.text);
            assert!(rest.is_sorted_by(|a, b| a.seq() < b.seq()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_by_another_server_is_told_before_the_claim_that_follows() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    for round in 0..3 {
        let task = server.create(json!({"delay_seconds": 3600})).await;
        let id = id_of(&task);
        let mut stream = watch(&server, id).await;
        stream.next().await.expect("a snapshot");
        post(&other, &format!("/tasks/{id}/execute"), json!({})).await;
        claim(&server, id).await;
        assert_eq!(next(&mut stream).await, ("task_updated".to_owned(), 2, json!({})), "{round}");
        assert_eq!(next(&mut stream).await.0, "task_started");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watch_one_task_for_one_read() {
    let server = TestServer::start().await;
    let task = server.create(json!({"task_type": unique_type()})).await;
    let id = id_of(&task);
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(watch(&server, id).await);
    }
    post(&server, &format!("/tasks/{id}/cancel"), json!({})).await;
    for stream in &mut streams {
        let kinds: Vec<_> = stream.rest().await.iter().map(StreamEvent::kind).collect();
        assert_eq!(kinds, ["task_snapshot", "task_cancelled"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limits_are_refused() {
    let server = TestServer::start_with(|settings| {
        settings.http.streams_max = 3;
        settings.http.streams_max_per_tenant = 2;
    })
    .await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}/stream", id_of(&task));
    let first = server.get(&path).open().await;
    let _second = server.get(&path).open().await;
    let problem = server.get(&path).send().await.problem(429, "limit_exceeded");
    assert_eq!((&problem["limit_type"], &problem["limit"]), (&json!("streams"), &json!(2)));
    assert_eq!(problem["current"], 2);
    let foreign = server.post("/tasks").tenant("t2").json(&json!({"task_type": "x"})).send().await.ok();
    let foreign = format!("/tasks/{}/stream", id_of(&foreign));
    let _third = server.get(&foreign).tenant("t2").open().await;
    server.get(&foreign).tenant("t2").send().await.problem(503, "overloaded");
    drop(first);
    task_repo_tests::eventually("there is room again", async || {
        let stream = server.get(&path).open().await;
        stream.status() == 200
    })
    .await;
    task_repo_tests::eventually("HEAD is answered like GET", async || {
        let head = server.request("HEAD", &path).send().await;
        (head.status, head.header("content-type")) == (200, Some("text/event-stream"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_key_and_with_its_server() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let path = format!("/tasks/{}/stream", id_of(&task));
    let issued = server.issue(&["viewer"], json!({})).await;
    let key = issued["key"].as_str().expect("a secret");
    let (mut here, mut there) =
        (server.get(&path).key(key).open().await, other.get(&path).key(key).open().await);
    let mut stays = other.get(&path).open().await;
    for stream in [&mut here, &mut there, &mut stays] {
        stream.next().await.expect("a snapshot");
    }
    server.delete(&format!("/keys/{}", id_of(&issued))).send().await.success();
    let ended = async { tokio::join!(here.next(), there.next()) };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("they end soon");
    assert!(ended.0.is_none() && ended.1.is_none());
    let (end, ()) = tokio::join!(stays.next(), other.stop());
    assert!(end.is_none(), "a server that stops closes its streams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_not_compressed() {
    let server = TestServer::start().await;
    let task = server.create_in("completed", json!({})).await;
    let call = server.get(&format!("/tasks/{}/stream", id_of(&task))).header("accept-encoding", "gzip, br");
    let mut stream = call.open().await;
    assert_eq!(stream.header("content-encoding"), None);
    assert_eq!(stream.rest().await.len(), 2);
}
