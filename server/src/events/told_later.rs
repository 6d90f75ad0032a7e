//! What is told of a move when its task has gone on since.

use std::sync::Arc;

use chrono::TimeDelta;
use task_repo_protocol::{Retry, Uuid};

use super::TaskEvent;
use crate::lifecycle::{
    self, AttemptFailure, CheckpointChange, DEFAULT_MAX_LOSSES, Grant, Intent, Verb, move_of,
};
use crate::task::{AttemptStatus, ErrorRecord, Reason, Step, TaskMove, TaskRecord, UsageRecord};

/// Applies these intents, ten seconds between two, and says what is told of each at its commit and, of each, what is told
/// when the task has gone on to the end.
fn told(intents: &[Intent]) -> Vec<(TaskMove, TaskMove)> {
    let mut task = TaskRecord::pending(Uuid::from_u128(1));
    let (mut now, mut at_once, mut steps) = (task.created_at, Vec::new(), Vec::new());
    for intent in intents {
        now += TimeDelta::seconds(10);
        let (from, version) = (task.status, task.version);
        lifecycle::apply(&mut task, intent, now).expect("the table lists it");
        let moves = [move_of(from, version, intent, &task).expect("a version")];
        let event = TaskEvent { before: Some(from), moves: &moves, task: &Arc::new(task.clone()) };
        at_once.extend(event.told());
        steps.push(Step {
            version: task.version,
            at: now,
            verb: intent.verb().told(),
            from: Some(from),
            to: task.status,
            reason: task.reason,
            run_at: None,
            fields: Vec::new(),
        });
    }
    let later = steps.into_iter().map(|step| TaskMove::of(&task, step));
    at_once.into_iter().zip(later).collect()
}

fn claim(token: u128) -> Intent {
    Intent::Claim(Grant {
        token: Uuid::from_u128(token),
        execution_id: Uuid::from_u128(token),
        worker_id: format!("w{token}"),
        lease_seconds: None,
        claim_id: None,
    })
}

fn fail(token: u128) -> Intent {
    let error = ErrorRecord { message: "é".repeat(2000), code: Some("c".repeat(200)), details: None };
    let failure = AttemptFailure { error, retry: Retry::Auto, retry_after_seconds: None, jitter: 0.0 };
    Intent::Fail {
        token: Uuid::from_u128(token),
        failure,
        usage: UsageRecord::default(),
        checkpoint: CheckpointChange::None,
    }
}

#[test]
fn a_later_state_does_not_hide_an_earlier_move() {
    let complete = Intent::Complete {
        token: Uuid::from_u128(8),
        result: None,
        result_id: Some("r".to_owned()),
        usage: UsageRecord { credits_consumed: 2.5, ..UsageRecord::default() },
    };
    let told = told(&[claim(7), fail(7), Intent::Promote, claim(8), complete]);
    for (at_once, later) in &told {
        // How long the first attempt had waited cannot be told any more when the task has been ready again.
        let mut expected = at_once.clone();
        if let (Some(end), Some(later)) = (&mut expected.end, &later.end) {
            end.waited_ms = later.waited_ms;
        }
        assert_eq!(&expected, later);
    }
    let [started, failed, .., completed] = &told[..] else { panic!("five moves") };
    let start = started.1.start.as_ref().expect("a start");
    assert_eq!((start.attempt, start.worker_id.as_deref()), (1, Some("w7")));
    let end = failed.1.end.as_ref().expect("an end");
    assert_eq!((end.attempt, end.status, end.late), (1, AttemptStatus::Failed, false));
    assert_eq!(failed.0.end.as_ref().expect("an end").waited_ms, Some(10_000));
    let error = end.error.as_ref().expect("an error");
    assert_eq!((error.message.chars().count(), error.code.as_ref().map(String::len)), (1024, Some(128)));
    assert_eq!((failed.1.reason, failed.1.run_at.is_some()), (Some(Reason::Retry), true));
    let end = completed.1.end.as_ref().expect("an end");
    assert_eq!((end.usage.map(|usage| usage.credits_consumed), end.waited_ms), (Some(2.5), Some(10_000)));
    assert_eq!(completed.1.result_id.as_deref(), Some("r"));
}

#[test]
fn an_attempt_that_was_lost_and_completed_late_is_told_of_twice() {
    let complete = Intent::Complete {
        token: Uuid::from_u128(7),
        result: None,
        result_id: None,
        usage: UsageRecord::default(),
    };
    let mut task = TaskRecord::pending(Uuid::from_u128(1));
    let begin = task.created_at;
    for (intent, at) in [
        (claim(7), 1),
        (Intent::Expire { jitter: 0.0, max_losses: DEFAULT_MAX_LOSSES }, 100),
        (complete, 101),
    ] {
        lifecycle::apply(&mut task, &intent, begin + TimeDelta::seconds(at)).expect("the table lists it");
    }
    let end = |version| {
        let step = Step {
            version,
            at: begin,
            verb: Verb::Complete.told(),
            from: None,
            to: task.status,
            reason: None,
            run_at: None,
            fields: Vec::new(),
        };
        let end = TaskMove::of(&task, step).end.expect("an end");
        (end.status, end.late)
    };
    assert_eq!([end(3), end(4)], [(AttemptStatus::Lost, false), (AttemptStatus::Completed, true)]);
}
