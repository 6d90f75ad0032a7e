//! Lists whose pages are short or empty and go on all the same.

mod stub;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use stub::{Reply, Stub, task};
use task_repo_client::{ListTasks, Status, TaskClient};

fn page(tasks: &[Value], next_cursor: Option<&str>) -> Reply {
    Reply::json(200, &json!({ "tasks": tasks, "next_cursor": next_cursor }))
}

/// A task, an empty page, another empty page, a task, and one more page that is empty.
fn pages() -> [Reply; 5] {
    let one = [task("failed", None)];
    [
        page(&one, Some("a")),
        page(&[], Some("b")),
        page(&[], Some("c")),
        page(&one, Some("d")),
        page(&[], None),
    ]
}

fn client(stub: &Stub) -> TaskClient {
    TaskClient::new(stub.url(), "key").expect("a client")
}

#[tokio::test]
async fn a_stream_goes_past_empty_pages_to_the_end() {
    let stub = Stub::start(pages());
    let failed = client(&stub).task_stream(ListTasks::new().status(Status::Failed));
    let failed: Vec<_> = failed.try_collect().await.expect("pages");
    assert_eq!(failed.len(), 2);
}

#[tokio::test]
async fn what_is_pending_is_found_behind_empty_pages() {
    let stub = Stub::start(pages());
    let pending = client(&stub).get_pending_tasks(Some("a"), 2).await.expect("pages");
    assert_eq!(pending.len(), 2);
}

#[tokio::test]
async fn a_page_says_which_status_was_listed_where_none_was_named() {
    let silent = json!({ "tasks": [], "next_cursor": null, "status": ["pending"] });
    let stub = Stub::start([Reply::json(200, &silent), page(&[], None)]);
    let client = client(&stub);
    let query = ListTasks::new();
    assert_eq!(client.list_tasks(&query).await.expect("a page").status, Some(vec![Status::Pending]));
    assert_eq!(client.list_tasks(&query.any_status()).await.expect("a page").status, None);
}
