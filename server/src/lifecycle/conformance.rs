//! The rules here and those of `model/`, which is checked in every order of steps, are the same: every call is made of
//! both, in every state that the model's task can come to.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use task_repo_model::Bounds;
use task_repo_model::document::{
    ClaimId, Document, MAX_CLAIMS, Receipt, Ruling, Status, TaskIntent, Token, Verb,
};
use task_repo_protocol::{Receipt as Answered, Retry, Status as Wire, Uuid};

use super::{AttemptFailure, CheckpointChange, DEFAULT_MAX_LOSSES, Effect, Grant, Intent, apply};
use crate::task::{ErrorRecord, Status as Stored, TaskRecord, UsageRecord};

/// As many claims as the model has room for.
const BOUNDS: Bounds = Bounds {
    tasks: 1,
    workers: 1,
    servers: 1,
    max_attempts: 1,
    max_losses: 3,
    releases: MAX_CLAIMS,
    heartbeats: true,
    late_requests: true,
    withdrawals: Some(MAX_CLAIMS),
};

fn uuid(token: Token) -> Uuid {
    Uuid::from_u128(u128::from(token) + 1)
}

fn grant(token: usize) -> Grant {
    let token = Token::try_from(token).expect("few claims");
    let (execution_id, worker_id) = (uuid(token), "w".to_owned());
    Grant { token: uuid(token), execution_id, worker_id, lease_seconds: None, claim_id: Some(vec![token]) }
}

/// The next attempt may follow at once.
fn failure() -> AttemptFailure {
    let error = ErrorRecord { message: "it broke".to_owned(), code: None, details: None };
    AttemptFailure { error, retry: Retry::Auto, retry_after_seconds: Some(0), jitter: 0.0 }
}

fn intent(call: TaskIntent, document: &Document) -> Intent {
    let usage = UsageRecord::default();
    match call {
        TaskIntent::Claim(_) => Intent::Claim(grant(document.claims())),
        TaskIntent::Repeat(token) => Intent::Repeat { token: uuid(token) },
        TaskIntent::Withdraw(token) => Intent::Withdraw { token: uuid(token) },
        TaskIntent::Heartbeat(token) => Intent::Heartbeat {
            token: uuid(token),
            lease_seconds: None,
            progress: None,
            checkpoint: CheckpointChange::None,
        },
        TaskIntent::Expire => Intent::Expire { jitter: 0.0, max_losses: DEFAULT_MAX_LOSSES },
        TaskIntent::Settle(token, Verb::Complete) => {
            Intent::Complete { token: uuid(token), result: None, result_id: None, usage }
        }
        TaskIntent::Settle(token, Verb::Fail) => {
            Intent::Fail { token: uuid(token), failure: failure(), usage, checkpoint: CheckpointChange::None }
        }
        TaskIntent::Settle(token, Verb::Release) => {
            Intent::Release { token: uuid(token), delay_seconds: None, checkpoint: CheckpointChange::None }
        }
    }
}

/// The model knows no wait before a retry or after a release.
fn status(answered: Wire) -> Status {
    match answered {
        Wire::Pending | Wire::Scheduled => Status::Pending,
        Wire::Processing => Status::Processing,
        Wire::Completed => Status::Completed,
        Wire::Failed => Status::Failed,
        Wire::Cancelled | Wire::Other(_) => unreachable!("nobody cancels here"),
    }
}

fn receipt(answered: &Answered) -> Receipt {
    let version = u8::try_from(answered.version).expect("few changes");
    let attempt = u8::try_from(answered.attempt).expect("few attempts");
    Receipt { status: status(answered.status), attempt, version }
}

/// What the call comes to here. What is due is promoted at once, which is no change in the model.
fn ruled(task: &mut TaskRecord, intent: &Intent, now: DateTime<Utc>) -> Ruling {
    // A lease runs out when the model says so.
    let now = if matches!(intent, Intent::Expire { .. }) { task.lease_until.unwrap_or(now) } else { now };
    let before = task.clone();
    match apply(task, intent, now) {
        Err(_) => {
            *task = before;
            Ruling::Refuse
        }
        Ok(Effect::Repeated(answered)) => Ruling::Repeat(receipt(&answered)),
        // Kept from landing if it has not yet: nothing lands late here.
        Ok(Effect::Fenced) => Ruling::Refuse,
        Ok(Effect::Changed) => {
            if task.status == Stored::Scheduled {
                let (version, due) = (task.version, task.run_at.unwrap_or(now));
                assert_eq!(apply(task, &Intent::Promote, due), Ok(Effect::Changed));
                task.version = version;
            }
            Ruling::Change
        }
    }
}

fn assert_same(task: &TaskRecord, document: &Document, call: TaskIntent) {
    let lease = task.lease.as_ref();
    let here = (
        receipt(&task.receipt()),
        task.losses,
        lease.map(|lease| lease.token),
        lease.is_some_and(|lease| lease.repeated),
        task.lost_token,
        task.claim_ids.clone(),
    );
    let known = (0..).zip(document.claim_ids).filter(|(_, id)| id.is_some());
    let there = (
        document.receipt(),
        u32::from(document.losses),
        document.token.map(uuid),
        document.is_kept,
        document.lost_token.map(uuid),
        known.map(|(token, _)| vec![token]).collect::<Vec<_>>(),
    );
    assert_eq!(here, there, "after {call:?}");
}

fn calls(document: &Document) -> impl Iterator<Item = TaskIntent> {
    let wish = u8::try_from(document.claims()).expect("few claims");
    let claim = (document.claims() < MAX_CLAIMS).then_some(TaskIntent::Claim(ClaimId { worker: 0, wish }));
    let by_token = |token| {
        let settle = [Verb::Complete, Verb::Fail, Verb::Release].map(|verb| TaskIntent::Settle(token, verb));
        [TaskIntent::Heartbeat(token), TaskIntent::Repeat(token), TaskIntent::Withdraw(token)]
            .into_iter()
            .chain(settle)
    };
    [TaskIntent::Expire].into_iter().chain(claim).chain((0..4).flat_map(by_token))
}

/// Says how many states there were.
fn compare(bounds: &Bounds) -> usize {
    let now = Utc::now();
    let mut first = TaskRecord::pending(Uuid::now_v7());
    first.max_attempts = bounds.max_attempts.into();
    let mut seen = HashSet::from([Document::new()]);
    let mut left = vec![(Document::new(), first)];
    while let Some((document, task)) = left.pop() {
        for call in calls(&document) {
            let mut task = task.clone();
            let verdict = ruled(&mut task, &intent(call, &document), now);
            let expected = document.rule(call, None);
            assert_eq!(verdict, expected, "{call:?} of {document:?}");
            let changes = expected == Ruling::Change;
            let document = if changes { document.after(call, bounds, None) } else { document };
            assert_same(&task, &document, call);
            if seen.insert(document) {
                left.push((document, task));
            }
        }
    }
    seen.len()
}

#[test]
fn the_model_has_the_same_rules() {
    for max_attempts in 1..=4 {
        let states = compare(&Bounds { max_attempts, ..BOUNDS });
        assert!(states > 100, "only {states} states");
    }
}
