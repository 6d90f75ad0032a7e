//! Watching all tasks of a tenant.

use serde_json::{Value, json};
use task_repo_tests::{EventStream, StreamEvent, TestServer, id_of, unique_type};

use crate::streams::claim;

async fn open(server: &TestServer, query: &str) -> EventStream {
    let stream = server.get(&format!("/stream{query}")).open().await;
    assert_eq!(stream.status(), 200);
    stream
}

async fn post(server: &TestServer, path: &str, body: Value) -> Value {
    server.post(path).json(&body).send().await.ok()
}

/// The next messages, as type and task.
async fn next(stream: &mut EventStream, count: usize) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(stream.next().await.expect("a message"));
    }
    events
}

fn kinds(events: &[StreamEvent]) -> Vec<String> {
    events.iter().map(StreamEvent::kind).collect()
}

/// Creates a task, has it worked on and completed; returns its id. 4 messages.
async fn live(server: &TestServer, fields: Value) -> String {
    let task = server.create(fields).await;
    let id = id_of(&task).to_owned();
    let token = claim(server, &id).await;
    let beat = json!({"lease_token": token, "progress": {"value": 0.5}});
    post(server, &format!("/tasks/{id}/heartbeat"), beat).await;
    let body = json!({"lease_token": token, "result": "large", "result_id": "r-1"});
    post(server, &format!("/tasks/{id}/complete"), body).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_all_tasks_is_told_at_every_server_and_resumed_behind_every_message() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let (mut here, mut there) = (open(&server, "").await, open(&other, "").await);
    let mut lives = Vec::new();
    for _ in 0..3 {
        lives.push(live(&server, json!({})).await);
    }
    let told = next(&mut here, 12).await;
    assert!(here.retry_ms.is_some());
    let texts = |events: &[StreamEvent]| -> Vec<_> {
        events.iter().map(|event| (event.id.clone(), event.text.clone())).collect()
    };
    assert_eq!(texts(&next(&mut there, 12).await), texts(&told), "the same at every server");
    let one = ["task_created", "task_started", "progress_update", "task_completed"];
    for id in &lives {
        let of_task: Vec<_> = told.iter().filter(|event| event.json()["task_id"] == **id).cloned().collect();
        assert_eq!(kinds(&of_task), one);
        assert_eq!(of_task[3].json()["data"], json!({"attempt": 1, "result_id": "r-1"}));
    }
    for (had, event) in told.iter().enumerate() {
        let id = event.id.clone().expect("an id");
        for server in [&server, &other] {
            let call = server.get("/stream").header("last-event-id", &id);
            let mut again = call.open().await;
            let rest = next(&mut again, told.len() - had - 1).await;
            assert_eq!(texts(&rest), texts(&told[had + 1..]), "behind {id}");
        }
    }
    // A server that has just started has read nothing of it.
    let third = server.sibling().await;
    let first = told[0].id.clone().expect("an id");
    let mut again = third.get(&format!("/stream?last_event_id={first}")).open().await;
    assert_eq!(texts(&next(&mut again, 11).await), texts(&told[1..]));
    let last = live(&other, json!({})).await;
    assert!(
        next(&mut again, 4).await.iter().all(|event| event.json()["task_id"] == *last),
        "and then goes on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_shows_what_its_caller_may_see_and_has_asked_for() {
    let server = TestServer::start().await;
    let [mail, sms] = [unique_type(), unique_type()];
    let limited = server.issue_key(&["viewer"], json!({"task_types": [mail]})).await;
    let mut by_type = open(&server, &format!("?task_type={sms}&task_type=none")).await;
    let mut by_user = open(&server, "?user_id=anna&user_id=nobody").await;
    let mut both = open(&server, &format!("?user_id=anna&task_type={mail}")).await;
    let mut as_user = server.get("/stream").user("anna").open().await;
    let mut of_key = server.get("/stream").key(&limited).open().await;
    let mut of_tenant = server.get("/stream").tenant("t2").open().await;
    // Another user, and a type that the key may not see: nothing comes.
    let mut empty = server.get("/stream?user_id=bert").user("anna").open().await;
    let mut unseen = server.get(&format!("/stream?task_type={sms}")).key(&limited).open().await;
    let mut made = Vec::new();
    for (task_type, user) in [(&mail, "anna"), (&sms, "anna"), (&mail, "bert"), (&sms, "bert")] {
        made.push(id_of(&server.create(json!({"task_type": task_type, "user_id": user})).await).to_owned());
    }
    let foreign = server.post("/tasks").tenant("t2").json(&json!({"task_type": mail})).send().await.ok();
    let ids = async |stream: &mut EventStream, count| -> Vec<String> {
        let events = next(stream, count).await;
        events.iter().map(|event| event.json()["task_id"].as_str().expect("an id").to_owned()).collect()
    };
    let pick = |places: &[usize]| places.iter().map(|place| made[*place].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&mut by_type, 2).await, pick(&[1, 3]));
    assert_eq!(ids(&mut by_user, 2).await, pick(&[0, 1]));
    assert_eq!(ids(&mut both, 1).await, pick(&[0]));
    assert_eq!(ids(&mut as_user, 2).await, pick(&[0, 1]));
    assert_eq!(ids(&mut of_key, 2).await, pick(&[0, 2]));
    assert_eq!(ids(&mut of_tenant, 1).await, [id_of(&foreign)]);
    for stream in [&mut empty, &mut unseen] {
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(600), stream.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
    server.get("/stream?task_type=a%20b").send().await.problem(400, "invalid_parameter");
    server.get("/stream?task_types=a").send().await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_resumed_is_a_gap_after_which_the_stream_goes_on() {
    let server = TestServer::start().await;
    live(&server, json!({})).await;
    for wrong in ["7", "x", "1-x", "99999999-0", "-1-0", "0-0"] {
        let mut stream = server.get("/stream").header("last-event-id", wrong).open().await;
        let gap = stream.next().await.expect("a gap");
        assert_eq!(
            (gap.text.as_str(), gap.id.is_some()),
            ("{\"event_type\":\"stream_gap\"}", true),
            "{wrong}"
        );
        let task = server.create(json!({})).await;
        let first = stream.next().await.expect("a message");
        let mut seen = first.clone();
        // What was done just before may come too.
        while seen.json()["task_id"] != task["id"] {
            seen = stream.next().await.expect("a message");
        }
        let id = gap.id.expect("an id");
        let mut again = server.get("/stream").header("last-event-id", &id).open().await;
        assert_eq!(again.next().await.expect("a message").text, first.text, "{wrong}");
    }
    // The log does not reach back so far.
    let log = server.database().collection::<bson::Document>("tasks_events");
    let first = log
        .find_one(bson::doc! {})
        .sort(bson::doc! { "_id": 1 })
        .await
        .expect("an answer")
        .expect("a document");
    log.delete_one(bson::doc! { "_id": first.get("_id") }).await.expect("it is removed");
    let fresh = server.sibling().await;
    let position = format!("{}-0", first.get_i64("_id").expect("a number"));
    let mut stream = fresh.get("/stream").header("last-event-id", &position).open().await;
    assert_eq!(stream.next().await.expect("a gap").text, "{\"event_type\":\"stream_gap\"}");
}
