//! Times in which workers could not be heard: nobody loses work for them.

use std::time::Duration;

use bson::{Bson, Document, doc};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use task_repo_tests::{TestServer, eventually, unique_type};

use crate::fail_point::FailPoint;
use crate::profiler;
use crate::verbs::{claim, claim_one, create_many, pass_until_status, settle, shown, tasks, until_status};

/// A task whose lease runs out unless somebody says that its worker lives.
async fn hold(server: &TestServer) -> Value {
    let task = server.create(json!({"lease_seconds": 5})).await;
    claim_one(server, &task, json!({})).await
}

/// So long after its claim that any sweeper would have taken the task.
const LONG: Duration = Duration::from_secs(9);
/// How far the time moves at once: two steps without a renewal record are an outage.
const STEP: Duration = Duration::from_millis(1500);

/// The worker is heard in time; and it was only put off: who stays silent then loses the task.
async fn assert_kept(server: &TestServer, held: &Value) {
    profiler::start(server).await;
    eventually("the sweeper has looked", async || {
        let sweeps = profiler::seen(server).await;
        let found = |entry: &bson::Document| entry.get("nreturned") == Some(&Bson::Int32(1));
        let is_sweep = |entry: &bson::Document| entry.to_string().contains("lease_until") && found(entry);
        sweeps.iter().filter(|entry| is_sweep(entry)).count() >= 2
    })
    .await;
    let now = shown(server, held).await;
    assert_eq!((&now["status"], &now["losses"]), (&json!("processing"), &json!(0)), "{now:#}");
    settle(server, held, "heartbeat", json!({})).await.ok();
    assert_eq!(pass_until_status(server, held, "pending").await["losses"], 1);
}

