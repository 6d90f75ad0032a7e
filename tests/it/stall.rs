//! A database that stands still: workers could not be heard meanwhile, and nobody loses work for it.

use bson::{Bson, doc};
use chrono::{TimeDelta, Utc};
use serde_json::json;
use task_repo_tests::{TestServer, eventually};

use crate::fail_point::FailPoint;
use crate::profiler;
use crate::verbs::{claim_one, settle, shown, time, until_status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlast_a_time_in_which_the_database_did_not_answer() {
    let server = TestServer::start().await;
    let task = server.create(json!({"lease_seconds": 2})).await;
    let held = claim_one(&server, &task, json!({})).await;
    let broken = FailPoint::set(&server, "find", "alwaysOn", doc! { "errorCode": 50 }).await;
    let over = time(&held["lease"]["expires_at"]) + TimeDelta::seconds(5);
    eventually("the lease would have run out long ago", async || Utc::now() > over).await;
    assert!(broken.end().await > 0);

    profiler::start(&server).await;
    eventually("the sweeper has looked", async || {
        let sweeps = profiler::seen(&server).await;
        let found = |entry: &bson::Document| entry.get("nreturned") == Some(&Bson::Int32(1));
        let is_sweep = |entry: &bson::Document| entry.to_string().contains("lease_until") && found(entry);
        sweeps.iter().filter(|entry| is_sweep(entry)).count() >= 2
    })
    .await;
    let now = shown(&server, &task).await;
    assert_eq!((&now["status"], &now["losses"]), (&json!("processing"), &json!(0)), "{now:#}");
    settle(&server, &held, "heartbeat", json!({})).await.ok();

    // It was only put off: who stays silent loses the task.
    assert_eq!(until_status(&server, &task, "pending").await["losses"], 1);
}
