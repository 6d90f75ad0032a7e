//! How much a task remembers of its attempts: the latest 100, and so many bytes.

use bson::{Document, doc};
use serde_json::{Value, json};
use task_repo_tests::TestServer;

use crate::verbs::{claim_one, executions, id, post, settle, shown};

/// Most bytes of attempts that a task keeps, and room for how they are stored.
const MOST: usize = (256 << 10) + (16 << 10);

/// The stored task.
async fn stored(server: &TestServer, task: &Value) -> Document {
    let id = bson::Uuid::parse_str(id(task)).expect("a UUID");
    let tasks = server.database().collection::<Document>("tasks");
    tasks.find_one(doc! { "_id": id }).await.expect("an answer").expect("the task")
}

/// Bytes of the stored attempts.
async fn attempts_bytes(server: &TestServer, task: &Value) -> usize {
    let attempts = stored(server, task).await.get_array("attempts").expect("attempts").clone();
    bson::serialize_to_vec(&doc! { "attempts": attempts }).expect("a document").len()
}

/// Fails the task that often, each time with that error; gives back the claims and their receipts, oldest first.
async fn fail_often(server: &TestServer, task: &Value, times: usize, error: &Value) -> Vec<(Value, Value)> {
    let mut failed = Vec::with_capacity(times);
    for _ in 0..times {
        let held = claim_one(server, task, json!({})).await;
        let how = json!({"error": error, "retry_after_seconds": 3600});
        let receipt = settle(server, &held, "fail", how).await.ok();
        failed.push((held, receipt));
        post(server, task, "execute", json!({})).await.ok();
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_details_go_first() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 50})).await;
    let details = "d".repeat(30 << 10);
    let error = json!({"message": "it broke", "code": "c", "details": details});
    let failed = fail_often(&server, &task, 20, &error).await;
    let bytes = attempts_bytes(&server, &task).await;
    assert!((MOST / 2..=MOST).contains(&bytes), "{bytes} bytes");

    let shown_errors = executions(&server, &task).await;
    assert_eq!(shown_errors.len(), 20, "every attempt is still there");
    let is_whole = |attempt: &Value| attempt["error"]["details"] == details.as_str();
    let whole = shown_errors.iter().take_while(|attempt| is_whole(attempt)).count();
    assert!((5..=9).contains(&whole), "{whole} are whole, the newest ones");
    for (place, attempt) in shown_errors.iter().enumerate() {
        assert_eq!(attempt["truncated"], place >= whole, "{attempt}");
        assert_eq!(
            (&attempt["error"]["message"], &attempt["error"]["code"]),
            (&json!("it broke"), &json!("c"))
        );
        assert!(is_whole(attempt) || attempt["error"]["details"] == Value::Null);
    }
    assert_eq!(
        shown(&server, &task).await["error"]["details"],
        details.as_str(),
        "that of the task is whole"
    );
    for (held, receipt) in &failed {
        assert_eq!(settle(&server, held, "fail", json!({})).await.ok(), *receipt, "the same answer as ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_are_cut_and_no_receipt_goes_for_them() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 50})).await;
    // Four bytes for each character.
    let message = "\u{1F980}".repeat(8192);
    let failed = fail_often(&server, &task, 20, &json!({"message": message})).await;
    let bytes = attempts_bytes(&server, &task).await;
    assert!(bytes <= MOST, "{bytes} bytes");
    let attempts = executions(&server, &task).await;
    assert_eq!(attempts.len(), 20);
    assert_eq!(
        (&attempts[0]["error"]["message"], &attempts[0]["truncated"]),
        (&json!(message), &json!(false))
    );
    let (oldest, cut) = (&attempts[19], "\u{1F980}".repeat(100));
    assert_eq!((&oldest["error"]["message"], &oldest["truncated"]), (&json!(cut), &json!(true)));
    let (held, receipt) = &failed[0];
    assert_eq!(settle(&server, held, "fail", json!({})).await.ok(), *receipt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_stored_with_more_is_read_and_shrinks_with_its_next_write() {
    let server = TestServer::start().await;
    let task = server.create(json!({"max_attempts": 50})).await;
    fail_often(&server, &task, 20, &json!({"message": "it broke"})).await;
    let large = doc! { "$set": { "attempts.$[].error.details": format!("\"{}\"", "d".repeat(30 << 10)) } };
    let stored_id = bson::Uuid::parse_str(id(&task)).expect("a UUID");
    let tasks = server.database().collection::<Document>("tasks");
    tasks.update_one(doc! { "_id": stored_id }, large).await.expect("an update");
    assert!(attempts_bytes(&server, &task).await > 2 * MOST);
    let attempts = executions(&server, &task).await;
    assert!(attempts.iter().all(|attempt| attempt["error"]["details"].is_string()), "it is read as it is");
    server.put(&format!("/tasks/{}", id(&task))).json(&json!({"name": "n"})).send().await.ok();
    let bytes = attempts_bytes(&server, &task).await;
    assert!(bytes <= MOST, "{bytes} bytes");
    assert_eq!(executions(&server, &task).await.len(), 20);
}
