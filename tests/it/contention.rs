//! Many callers at once: no task is given out twice, no two verbs both succeed where one excludes the other.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_repo_tests::{HttpAnswer, TestServer, unique_type};

use crate::verbs::{
    claim, claim_one, create_many, executions, id, post, put_status, settle, shown, tasks, token,
};

/// How many of the answers have that status.
fn count(answers: &[HttpAnswer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_callers_one_gets_the_task() {
    let server = TestServer::start().await;
    for _ in 0..3 {
        let task = server.create(json!({})).await;
        let calls = (0..50).map(|n| post(&server, &task, "claim", json!({"worker_id": format!("w{n}")})));
        let (won, lost): (Vec<_>, Vec<_>) =
            join_all(calls).await.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 49));
        for answer in lost {
            answer.problem(409, "task_not_claimable");
        }
        let holder = won.into_iter().next().expect("one of them").ok();
        let now = shown(&server, &task).await;
        assert_eq!((&now["attempt"], &now["lease"]["worker_id"]), (&json!(1), &holder["lease"]["worker_id"]));
        assert_eq!(now["version"].as_u64(), task["version"].as_u64().map(|version| version + 1));
        settle(&server, &holder, "complete", json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_claimers_share_out_five_hundred_tasks() {
    let server = TestServer::start().await;
    let queue = unique_type();
    create_many(&server, 500, |n| json!({"task_type": queue, "priority": n % 5})).await;
    let claimers = (0..30).map(async |n| {
        let mut got = Vec::new();
        loop {
            let wanted = json!({"worker_id": format!("w{n}"), "limit": 1 + n % 9});
            let claimed = claim(&server, &queue, wanted).await;
            if tasks(&claimed).is_empty() {
                return got;
            }
            got.extend(tasks(&claimed).iter().map(|task| (id(task).to_owned(), token(task).to_owned())));
        }
    });
    let got: Vec<_> = join_all(claimers).await.concat();
    let given: HashSet<_> = got.iter().map(|(id, _)| id).collect();
    let tokens: HashSet<_> = got.iter().map(|(_, token)| token).collect();
    assert_eq!((got.len(), given.len(), tokens.len()), (500, 500, 500), "each task once, with its own token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_verbs_that_end_a_lease_one_succeeds() {
    let server = TestServer::start().await;
    for _ in 0..15 {
        let task = server.create(json!({})).await;
        let task = claim_one(&server, &task, json!({})).await;
        let ends = [
            ("complete", "completed"),
            ("fail", "scheduled"),
            ("release", "pending"),
            ("cancel", "cancelled"),
        ];
        let calls = ends.map(|(verb, _)| settle(&server, &task, verb, json!({})));
        let mut winners = Vec::new();
        for (answer, (_, status)) in join_all(calls).await.into_iter().zip(ends) {
            if answer.status == 200 {
                winners.push(status);
            } else {
                answer.problem(409, "lease_lost");
            }
        }
        let now = shown(&server, &task).await;
        assert_eq!(winners, [now["status"].as_str().expect("a status")], "{now}");
        assert_eq!(now["version"].as_u64(), task["version"].as_u64().map(|version| version + 1));
        assert_eq!(executions(&server, &task).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complete_cancel_and_delete_at_once_leave_one_story() {
    let server = TestServer::start().await;
    for force in [false, true] {
        for _ in 0..10 {
            let task = server.create(json!({})).await;
            let task = claim_one(&server, &task, json!({})).await;
            let one = format!("/tasks/{}", id(&task));
            let delete = if force { format!("{one}?force=true") } else { one.clone() };
            let (completed, cancelled, deleted) = tokio::join!(
                settle(&server, &task, "complete", json!({})),
                post(&server, &task, "cancel", json!({})),
                server.delete(&delete).send(),
            );
            let after = server.get(&one).send().await;
            if deleted.status == 204 {
                after.problem(404, "task_not_found");
            } else {
                deleted.problem(409, "invalid_transition");
                assert!(!force, "a forced deletion is not refused");
                assert_eq!(after.ok()["status"], "completed", "a request to cancel does not undo the work");
                assert_eq!(completed.status, 200);
            }
            if completed.status == 200 {
                assert_eq!(completed.ok()["status"], "completed");
            } else {
                assert!(force && completed.status == 404, "only a forced deletion takes the task away");
            }
            match cancelled.status {
                200 => assert_eq!(cancelled.ok()["status"], "processing", "before the end, it is a request"),
                404 => {}
                _ => drop(cancelled.problem(409, "invalid_transition")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_cancel_and_delete_of_a_ready_task_exclude_each_other() {
    let server = TestServer::start().await;
    for _ in 0..20 {
        let task = server.create(json!({})).await;
        let one = format!("/tasks/{}", id(&task));
        let (claimed, cancelled, deleted) = tokio::join!(
            post(&server, &task, "claim", json!({"worker_id": "w1"})),
            post(&server, &task, "cancel", json!({})),
            server.delete(&one).send(),
        );
        let claimed = claimed.status == 200;
        let after = server.get(&one).send().await;
        if deleted.status == 204 {
            assert!(!claimed, "a task under a worker is not deleted, nor a deleted one claimed");
            after.problem(404, "task_not_found");
        } else {
            deleted.problem(409, "invalid_transition");
            assert!(claimed, "only a worker stands in the way of deletion");
            let after = after.ok();
            assert_eq!(after["status"], "processing");
            assert_eq!(after["cancel_requested_at"].is_string(), cancelled.status == 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_settlement_sent_many_times_at_once_is_one() {
    let server = TestServer::start().await;
    for verb in ["complete", "fail", "release", "cancel"] {
        let task = server.create(json!({})).await;
        let task = claim_one(&server, &task, json!({})).await;
        let more = match verb {
            "complete" => json!({"result": [1], "usage": {"tokens_used": 7, "credits_consumed": 0.5}}),
            "fail" => json!({"usage": {"tokens_used": 7, "credits_consumed": 0.5}}),
            _ => json!({}),
        };
        let calls = join_all((0..20).map(|_| settle(&server, &task, verb, more.clone()))).await;
        assert_eq!(count(&calls, 200), 20, "{verb}");
        let receipts: Vec<Value> = calls.into_iter().map(|answer| answer.ok()).collect();
        assert!(receipts.iter().all(|receipt| *receipt == receipts[0]), "{receipts:?}");

        let now = shown(&server, &task).await;
        assert_eq!(now["version"].as_u64(), task["version"].as_u64().map(|version| version + 1), "{verb}");
        if matches!(verb, "complete" | "fail") {
            assert_eq!(
                (&now["usage"]["tokens_used"], &now["usage"]["credits_consumed"]),
                (&json!(7), &json!(0.5))
            );
        }
        assert_eq!(executions(&server, &task).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_edits_that_expect_the_same_version_one_wins() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let one = format!("/tasks/{}", id(&task));
    for round in 1..=5 {
        let seen = server.get(&one).send().await;
        let tag = seen.headers["etag"].to_str().expect("a tag in ASCII").to_owned();
        let before = seen.ok();
        let edits = join_all((0..12).map(|n| {
            let body = json!({"name": format!("{round}-{n}")});
            server.put(&one).header("if-match", &tag).json(&body).send()
        }))
        .await;
        assert_eq!((count(&edits, 200), count(&edits, 412)), (1, 11));
        let mut names = Vec::new();
        for edit in edits {
            if edit.status == 200 {
                names.push(edit.ok()["name"].clone());
            } else {
                edit.problem(412, "version_conflict");
            }
        }
        let now = shown(&server, &task).await;
        assert_eq!(names, [now["name"].clone()]);
        assert_eq!(now["version"].as_u64(), before["version"].as_u64().map(|version| version + 1));
    }

    // Without it every edit is taken, one after the other.
    let before = shown(&server, &task).await;
    let edits = (0..12).map(|n| server.put(&one).json(&json!({"priority": n})).send());
    assert_eq!(count(&join_all(edits).await, 200), 12);
    let now = shown(&server, &task).await;
    assert_eq!(now["version"].as_u64(), before["version"].as_u64().map(|version| version + 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_starts_and_restarts_one_succeeds() {
    let server = TestServer::start().await;
    let task = server.create(json!({})).await;
    let start = json!({"status": "processing"});
    let starts = join_all((0..12).map(|_| put_status(&server, &task, start.clone()))).await;
    assert_eq!((count(&starts, 200), count(&starts, 409)), (1, 11), "one service begins the work");
    put_status(&server, &task, json!({"status": "completed"})).await.ok();

    let restarts = join_all((0..12).map(|_| post(&server, &task, "execute", json!({})))).await;
    assert_eq!((count(&restarts, 200), count(&restarts, 409)), (1, 11), "it becomes ready again once");
}
