//! The moments after a change of the primary, when a majority read may show less than callers have been told: nobody is
//! refused for it.

use bson::{Bson, Document, doc};
use mongodb::options::{Acknowledgment, WriteConcern};
use serde_json::json;
use task_repo_tests::{TestServer, id_of};

use crate::fail_point::StaleReads;
use crate::verbs::{claim_one, settle};

/// Has the database go back to what `past` says, of which a majority hears, and then forward to `now`, of which for the
/// time being only the primary knows. Without one of them the task is not there.
async fn stale(server: &TestServer, id: &Bson, past: Option<Document>, now: &Document) -> StaleReads {
    let tasks = server.database().collection::<Document>("tasks");
    let by_id = doc! { "_id": id };
    match past {
        Some(past) => drop(tasks.replace_one(by_id.clone(), past).await.expect("a write")),
        None => drop(tasks.delete_one(by_id.clone()).await.expect("a write")),
    }
    let stale = StaleReads::begin(server).await;
    let primary_alone = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    tasks.replace_one(by_id, now).upsert(true).write_concern(primary_alone).await.expect("a write");
    stale
}

/// The only task there is, as it is stored.
async fn stored(server: &TestServer) -> Document {
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find_one(doc! {}).await.expect("an answer").expect("a task")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_held_is_not_called_lost() {
    let server = TestServer::start().await;
    let other = server.sibling().await;
    let task = server.create(json!({})).await;
    let before = stored(&server).await;
    let held = claim_one(&server, &task, json!({})).await;
    let now = stored(&server).await;
    let stale = stale(&server, &now["_id"], Some(before), &now).await;
    let completed = settle(&other, &held, "complete", json!({"result": "done"}));
    let (completed, ()) = tokio::join!(completed, stale.end_once_confirmed(&server));
    assert_eq!(completed.ok()["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_was_created_is_not_called_missing() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let now = stored(&server).await;
    let path = format!("/tasks/{}", id_of(&task));
    let stale_now = stale(&server, &now["_id"], None, &now).await;
    let (found, ()) = tokio::join!(server.get(&path).send(), stale_now.end_once_confirmed(&server));
    assert_eq!(found.ok()["id"], task["id"]);
    let stale_now = stale(&server, &now["_id"], None, &now).await;
    let cancel = server.post(&format!("{path}/cancel")).send();
    let (cancelled, ()) = tokio::join!(cancel, stale_now.end_once_confirmed(&server));
    assert_eq!(cancelled.ok()["status"], "cancelled");
}
