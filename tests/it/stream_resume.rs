//! A stream that is resumed behind any message misses nothing that is promised, and repeats nothing.

use serde_json::{Value, json};
use task_repo_tests::{StreamEvent, TestServer, id_of};

use crate::streams::{claim, watch};

async fn post(server: &TestServer, path: &str, body: Value) -> Value {
    server.post(path).json(&body).send().await.ok()
}

/// What a stream resumed behind `had` tells, as far as it goes.
async fn resumed(server: &TestServer, id: &str, had: &str, count: usize) -> Vec<StreamEvent> {
    let mut stream = server.get(&format!("/tasks/{id}/stream")).header("last-event-id", had).open().await;
    assert_eq!(stream.status(), 200, "behind {had}");
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(stream.next().await.unwrap_or_else(|| panic!("more behind {had}: {events:?}")));
    }
    events
}

fn pairs(events: &[StreamEvent]) -> Vec<(u64, String)> {
    events.iter().map(|event| (event.seq(), event.kind())).collect()
}

/// A life of several attempts, with progress in each: 1 created, 2 started, 3 progress, 4 released, 5 started, 6 progress,
/// 7 failed for good, 8 executed, 9 started, 10 progress, 11 cancellation asked for. Returns the token.
async fn live(server: &TestServer, id: &str) -> String {
    let one = format!("/tasks/{id}");
    let mut token = String::new();
    for round in 0..3 {
        token = claim(server, id).await;
        let beat =
            json!({"lease_token": token, "progress": {"value": 0.5, "text": format!("round {round}")}});
        post(server, &format!("{one}/heartbeat"), beat).await;
        match round {
            0 => drop(post(server, &format!("{one}/release"), json!({"lease_token": token})).await),
            1 => {
                let error = json!({"message": "broken"});
                let fail = json!({"lease_token": token, "error": error, "retry": "never"});
                post(server, &format!("{one}/fail"), fail).await;
                post(server, &format!("{one}/execute"), json!({})).await;
            }
            _ => drop(post(server, &format!("{one}/cancel"), json!({})).await),
        }
    }
    token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_resumes_behind_every_message() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let id = id_of(&task);
    let token = live(&server, id).await;
    let promised = [
        (2, "task_started"),
        (4, "task_released"),
        (5, "task_started"),
        (7, "task_failed"),
        (9, "task_started"),
        (10, "progress_update"),
    ];
    for had in 0..=11_u64 {
        let expected: Vec<_> = promised
            .iter()
            .filter(|(seq, _)| *seq > had)
            .map(|(seq, kind)| (*seq, (*kind).to_owned()))
            .collect();
        for server in [&server, &other] {
            let events = resumed(server, id, &had.to_string(), expected.len()).await;
            assert_eq!(pairs(&events), expected, "behind {had}");
        }
    }
    for absent in ["12", "x", "-1", "1.5", "99999999999999999999", " "] {
        let first = &resumed(&server, id, absent, 1).await[0];
        assert_eq!((first.kind().as_str(), first.seq()), ("task_snapshot", 11), "{absent:?}");
    }
    let mut waiting = server.get(&format!("/tasks/{id}/stream?last_event_id=11")).open().await;
    let body = json!({"lease_token": token, "result": {"n": 1}});
    post(&other, &format!("/tasks/{id}/complete"), body).await;
    assert_eq!(pairs(&waiting.rest().await), [(12, "task_completed".to_owned())]);
    for had in 0..=11_u64 {
        let mut stream =
            other.get(&format!("/tasks/{id}/stream")).header("last-event-id", &had.to_string()).open().await;
        let rest = stream.rest().await;
        let expected = promised.iter().filter(|(seq, _)| *seq > had && *seq != 10);
        let mut expected: Vec<_> = expected.map(|(seq, kind)| (*seq, (*kind).to_owned())).collect();
        expected.push((12, "task_completed".to_owned()));
        assert_eq!(pairs(&rest), expected, "behind {had}");
        assert!(rest.last().expect("the end").text.ends_with("\"data\":{\"n\":1}}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_had_the_end_is_told_to_stop() {
    let server = TestServer::start().await;
    let task = server.create_in("failed", json!({})).await;
    let path = format!("/tasks/{}/stream", id_of(&task));
    let version = task["version"].as_u64().expect("a version");
    let answer = server.get(&path).header("last-event-id", &version.to_string()).send().await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    let answer = server.get(&format!("{path}?last_event_id={version}")).send().await;
    assert_eq!(answer.status, 204, "{answer:?}");
    // The header is newer than what stands in a URL.
    let newer = server.get(&format!("{path}?last_event_id=1")).header("last-event-id", &version.to_string());
    assert_eq!(newer.send().await.status, 204);
    let beyond = (version + 1).to_string();
    let events = resumed(&server, id_of(&task), &beyond, 2).await;
    assert_eq!(events[0].kind(), "task_snapshot", "a version that lies ahead counts as absent");
    let cancelled = server.create_in("cancelled", json!({})).await;
    let path = format!("/tasks/{}/stream", id_of(&cancelled));
    assert_eq!(server.get(&path).header("last-event-id", "2").send().await.status, 204);
    assert_eq!(pairs(&resumed(&server, id_of(&cancelled), "1", 1).await), [(2, "task_cancelled".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn self_managed_work_is_told_and_resumed() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let id = id_of(&task);
    let mut stream = watch(&server, id).await;
    stream.next().await.expect("a snapshot");
    for status in ["processing", "completed"] {
        let body = json!({"status": status, "result": (status == "completed").then_some(5)});
        let body = if status == "completed" { body } else { json!({"status": status}) };
        server.put(&format!("/tasks/{id}/status")).json(&body).send().await.success();
    }
    let live = stream.rest().await;
    assert_eq!(pairs(&live), [(2, "task_started".to_owned()), (3, "task_completed".to_owned())]);
    assert_eq!(live[0].json()["data"], json!({"attempt": 1, "worker_id": null}));
    let again = resumed(&server, id, "0", 2).await;
    let texts = |events: &[StreamEvent]| events.iter().map(|event| event.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&again), texts(&live), "what is told again is the same");
}
