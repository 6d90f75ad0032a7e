//! An undone claim leaves nothing behind, whatever happened to the task before.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use task_repo_protocol::{Execute, ProgressUpdate, Retry, SelfManagedStatus, TaskEdit, Uuid};

use super::{AttemptFailure, CheckpointChange, DEFAULT_MAX_LOSSES, Effect, Grant, Intent, apply};
use crate::task::{AttemptStatus, ErrorRecord, Status, TaskRecord, UsageRecord};

/// What may happen to a task.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim {
        with_id: bool,
    },
    Heartbeat {
        progress: bool,
    },
    Complete,
    Fail {
        never: bool,
    },
    Release {
        delay_seconds: Option<u32>,
    },
    Withdraw,
    /// The lease runs out, or the attempt.
    Expire {
        timeout: bool,
    },
    Promote,
    Cancel,
    Execute,
    EditTime {
        ahead: bool,
    },
    SelfManaged(SelfManagedStatus),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(|with_id| Step::Claim { with_id }),
        3 => any::<bool>().prop_map(|progress| Step::Heartbeat { progress }),
        1 => Just(Step::Complete),
        2 => any::<bool>().prop_map(|never| Step::Fail { never }),
        2 => prop::option::of(0..2_u32).prop_map(|delay_seconds| Step::Release { delay_seconds }),
        2 => Just(Step::Withdraw),
        4 => any::<bool>().prop_map(|timeout| Step::Expire { timeout }),
        4 => Just(Step::Promote),
        1 => Just(Step::Cancel),
        2 => Just(Step::Execute),
        1 => any::<bool>().prop_map(|ahead| Step::EditTime { ahead }),
        1 => prop_oneof![
            Just(SelfManagedStatus::Processing),
            Just(SelfManagedStatus::Completed),
            Just(SelfManagedStatus::Failed),
        ].prop_map(Step::SelfManaged),
    ]
}

fn grant(number: u128, with_id: bool) -> Grant {
    Grant {
        token: Uuid::from_u128(number),
        execution_id: Uuid::from_u128(number),
        worker_id: "w".to_owned(),
        lease_seconds: None,
        // Few ids, so that one comes back.
        claim_id: with_id.then(|| vec![(number % 11).to_le_bytes()[0]]),
    }
}

/// What the step asks of the task at that time, and when.
fn intent(step: Step, task: &TaskRecord, number: u128, now: DateTime<Utc>) -> (Intent, DateTime<Utc>) {
    // Without a lease, one that nobody was given.
    let token = task.lease.as_ref().map_or(Uuid::nil(), |lease| lease.token);
    let late = task.lost_token.unwrap_or(token);
    let usage = UsageRecord::default();
    let error = ErrorRecord { message: "it broke".to_owned(), code: None, details: None };
    let intent = match step {
        Step::Claim { with_id } => Intent::Claim(grant(number, with_id)),
        Step::Heartbeat { progress } => {
            let text = Some(number.to_string());
            let progress = progress.then_some(ProgressUpdate { value: Some(0.5), text });
            Intent::Heartbeat { token, lease_seconds: None, progress, checkpoint: CheckpointChange::None }
        }
        Step::Complete => Intent::Complete { token: late, result: None, result_id: None, usage },
        Step::Fail { never } => {
            let retry = if never { Retry::Never } else { Retry::Auto };
            let failure = AttemptFailure { error, retry, retry_after_seconds: Some(0), jitter: 0.0 };
            Intent::Fail { token, failure, usage, checkpoint: CheckpointChange::None }
        }
        Step::Release { delay_seconds } => {
            Intent::Release { token, delay_seconds, checkpoint: CheckpointChange::None }
        }
        Step::Withdraw => Intent::Withdraw { token },
        Step::Expire { timeout } => {
            let at = if timeout { task.timeout_at } else { task.lease_until };
            return (
                Intent::Expire { jitter: 0.0, max_losses: DEFAULT_MAX_LOSSES },
                at.unwrap_or(now).max(now),
            );
        }
        Step::Promote => return (Intent::Promote, task.run_at.unwrap_or(now).max(now)),
        Step::Cancel => Intent::Cancel,
        Step::Execute => Intent::Execute(Box::<Execute>::default()),
        Step::EditTime { ahead } => {
            let run_at = ahead.then(|| now + TimeDelta::seconds(60));
            let edit = TaskEdit { run_at: Some(run_at), ..TaskEdit::default() };
            Intent::Edit { edit: Box::new(edit), defaults: Box::new(task.limits()), if_match: None }
        }
        Step::SelfManaged(status) => Intent::SelfManaged {
            status,
            result: None,
            result_id: None,
            error_message: None,
            execution_id: Uuid::from_u128(number),
            if_match: None,
        },
    };
    (intent, now)
}

