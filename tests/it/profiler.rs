//! What the database says it was asked: its profiler, turned on for the database of one test.

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use task_repo_tests::TestServer;

async fn set_level(server: &TestServer, level: i32) {
    server.database().run_command(doc! {"profile": level}).await.expect("the profiler is set");
}

/// Makes room for everything the profiler will say, forgets what it has said, and turns it on.
pub(crate) async fn start(server: &TestServer) {
    let database = server.database();
    set_level(server, 0).await;
    database.collection::<Document>("system.profile").drop().await.expect("an empty profile");
    let room = doc! {"create": "system.profile", "capped": true, "size": 64 << 20};
    database.run_command(room).await.expect("room for the profile");
    set_level(server, 2).await;
}

/// What the profiler has said about the tasks so far, in order. The feed's change stream reads the database's log, not them.
pub(crate) async fn seen(server: &TestServer) -> Vec<Document> {
    let database = server.database();
    let about_tasks = doc! {
        "ns": format!("{}.tasks", database.name()),
        "command.pipeline.0.$changeStream": {"$exists": false},
        "originatingCommand.pipeline.0.$changeStream": {"$exists": false},
    };
    let profile = database.collection::<Document>("system.profile");
    profile.find(about_tasks).await.expect("the profile").try_collect().await.expect("the profile")
}

/// Turns it off, and says what it has said.
pub(crate) async fn stop(server: &TestServer) -> Vec<Document> {
    set_level(server, 0).await;
    seen(server).await
}