/// Leases outlast a time in which all such commands fail.
async fn assert_outlasts(collection: &str, command: &str, how: Document) {
    let server = TestServer::start().await;
    // Its turn may be long in coming. A lease that began before would have run out by then.
    let broken = FailPoint::set_on(&server, collection, command, "off", how.clone()).await;
    let held = hold(&server).await;
    broken.change("alwaysOn", how).await;
    let mut passed = Duration::ZERO;
    // In steps, and a command fails after each: if the sweeper could note that leases can be renewed, it would.
    for hits in 1.. {
        if passed >= LONG {
            break;
        }
        server.jump(STEP);
        passed += STEP;
        broken.has_hit(hits).await;
    }
    assert!(broken.end().await > 0);
    assert_kept(&server, &held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlast_a_time_in_which_the_database_did_not_answer() {
    assert_outlasts("tasks", "find", doc! { "errorCode": 50 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlast_a_time_in_which_no_write_could_be_made_to_last() {
    let unsure = doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down" } };
    assert_outlasts("tasks_pulse", "findAndModify", unsure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlast_a_time_in_which_only_tasks_could_not_be_written() {
    assert_outlasts("tasks", "update", doc! { "errorCode": 50 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlast_a_time_in_which_no_server_ran() {
    let server = TestServer::start().await;
    let held = hold(&server).await;
    let clock = server.clock();
    let server = server.restart_after(async { clock.advance(LONG) }).await;
    assert_kept(&server, &held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_for_a_long_outage_is_over_after_the_length_of_a_lease() {
    let server = TestServer::start().await;
    let held = hold(&server).await;
    let database = server.database();
    let records = database.collection::<bson::Document>("tasks_pulse");
    let away = async {
        // The service was away for most of an hour, ran for five minutes, and is away for three seconds.
        let ago = |seconds| bson::DateTime::from_chrono(Utc::now() - TimeDelta::seconds(seconds));
        let first = doc! { "ended_at": ago(303), "lasted_ms": 3_060_000_i64 };
        let record = doc! { "$set": { "seen_at": ago(3), "outage": first } };
        records.update_one(doc! {}, record).upsert(true).await.expect("a renewal record");
        let over = doc! { "$set": { "lease_until": ago(1), "lease.seconds": 60 } };
        database.collection::<Document>("tasks").update_one(doc! {}, over).await.expect("a lease");
    };
    let server = server.restart_after(away).await;
    // A lease of a minute is not held for as long again.
    assert_eq!(until_status(&server, &held, "pending").await["losses"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_an_outage_holds_do_not_hide_those_behind_them() {
    let server = TestServer::start().await;
    let (long, brief) = (unique_type(), unique_type());
    // More than a look brings at once.
    create_many(&server, 501, |_| json!({"task_type": long})).await;
    server.create(json!({"task_type": brief})).await;
    let claimed = claim(&server, &long, json!({"limit": 1000})).await;
    let held = server.claim(&brief).await;
    let database = server.database();
    let away = async {
        let ago = |seconds| bson::DateTime::from_chrono(Utc::now() - TimeDelta::seconds(seconds));
        let outage = doc! { "ended_at": ago(70), "lasted_ms": 600_000_i64 };
        let record = doc! { "$set": { "seen_at": ago(1), "outage": outage } };
        let records = database.collection::<Document>("tasks_pulse");
        records.update_one(doc! {}, record).upsert(true).await.expect("a renewal record");
        let leases = database.collection::<Document>("tasks");
        for (queue, over, seconds) in [(&long, 100, 600), (&brief, 90, 60)] {
            let over = doc! { "$set": { "lease_until": ago(over), "lease.seconds": seconds } };
            leases.update_many(doc! { "task_type": queue }, over).await.expect("leases");
        }
    };
    let server = server.restart_after(away).await;
    // A lease of ten minutes is held for as long again, one of a minute for a minute.
    assert_eq!(until_status(&server, &held, "pending").await["losses"], 1);
    for held in [&tasks(&claimed)[0], &tasks(&claimed)[500]] {
        assert_eq!(shown(&server, held).await["status"], "processing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_that_follows_soon_does_not_cut_the_time_after_the_first_short() {
    let server = TestServer::start().await;
    let records = server.database().collection::<bson::Document>("tasks_pulse");
    let flapping = async {
        let ago = |seconds| bson::DateTime::from_chrono(Utc::now() - TimeDelta::seconds(seconds));
        let first = doc! { "ended_at": ago(10), "lasted_ms": 600_000_i64 };
        let record = doc! { "$set": { "seen_at": ago(5), "outage": first } };
        records.update_one(doc! {}, record).upsert(true).await.expect("a renewal record");
    };
    let _server = server.restart_after(flapping).await;
    eventually("the second outage is noticed", async || {
        let record = records.find_one(doc! {}).await.expect("a renewal record").expect("it is there");
        let outage = record.get_document("outage").expect("an outage");
        let is_second = outage.get_datetime("ended_at").expect("its end").to_chrono()
            > Utc::now() - TimeDelta::seconds(9);
        let Ok(earlier) = outage.get_array("earlier") else { return false };
        let first = earlier.first().and_then(Bson::as_document).expect("the first");
        assert_eq!(first.get_i64("lasted_ms").expect("its length"), 600_000);
        assert!((4_000..9_000).contains(&first.get_i64("renewable_ms").expect("a time")));
        is_second
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_over_when_a_renewal_record_arrives_not_when_it_was_sent() {
    let server = TestServer::start().await;
    let records = server.database().collection::<bson::Document>("tasks_pulse");
    let record = async || records.find_one(doc! {}).await.expect("a renewal record");
    eventually("there is a renewal record", async || record().await.is_some()).await;
    let broken =
        FailPoint::set_on(&server, "tasks_pulse", "findAndModify", "alwaysOn", doc! { "errorCode": 50 })
            .await;
    server.jump(Duration::from_secs(3));
    broken.has_hit(1).await;
    let before =
        broken.change(doc! { "times": 1 }, doc! { "blockConnection": true, "blockTimeMS": 2000 }).await;
    // The next renewal record is under way for three seconds by the server's clock.
    server.jump(STEP);
    broken.has_hit(before + 1).await;
    server.jump(Duration::from_secs(3));
    eventually("its whole length is known", async || {
        let outage = record().await.and_then(|record| record.get_document("outage").cloned().ok());
        outage.is_some_and(|outage| outage.get_i64("lasted_ms").expect("its length") > 5500)
    })
    .await;
    broken.end().await;
}
