//! Faults of the database on purpose. A MongoDB has one such fail point, so the tests that use it take turns.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex as StdMutex};

use bson::{Bson, Document, doc};
use mongodb::Database;
use task_repo_tests::{TestServer, eventually};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// By the name under which a MongoDB knows itself.
static TURNS: LazyLock<StdMutex<HashMap<String, Arc<Mutex<()>>>>> = LazyLock::new(StdMutex::default);

async fn turn(admin: &Database) -> OwnedMutexGuard<()> {
    let hello = admin.run_command(doc! { "hello": 1 }).await.expect("an answer");
    let name = hello.get_str("me").expect("a member of a replica set").to_owned();
    let turn = Arc::clone(TURNS.lock().expect("no panic under it").entry(name).or_default());
    turn.lock_owned().await
}

/// While it is held, commands on a test's tasks fail.
pub(crate) struct FailPoint {
    admin: Database,
    commands: Document,
    hits_before: i64,
    _turn: OwnedMutexGuard<()>,
}

impl FailPoint {
    /// Makes commands of that name fail, as often as `mode` says.
    pub(crate) async fn set(
        server: &TestServer,
        command: &str,
        mode: impl Into<Bson>,
        how: Document,
    ) -> Self {
        Self::set_on(server, "tasks", command, mode, how).await
    }

    /// The same for another collection of the test.
    pub(crate) async fn set_on(
        server: &TestServer,
        collection: &str,
        command: &str,
        mode: impl Into<Bson>,
        how: Document,
    ) -> Self {
        Self::set_all(server, collection, &[command], mode, how).await
    }

    /// The same for several commands.
    pub(crate) async fn set_all(
        server: &TestServer,
        collection: &str,
        commands: &[&str],
        mode: impl Into<Bson>,
        how: Document,
    ) -> Self {
        Self::set_in(&server.database(), collection, commands, mode, how).await
    }

    /// The same in a database that may have no server.
    pub(crate) async fn set_in(
        database: &Database,
        collection: &str,
        commands: &[&str],
        mode: impl Into<Bson>,
        how: Document,
    ) -> Self {
        let admin = database.client().database("admin");
        let turn = turn(&admin).await;
        let namespace = format!("{}.{collection}", database.name());
        let commands = doc! { "failCommands": commands, "namespace": namespace };
        let mut fail_point = Self { admin, commands, hits_before: 0, _turn: turn };
        fail_point.hits_before = fail_point.change(mode, how).await;
        fail_point
    }

    /// Has the same commands fail in another way from now on, with none between that does not. How many commands it has
    /// hit until then.
    pub(crate) async fn change(&self, mode: impl Into<Bson>, how: Document) -> i64 {
        let mut data = self.commands.clone();
        data.extend(how);
        configure(&self.admin, doc! { "mode": mode.into(), "data": data }).await - self.hits_before
    }

    /// Resolves when it has hit that many commands; the last may still be held up by it.
    pub(crate) async fn has_hit(&self, times: i64) {
        eventually("the commands are hit", async || {
            let question = doc! { "getParameter": 1, "failpoint.failCommand": 1 };
            let answer = self.admin.run_command(question).await.expect("a fail point");
            let state = answer.get_document("failpoint.failCommand").expect("its state");
            count(state, "timesEntered") - self.hits_before >= times
        })
        .await;
    }

    /// Ends it; how many commands it has hit.
    pub(crate) async fn end(self) -> i64 {
        configure(&self.admin, doc! { "mode": "off" }).await - self.hits_before
    }
}

/// While it is held, reads show what a majority of the database knew when it began, and no write is known to last. This is
/// so for the whole MongoDB: for all tests that use it.
pub(crate) struct StaleReads {
    admin: Database,
    _turn: OwnedMutexGuard<()>,
}

impl StaleReads {
    pub(crate) async fn begin(server: &TestServer) -> Self {
        let admin = server.database().client().database("admin");
        let turn = turn(&admin).await;
        set_stale(&admin, "alwaysOn").await;
        Self { admin, _turn: turn }
    }

    /// Ends it once a read of that test's tasks is under way that is certain, or [`FEW`] looks have found none.
    pub(crate) async fn end_once_confirmed(self, server: &TestServer) {
        let namespace = format!("{}.tasks", server.database().name());
        let certain = doc! { "ns": namespace, "command.readConcern.level": "linearizable" };
        let question =
            doc! { "aggregate": 1, "pipeline": [{ "$currentOp": {} }, { "$match": certain }], "cursor": {} };
        for _ in 0..FEW {
            let answer = self.admin.run_command(question.clone()).await.expect("what the database does");
            let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            if !batch.expect("a batch").is_empty() {
                break;
            }
        }
        set_stale(&self.admin, "off").await;
    }
}

/// How often it is asked whether somebody makes sure; the test says what came of it.
const FEW: usize = 200;

async fn set_stale(admin: &Database, mode: &str) {
    let command = doc! { "configureFailPoint": "disableSnapshotting", "mode": mode };
    admin.run_command(command).await.expect("a MongoDB started with enableTestCommands=1");
}

/// How many commands were hit before.
async fn configure(admin: &Database, how: Document) -> i64 {
    let mut command = doc! { "configureFailPoint": "failCommand" };
    command.extend(how);
    let answer = admin.run_command(command).await.expect("a MongoDB started with enableTestCommands=1");
    count(&answer, "count")
}

fn count(answer: &Document, field: &str) -> i64 {
    answer.get_i64(field).or_else(|_| answer.get_i32(field).map(i64::from)).expect("a count")
}
