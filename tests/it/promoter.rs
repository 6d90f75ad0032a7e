//! What scheduled tasks cost while they are not due: nothing.

use bson::{Bson, Document};
use serde_json::json;
use task_repo_tests::{TestServer, eventually, in_seconds};

use crate::profiler;
use crate::verbs::create_many;

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