/// Makes the step if the task allows it; says when it was.
fn step(task: &mut TaskRecord, step: Step, number: u128, now: DateTime<Utc>) -> DateTime<Utc> {
    let now = now + TimeDelta::milliseconds(1);
    let mut trial = task.clone();
    let (intent, at) = intent(step, task, number, now);
    if apply(&mut trial, &intent, at) == Ok(Effect::Changed) {
        *task = trial;
        return at;
    }
    now
}

/// All of the task but what every write changes, and but the claims that were undone.
fn but_for_the_writes(task: &TaskRecord) -> String {
    let (mut attempts, created_at) = (task.attempts.clone(), task.created_at);
    attempts.retain(|attempt| attempt.status != AttemptStatus::Withdrawn);
    let rest =
        TaskRecord { version: 0, stamp: 0, updated_at: created_at, moved: None, attempts, ..task.clone() };
    format!("{rest:#?}")
}

/// Claims the task and undoes that.
fn claim_and_undo(task: &TaskRecord, number: u128, now: DateTime<Utc>) -> TaskRecord {
    let mut undone = task.clone();
    let grant = grant(number, true);
    let token = grant.token;
    assert_eq!(apply(&mut undone, &Intent::Claim(grant), now), Ok(Effect::Changed));
    assert_eq!(apply(&mut undone, &Intent::Withdraw { token }, now), Ok(Effect::Changed));
    undone
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_undone_claim_leaves_the_task_as_it_was(
        released in prop_oneof![3 => Just(0_u32), 1 => 97..104_u32],
        steps in prop::collection::vec(steps(), 0..40),
    ) {
        let mut now = Utc::now();
        let mut task = TaskRecord { max_attempts: 50, ..TaskRecord::pending(Uuid::from_u128(1)) };
        let mut number = 1_u128;
        // A long history.
        for _ in 0..released {
            number += 1;
            now = step(&mut task, Step::Claim { with_id: true }, number, now);
            now = step(&mut task, Step::Release { delay_seconds: Some(0) }, number, now);
        }
        for it in steps {
            number += 1;
            now = step(&mut task, it, number, now);
            if task.status == Status::Pending {
                number += 1;
                let undone = claim_and_undo(&task, number, now);
                prop_assert_eq!(but_for_the_writes(&undone), but_for_the_writes(&task), "after {:?}", it);
                // And once more, as a task that more than one caller has left.
                number += 1;
                let again = claim_and_undo(&undone, number, now);
                prop_assert_eq!(but_for_the_writes(&again), but_for_the_writes(&task), "twice, after {:?}", it);
            }
        }
    }
}

#[test]
fn a_task_that_was_cancelled_meanwhile_takes_nothing_late() {
    let now = Utc::now();
    let mut task = TaskRecord::pending(Uuid::from_u128(1));
    let mut done =
        |intent: &Intent, at| assert_eq!(apply(&mut task, intent, at), Ok(Effect::Changed), "{intent:?}");
    done(&Intent::Claim(grant(2, true)), now);
    let ran_out = now + TimeDelta::seconds(61);
    done(&Intent::Expire { jitter: 0.0, max_losses: DEFAULT_MAX_LOSSES }, ran_out);
    done(&Intent::Claim(grant(3, true)), ran_out);
    done(&Intent::Cancel, ran_out);
    done(&Intent::Withdraw { token: Uuid::from_u128(3) }, ran_out);
    assert_eq!((task.status, task.lost_token), (Status::Cancelled, None));
    let execute = Intent::Execute(Box::default());
    assert_eq!(apply(&mut task, &execute, ran_out), Ok(Effect::Changed));
    let usage = UsageRecord::default();
    let late = Intent::Complete { token: Uuid::from_u128(2), result: None, result_id: None, usage };
    assert!(apply(&mut task, &late, ran_out).is_err(), "it was executed anew since");
}

#[test]
fn a_lease_of_a_server_that_notes_nothing_displaced_is_undone_as_far_as_it_can_be() {
    let now = Utc::now();
    let mut task = TaskRecord::pending(Uuid::from_u128(1));
    let done = |task: &mut TaskRecord, intent: &Intent, at| {
        assert_eq!(apply(task, intent, at), Ok(Effect::Changed), "{intent:?}");
    };
    done(&mut task, &Intent::Claim(grant(2, true)), now);
    let ran_out = now + TimeDelta::seconds(61);
    done(&mut task, &Intent::Expire { jitter: 0.0, max_losses: DEFAULT_MAX_LOSSES }, ran_out);
    done(&mut task, &Intent::Claim(grant(3, true)), ran_out);
    task.lease.as_mut().expect("it is held").before = None;
    done(&mut task, &Intent::Withdraw { token: Uuid::from_u128(3) }, ran_out);
    assert_eq!((task.status, task.attempt, task.started_at), (Status::Pending, 1, Some(now)));
    assert_eq!((task.lost_token, task.executed, task.progress.is_some()), (None, false, false));
}
