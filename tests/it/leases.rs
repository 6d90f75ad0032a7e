//! Leases that run out: what becomes of the task, and what its worker may still say.

use futures_util::future::join;
use serde_json::{Value, json};
use task_repo_tests::{TestServer, id_of, unique_type};

use crate::verbs::{
    assert_in_seconds, assert_lease_lost, assert_receipt, assert_seconds_after, claim, claim_one,
    create_many, executions, id, ids, pass_until_status, post, queue, settle, shown, tasks, time, token,
};

/// A fresh task, held by a lease of one second.
async fn held_briefly(server: &TestServer, task: Value) -> Value {
    let task = server.create(task).await;
    claim_one(server, &task, json!({"lease_seconds": 1})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_runs_out_gives_the_task_back() {
    let server = TestServer::start().await;
    let held = held_briefly(&server, json!({})).await;
    let back = pass_until_status(&server, &held, "pending").await;
    assert_eq!((&back["losses"], &back["attempt"]), (&json!(1), &json!(1)), "the attempt counts");
    assert_eq!((&back["lease"], &back["reason"]), (&Value::Null, &Value::Null));
    assert_eq!(back["version"].as_u64(), held["version"].as_u64().map(|version| version + 1));
    assert!(time(&back["updated_at"]) >= time(&held["lease"]["expires_at"]), "not before it ran out: {back}");
    assert_eq!(executions(&server, &held).await[0]["status"], "lost");

    let again = server.claim(queue(&held)).await;
    assert_eq!((&again["id"], &again["attempt"], &again["losses"]), (&held["id"], &json!(2), &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_too_often_has_failed() {
    let server = TestServer::start().await;
    let thrice = async {
        let task = server.create(json!({"max_attempts": 10, "lease_seconds": 1})).await;
        for losses in 0..3 {
            let again =
                server.while_time_passes(claim(&server, queue(&task), json!({"wait_ms": 20_000}))).await;
            assert_eq!(tasks(&again)[0]["losses"], losses);
        }
        pass_until_status(&server, &task, "failed").await
    };
    let on_the_last_attempt = async {
        let held = held_briefly(&server, json!({"max_attempts": 1})).await;
        pass_until_status(&server, &held, "failed").await
    };
    // Failures in between do not make losses fewer.
    let mixed = async {
        let task = server.create(json!({"max_attempts": 10, "lease_seconds": 1})).await;
        for _ in 0..2 {
            claim_one(&server, &task, json!({})).await;
            pass_until_status(&server, &task, "pending").await;
        }
        let held = claim_one(&server, &task, json!({"lease_seconds": 60})).await;
        settle(&server, &held, "fail", json!({})).await.ok();
        post(&server, &task, "execute", json!({})).await.ok();
        claim_one(&server, &task, json!({})).await;
        pass_until_status(&server, &task, "failed").await
    };
    let (thrice, last, mixed) = tokio::join!(thrice, on_the_last_attempt, mixed);
    for (failed, losses, attempt) in [(&thrice, 3, 3), (&last, 1, 1), (&mixed, 3, 4)] {
        assert_eq!(failed["reason"], "lost", "{failed}");
        assert_eq!((&failed["losses"], &failed["attempt"]), (&json!(losses), &json!(attempt)));
        assert!(failed["completed_at"].is_string());
        assert_eq!(failed["lease"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_work_is_not_thrown_away_while_nobody_else_has_begun() {
    let server = TestServer::start().await;
    let held = held_briefly(&server, json!({})).await;
    pass_until_status(&server, &held, "pending").await;

    // Everything but `complete` comes too late.
    let back = shown(&server, &held).await;
    for verb in ["fail", "release", "cancel", "heartbeat"] {
        assert_lease_lost(&settle(&server, &held, verb, json!({})).await, &back);
        assert_eq!(shown(&server, &held).await, back, "{verb}");
    }
    let work = json!({"result": {"late": true}, "result_id": "r-1", "usage": {"tokens_used": 3}});
    let receipt = settle(&server, &held, "complete", work.clone()).await.ok();
    let done = shown(&server, &held).await;
    assert_receipt(&receipt, &done);
    assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &json!({"late": true})));
    assert_eq!((&done["attempt"], &done["usage"]["tokens_used"]), (&json!(1), &json!(3)));
    assert_eq!(settle(&server, &held, "complete", work).await.ok(), receipt, "and again");
    assert_eq!(tasks(&claim(&server, queue(&held), json!({})).await).len(), 0, "nobody does it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_replaced_has_no_say() {
    let server = TestServer::start().await;
    let first = held_briefly(&server, json!({"max_attempts": 9})).await;
    pass_until_status(&server, &first, "pending").await;
    let second = claim_one(&server, &first, json!({"worker_id": "w2", "lease_seconds": 2})).await;
    assert_eq!(second["attempt"], 2);
    for verb in ["complete", "fail", "release", "cancel", "heartbeat"] {
        let problem = settle(&server, &first, verb, json!({})).await.problem(409, "lease_lost");
        assert_eq!(problem["attempt"], 2, "{verb} is told which attempt holds the task");
    }

    // Not even once the second lease has run out too: only the latest worker may come late.
    let back = pass_until_status(&server, &first, "pending").await;
    assert_lease_lost(&settle(&server, &first, "complete", json!({})).await, &back);
    assert_eq!(settle(&server, &second, "complete", json!({})).await.ok()["status"], "completed");
    let done = shown(&server, &first).await;
    assert_lease_lost(&settle(&server, &first, "complete", json!({})).await, &done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_its_worker_gave_up_is_spent() {
    let server = TestServer::start().await;
    for (verb, more) in [
        ("release", json!({})),
        ("release", json!({"delay_seconds": 60})),
        ("fail", json!({})),
        ("fail", json!({"retry_after_seconds": 0})),
        ("fail", json!({"retry": "never"})),
    ] {
        let task = server.create(json!({})).await;
        let held = claim_one(&server, &task, json!({})).await;
        settle(&server, &held, verb, more.clone()).await.ok();
        let late = settle(&server, &held, "complete", json!({"result": 1})).await;
        late.problem(409, "lease_lost");
        assert_eq!(shown(&server, &task).await["result"], Value::Null, "{verb} {more}, then complete");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_is_final_also_for_work_that_comes_late() {
    let server = TestServer::start().await;
    let lost = held_briefly(&server, json!({"max_attempts": 1})).await;
    let cancelled = held_briefly(&server, json!({})).await;
    let executed = held_briefly(&server, json!({"max_attempts": 1})).await;
    pass_until_status(&server, &cancelled, "pending").await;
    post(&server, &cancelled, "cancel", json!({})).await.ok();
    pass_until_status(&server, &lost, "failed").await;
    pass_until_status(&server, &executed, "failed").await;
    for task in [&lost, &cancelled, &executed] {
        let before = shown(&server, task).await;
        assert_lease_lost(&settle(&server, task, "complete", json!({})).await, &before);
        assert_eq!(shown(&server, task).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_ends_with_its_timeout() {
    let server = TestServer::start().await;
    let retry = json!({"backoff": "fixed", "base_seconds": 3600, "jitter": 0});
    let task = server.create(json!({"timeout_seconds": 1, "max_attempts": 2, "retry": retry})).await;
    // When lease and timeout run out together, the timeout goes first.
    let first = claim_one(&server, &task, json!({"lease_seconds": 1})).await;
    let put_off = pass_until_status(&server, &task, "scheduled").await;
    assert_eq!((&put_off["reason"], &put_off["error"]["code"]), (&json!("retry"), &json!("timeout")));
    assert_eq!((&put_off["losses"], &put_off["attempt"]), (&json!(0), &json!(1)), "it is no loss");
    assert_in_seconds(&put_off["run_at"], 3600);
    assert_lease_lost(&settle(&server, &first, "heartbeat", json!({})).await, &put_off);
    assert_lease_lost(&settle(&server, &first, "fail", json!({})).await, &put_off);

    post(&server, &task, "execute", json!({})).await.ok();
    let second = claim_one(&server, &task, json!({"lease_seconds": 60})).await;
    assert_seconds_after(&second["lease"]["expires_at"], time(&second["started_at"]), 1);
    let failed = pass_until_status(&server, &task, "failed").await;
    assert_eq!((&failed["reason"], &failed["error"]["code"]), (&json!("timeout"), &json!("timeout")));
    assert_eq!((&failed["losses"], &failed["attempt"]), (&json!(0), &json!(2)));
    assert!(failed["completed_at"].is_string());
    assert_lease_lost(&settle(&server, &second, "complete", json!({})).await, &failed);
    let ends = executions(&server, &task).await;
    assert!(ends.iter().all(|execution| execution["status"] == "timeout"), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_lease_lasts() {
    let server = TestServer::start().await;
    for (task, claim, seconds) in [
        (json!({}), json!({}), 60),
        (json!({"lease_seconds": 200}), json!({}), 200),
        (json!({"lease_seconds": 200}), json!({"lease_seconds": 120}), 120),
        (json!({}), json!({"lease_seconds": 120}), 120),
        (json!({}), json!({"lease_seconds": 86_400}), 300),
        (json!({"timeout_seconds": 100, "lease_seconds": 200}), json!({}), 100),
        (json!({"timeout_seconds": 604_800}), json!({"lease_seconds": 86_400}), 86_400),
    ] {
        let by_id = server.create(task.clone()).await;
        let by_id = claim_one(&server, &by_id, claim.clone()).await;
        let by_type = server.create(task.clone()).await;
        let by_type = self::claim(&server, queue(&by_type), claim.clone()).await;
        for held in [&by_id, &tasks(&by_type)[0]] {
            assert_seconds_after(&held["lease"]["expires_at"], time(&held["started_at"]), seconds);
        }
        assert_eq!(shown(&server, &by_id).await["lease"]["expires_at"], by_id["lease"]["expires_at"]);
        assert_eq!(id_of(&by_id), id_of(&shown(&server, &by_id).await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_lost_a_worker_is_handed_out_alone() {
    let server = TestServer::start().await;
    let queue = unique_type();
    let suspect = server.create(json!({"task_type": queue, "lease_seconds": 1})).await;
    claim(&server, &queue, json!({})).await;
    pass_until_status(&server, &suspect, "pending").await;
    let others = create_many(&server, 3, |_| json!({"task_type": queue})).await;
    let mut answers = Vec::new();
    while answers.iter().map(Vec::len).sum::<usize>() < 4 {
        let claimed = claim(&server, &queue, json!({"limit": 10})).await;
        answers.push(tasks(&claimed).clone());
    }
    // It comes first, by its age; the others do not have to wait for it to be settled.
    let held: Vec<Vec<_>> = answers.iter().map(|answer| answer.iter().map(id).collect()).collect();
    assert_eq!(held, [vec![id(&suspect)], others.iter().map(id).collect()]);
    assert_eq!((&answers[0][0]["losses"], &answers[1][0]["losses"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_lost_a_worker_are_alone_in_every_answer() {
    let server = TestServer::start().await;
    let sibling = server.sibling().await;
    let queue = unique_type();
    let suspects = create_many(&server, 3, |_| json!({"task_type": queue})).await;
    let briefly = claim(&server, &queue, json!({"limit": 3, "lease_seconds": 1})).await;
    assert_eq!(tasks(&briefly).len(), 3);
    // They wait for what is held, on two servers, and have room for all of it.
    let greedy = json!({"limit": 10, "wait_ms": 20_000});
    let (first, second) = server
        .while_time_passes(join(claim(&server, &queue, greedy.clone()), claim(&sibling, &queue, greedy)))
        .await;
    let others = create_many(&server, 2, |_| json!({"task_type": queue})).await;
    let outcomes = json!({
        "outcomes": [{"id": id(&tasks(&first)[0]), "lease_token": token(&tasks(&first)[0]), "outcome": "completed"}],
        "claim": {"task_types": [queue], "worker_id": "w1", "limit": 10, "wait_ms": 20_000},
    });
    let third = server.post("/tasks/outcomes").json(&outcomes).send().await.ok();
    let mut alone = [ids(&first), ids(&second), ids(&third)];
    alone.sort();
    assert_eq!(alone.to_vec(), suspects.iter().map(|task| vec![id(task)]).collect::<Vec<_>>());
    let rest = claim(&server, &queue, json!({"limit": 10})).await;
    assert_eq!(ids(&rest), others.iter().map(id).collect::<Vec<_>>());
    sibling.stop().await;
}
