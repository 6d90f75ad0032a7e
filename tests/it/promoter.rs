//! What scheduled tasks cost while they are not due: nothing. And in which order they are promoted when many are due at once.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use chrono::TimeDelta;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, in_seconds};

use crate::profiler;
use crate::verbs::{claim, claim_one, create_many, shown, time, until};

/// The pause of the promoter between two looks for what other servers scheduled.
const INTERVAL_MS: i64 = 250;

/// When a look of the promoter was made, and how many tasks it read.
fn look(entry: &Document) -> Option<(i64, i64)> {
    let filter = entry.get_document("command").ok()?.get_document("filter").ok()?;
    filter.get("run_at")?;
    let read = match entry.get("docsExamined")? {
        Bson::Int32(count) => i64::from(*count),
        Bson::Int64(count) => *count,
        other => panic!("{other} is no count"),
    };
    Some((entry.get_datetime("ts").ok()?.timestamp_millis(), read))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_tomorrow_is_not_read_and_wakes_nobody() {
    let server = TestServer::start().await;
    let tomorrow = json!({"task_type": "t", "run_at": in_seconds(86_400)});
    create_many(&server, 600, |_| tomorrow.clone()).await;
    profiler::start(&server).await;
    let looks = async || -> Vec<_> { profiler::seen(&server).await.iter().filter_map(look).collect() };
    for _ in 0..60 {
        server.create(tomorrow.clone()).await;
    }
    eventually("some looks", async || looks().await.len() >= 6).await;
    let looks = looks().await;
    assert!(looks.iter().all(|(_, read)| *read == 0), "{looks:?}");
    let (Some((first, _)), Some((last, _))) = (looks.first(), looks.last()) else { panic!("no looks") };
    let most = (last - first) / INTERVAL_MS + 2;
    assert!(looks.len() <= usize::try_from(most).unwrap(), "{} looks where {most} are enough", looks.len());
}

/// Several pieces of what the jobs move together.
const MANY: usize = 1_000;
/// How many tasks a job moves together.
const PIECE: usize = 500;

/// How many of the tasks of that queue became ready before that one.
async fn ready_before(server: &TestServer, queue: &str, urgent: &Value) -> usize {
    let tasks = server.database().collection::<Document>("tasks");
    let waiting = doc! {"task_type": queue, "status": {"$ne": "pending"}};
    eventually("all are ready", async || {
        tasks.count_documents(waiting.clone()).await.expect("an answer") == 0
    })
    .await;
    let ready_at = bson::DateTime::from_chrono(time(&shown(server, urgent).await["updated_at"]));
    let before = doc! {"task_type": queue, "updated_at": {"$lt": ready_at}};
    usize::try_from(tasks.count_documents(before).await.expect("an answer")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_are_due_at_once_the_most_urgent_goes_first() {
    let server = TestServer::start().await;
    let run_at = server.now() + TimeDelta::hours(1);
    let task = |_| json!({"task_type": "due", "priority": 10, "run_at": run_at});
    create_many(&server, MANY, task).await;
    // Last in the order of time, and of ids.
    let urgent = json!({"task_type": "due", "priority": 90, "run_at": run_at + TimeDelta::milliseconds(5)});
    let urgent = server.create(urgent).await;
    server.jump(Duration::from_secs(3601));
    let before = ready_before(&server, "due", &urgent).await;
    assert!(before < PIECE, "{before} tasks were promoted before the most urgent one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_leases_that_ran_out_at_once_the_most_urgent_task_is_taken_back_first() {
    let server = TestServer::start().await;
    create_many(&server, MANY, |_| json!({"task_type": "lost", "priority": 10})).await;
    until("all are claimed", async || {
        let claimed = claim(&server, "lost", json!({"limit": 100, "lease_seconds": 600})).await;
        claimed["tasks"].as_array().expect("tasks").is_empty().then_some(())
    })
    .await;
    let urgent = server.create(json!({"task_type": "lost", "priority": 90})).await;
    claim_one(&server, &urgent, json!({"lease_seconds": 600})).await;
    let tasks = server.database().collection::<Document>("tasks");
    let soon = server.now() + TimeDelta::seconds(10);
    let all = doc! {"$set": {"lease_until": DateTime::from_chrono(soon)}};
    tasks.update_many(doc! {"task_type": "lost"}, all).await.expect("an answer");
    // The last one in the order of time.
    let last = doc! {"$set": {"lease_until": DateTime::from_chrono(soon + TimeDelta::milliseconds(5))}};
    tasks.update_one(doc! {"task_type": "lost", "priority": 90}, last).await.expect("an answer");
    server.let_pass(Duration::from_secs(11)).await;
    let before = ready_before(&server, "lost", &urgent).await;
    assert!(before < PIECE, "{before} tasks were taken back before the most urgent one");
}
