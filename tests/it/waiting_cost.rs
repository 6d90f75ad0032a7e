//! What waiting claims cost the database: nothing once they are over, and nothing for work that is not for them.

use bson::{Bson, Document};
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpCall, TestServer, eventually, unique_type};

use crate::profiler;
use crate::verbs::{claim, id, ids, tasks};

/// The pause of the waker between two rounds.
const WAKE_INTERVAL_MS: u64 = 100;

/// A round of the sweeper, which comes again and again whatever else happens: the clock of these tests.
fn is_sweep(entry: &Document) -> bool {
    entry.get_document("command").is_ok_and(|command| command.to_string().contains("lease_until"))
}

/// Any look for ready work, by whomever.
fn is_ready_look(entry: &Document) -> bool {
    entry.get_document("command").is_ok_and(|command| {
        let reads = ["find", "distinct", "aggregate"].iter().any(|verb| command.contains_key(verb));
        reads && command.to_string().contains("\"pending\"")
    })
}

/// The filter of a read of ready work to hand out: in claim order.
fn claim_read(entry: &Document) -> Option<&Document> {
    let command = entry.get_document("command").ok()?;
    let is_in_claim_order = command.get_document("sort").is_ok_and(|sort| sort.contains_key("ready_at"));
    is_in_claim_order.then(|| command.get_document("filter").ok())?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_whose_wait_is_over_are_not_looked_for_any_more() {
    let server = TestServer::start().await;
    let queues: Vec<String> = (0..50).map(|_| unique_type()).collect();
    for more in [
        json!({"wait_ms": 30}),
        json!({"wait_ms": 30, "tags": {"k": "v"}}),
        json!({"wait_ms": 30, "limit": 7}),
    ] {
        let answers = join_all(queues.iter().map(|queue| claim(&server, queue, more.clone()))).await;
        assert!(answers.iter().all(|answer| *answer == json!({"tasks": []})));
    }
    profiler::start(&server).await;
    // A look may be under way when the last claim is answered; three rounds of the sweeper without one must come.
    eventually("three sweeps in a row without a look for ready work", async || {
        let mut sweeps = 0;
        for entry in profiler::seen(&server).await {
            if is_ready_look(&entry) {
                sweeps = 0;
            } else if is_sweep(&entry) {
                sweeps += 1;
            }
        }
        sweeps >= 4
    })
    .await;
}

/// Lets a claim wait beside work that is not for it, until the server has looked for work from elsewhere some times;
/// checks that no read in claim order came of that but the one when the claim arrived, and ends it with `wanted`.
async fn assert_left_alone(
    more: Value,
    caller: impl Fn(HttpCall) -> HttpCall,
    strange: &[Value],
    wanted: Value,
    is_its: fn(&Document) -> bool,
) {
    let server = TestServer::start().await;
    let queue = unique_type();
    let create = async |task: &Value| {
        let mut task = task.clone();
        task["task_type"] = json!(queue);
        server.create(task).await
    };
    for task in strange {
        create(task).await;
    }
    profiler::start(&server).await;
    let mut body = json!({"task_types": [queue], "worker_id": "w1", "wait_ms": 30_000});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let waiting = async { caller(server.post("/tasks/claim").json(&body)).send().await.ok() };
    let (claimed, task) = tokio::join!(waiting, async {
        let reads = async || {
            let entries = profiler::seen(&server).await;
            entries.iter().filter_map(claim_read).filter(|filter| is_its(filter)).count()
        };
        eventually("the claim has looked once", async || reads().await > 0).await;
        // What is created here wakes nobody, nor does what was there before.
        for task in strange {
            create(task).await;
        }
        let sweeps = async || profiler::seen(&server).await.iter().filter(|entry| is_sweep(entry)).count();
        let before = sweeps().await;
        eventually("some sweeps", async || sweeps().await >= before + 4).await;
        assert_eq!(reads().await, 1, "the claim looks when it comes, and then when there is work for it");
        create(&wanted).await
    });
    assert_eq!(ids(&claimed), [id(&task)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_other_users_does_not_wake_a_waiting_claim() {
    let strange = [json!({"user_id": "ann"}), json!({})];
    let is_bobs = |filter: &Document| filter.get("user_id") == Some(&Bson::from("bob"));
    assert_left_alone(json!({}), |call| call.user("bob"), &strange, json!({"user_id": "bob"}), is_bobs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_with_other_tags_does_not_wake_a_waiting_claim() {
    let strange =
        [json!({"tags": {"k": "w"}}), json!({"tags": {"k": "v"}}), json!({"tags": {"x": "y"}}), json!({})];
    let both = json!({"tags": {"k": "v", "x": "y"}});
    let is_tagged = |filter: &Document| filter.contains_key("tags");
    assert_left_alone(both.clone(), |call| call, &strange, both, is_tagged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_cost_as_much_as_few() {
    let server = TestServer::start_with(|settings| settings.tasks.wake_interval_ms = WAKE_INTERVAL_MS).await;
    let queue = unique_type();
    let waiting = (0..60).map(|number| {
        let body = json!({"task_types": [queue], "worker_id": format!("w{number}"), "wait_ms": 30_000});
        let call = server.post("/tasks/claim").json(&body);
        // Half of them take only tasks of their own user.
        if number % 2 == 0 { call } else { call.user(&format!("u{number}")) }.send()
    });
    let counted = async {
        server.until_claims_wait(&queue, 60).await;
        profiler::start(&server).await;
        eventually("some sweeps", async || {
            profiler::seen(&server).await.iter().filter(|entry| is_sweep(entry)).count() >= 5
        })
        .await;
        profiler::stop(&server).await
    };
    let entries = tokio::select! {
        entries = counted => entries,
        _ = join_all(waiting) => panic!("nobody has anything to be answered with"),
    };
    // Each round of the waker looks once for all who take any user's tasks, and once for all who take their own user's.
    assert_few_looks(&entries, "distinct");
    assert_few_looks(&entries, "find");
}

/// There was at most one such look in each round of the waker. It pauses between its rounds, so a slow machine sees fewer of
/// them in the same time.
fn assert_few_looks(entries: &[Document], verb: &str) {
    let looks: Vec<_> = entries
        .iter()
        .filter(|entry| is_ready_look(entry))
        .filter(|entry| entry.get_document("command").is_ok_and(|command| command.contains_key(verb)))
        .map(|entry| entry.get_datetime("ts").expect("a time").timestamp_millis())
        .collect();
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { panic!("no look by {verb}") };
    let rounds = u64::try_from(last - first).expect("a later time") / WAKE_INTERVAL_MS + 2;
    let count = u64::try_from(looks.len()).expect("a count");
    assert!(count <= rounds, "{count} looks by {verb} in at most {rounds} rounds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_for_tags_of_their_own_are_looked_for_together() {
    let server = TestServer::start_with(|settings| settings.tasks.wake_interval_ms = WAKE_INTERVAL_MS).await;
    let other = server.sibling().await;
    let queue = unique_type();
    let waiting = (0..200).map(|number| {
        let tags = json!({"worker": number.to_string()});
        claim(&server, &queue, json!({"tags": tags, "wait_ms": 30_000}))
    });
    let work = async {
        server.until_claims_wait(&queue, 200).await;
        profiler::start(&server).await;
        eventually("some sweeps", async || {
            profiler::seen(&server).await.iter().filter(|entry| is_sweep(entry)).count() >= 5
        })
        .await;
        let entries = profiler::stop(&server).await;
        // Work for all of them from elsewhere, and some that nobody takes.
        let tags = (0..200).map(|number| json!({"worker": number.to_string()}));
        let strange = json!({"worker": "0", "x": "y"});
        let tasks: Vec<_> = tags
            .chain(std::iter::repeat_n(strange, 100))
            .map(|tags| json!({"task_type": queue, "tags": tags}))
            .collect();
        other.post("/tasks/batch").json(&json!({"tasks": tasks})).send().await.ok();
        entries
    };
    let (claimed, entries) = tokio::join!(join_all(waiting), work);
    for (number, claimed) in claimed.iter().enumerate() {
        assert_eq!(tasks(claimed)[0]["tags"]["worker"], number.to_string());
    }
    assert_few_looks(&entries, "find");
}
