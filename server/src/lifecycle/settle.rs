//! How a worker's report changes a task: heartbeat, completion, failure, release, and the withdrawal of a claim.
//!
//! A token is good for one settlement. The same settlement again gets the same receipt; another one has lost the lease. A
//! lease that ran out still allows `complete`, while no worker has claimed the task since and it is not final, because
//! finished work is not thrown away.

use task_repo_protocol::SelfManagedStatus;
use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_protocol::{ProgressUpdate, Retry, Uuid};

use super::attempt::{end_attempt, finish, lease_end};
use super::{AttemptFailure, Effect, Now, Refusal, Verb, backoff, rest_seconds};
use crate::fault_injection::{self, InjectedFault};
use crate::task::{
    AttemptRecord, AttemptStatus, BeforeClaimRecord, ErrorRecord, Kept, ProgressRecord, Reason, Status,
    TaskRecord, UsageRecord,
};
use chrono::TimeDelta;

/// Whether `token` holds the task. If it settled it the same way before: what was answered then.
pub(super) fn recall(task: &TaskRecord, token: Uuid, verb: Verb) -> Result<Option<Effect>, Refusal> {
    let holds =
        task.status == Status::Processing && task.lease.as_ref().is_some_and(|lease| lease.token == token);
    if holds || (fault_injection::is_injected(InjectedFault::AnyToken) && task.status == Status::Processing) {
        return Ok(None);
    }
    let attempt = task.attempts.iter().rev().find(|attempt| attempt.token == Some(token));
    let ended = attempt.and_then(|attempt| attempt.ended());
    let lost = Refusal::LeaseLost { status: task.status, attempt: task.attempt, ended };
    let Some(attempt) = attempt else { return Err(lost) };
    match (attempt.receipt.as_deref(), settled_by(attempt.status)) {
        (Some(receipt), Some(before)) if before == verb => {
            Ok(Some(Effect::Repeated(receipt.for_task(task.id))))
        }
        (None, _) if verb == Verb::Complete && task.lost_token == Some(token) && !task.status.is_final() => {
            Ok(None)
        }
        _ => Err(lost),
    }
}

/// Whether the claim's write may still be in flight: the task is `pending`, and no attempt has this token.
pub(super) fn may_be_in_flight(task: &TaskRecord, token: Uuid) -> bool {
    task.status == Status::Pending && !task.attempts.iter().any(|attempt| attempt.token == Some(token))
}

/// The verb that ends an attempt in that status.
fn settled_by(status: AttemptStatus) -> Option<Verb> {
    match status {
        AttemptStatus::Completed => Some(Verb::Complete),
        AttemptStatus::Failed => Some(Verb::Fail),
        AttemptStatus::Released => Some(Verb::Release),
        AttemptStatus::Cancelled => Some(Verb::AcknowledgeCancel),
        AttemptStatus::Processing
        | AttemptStatus::Lost
        | AttemptStatus::Timeout
        | AttemptStatus::Withdrawn
        | AttemptStatus::Other(_) => None,
    }
}

pub(super) fn heartbeat(
    task: &mut TaskRecord,
    seconds: Option<u32>,
    update: Option<&ProgressUpdate>,
    now: Now,
) {
    if let Some(lease) = &mut task.lease {
        lease.seconds = seconds.unwrap_or(lease.seconds);
        let seconds = lease.seconds;
        task.lease_until = Some(lease_end(task, seconds, now));
    }
    if let Some(update) = update {
        let mut progress = task.progress.take().unwrap_or_else(|| ProgressRecord::default().into());
        progress.value = update.value.or(progress.value);
        if let Some(text) = &update.text {
            progress.text = Some(text.clone());
        }
        task.progress = Some(progress);
    }
}

/// The result of an attempt: JSON text, and where it is kept if elsewhere.
type Work<'a> = (Option<&'a String>, Option<&'a String>);

pub(super) fn complete(
    task: &mut TaskRecord,
    token: Uuid,
    work: Work<'_>,
    usage: UsageRecord,
    now: Now,
) -> Result<(), Refusal> {
    keep(task, work)?;
    if task.lost_token == Some(token) {
        // The lease ran out and its attempt was written off; it counts after all.
        let version = task.version + 1;
        if let Some(attempt) = task.attempts.iter_mut().rev().find(|attempt| attempt.token == Some(token)) {
            attempt.status = AttemptStatus::Completed;
            attempt.lost_at = attempt.ended_at.replace(now);
            attempt.lost_version = attempt.ended_version.replace(version);
            attempt.led_to = None;
            attempt.result_id = work.1.cloned();
            attempt.error = None;
            attempt.truncated = false;
            attempt.usage = Some(usage.into());
        }
    } else if let Some(attempt) = end_attempt(task, AttemptStatus::Completed, now) {
        attempt.result_id = work.1.cloned();
        attempt.usage = Some(usage.into());
    }
    add_usage(task, usage);
    task.error = None;
    finish(task, Status::Completed, None, now);
    Ok(())
}

fn add_usage(task: &mut TaskRecord, usage: UsageRecord) {
    *task.usage = task.usage.plus(usage);
}

fn keep(task: &mut TaskRecord, (result, result_id): Work<'_>) -> Result<(), Refusal> {
    if let Some(result) = result {
        if task.input_bytes as usize + result.len() > MAX_TASK_BYTES {
            return Err(Refusal::TooLarge);
        }
        task.result = Some(result.clone());
    }
    if let Some(result_id) = result_id {
        task.result_id = Some(result_id.clone());
    }
    Ok(())
}

pub(super) fn fail(task: &mut TaskRecord, failure: &AttemptFailure, usage: UsageRecord, now: Now) {
    if let Some(attempt) = end_attempt(task, AttemptStatus::Failed, now) {
        attempt.error = Some(failure.error.clone().into());
        attempt.usage = Some(usage.into());
    }
    add_usage(task, usage);
    follow_up(task, failure, Reason::Exhausted, now);
}

/// After a failed attempt: cancelled if that was asked for, else another attempt, else failed.
pub(super) fn follow_up(task: &mut TaskRecord, failure: &AttemptFailure, when_last: Reason, now: Now) {
    task.error = Some(failure.error.clone().into());
    if task.cancel_requested_at.is_some() {
        finish(task, Status::Cancelled, None, now);
    } else if failure.retry == Retry::Never {
        finish(task, Status::Failed, Some(Reason::Error), now);
    } else if task.attempt >= task.max_attempts {
        finish(task, Status::Failed, Some(when_last), now);
    } else {
        let wait = failure.retry_after_seconds.map_or_else(
            || backoff(&task.retry, task.attempt, failure.jitter),
            |seconds| TimeDelta::seconds(i64::from(seconds)),
        );
        task.status = Status::Scheduled;
        task.reason = Some(Reason::Retry);
        task.run_at = Some(now + wait);
    }
}

pub(super) fn release(task: &mut TaskRecord, delay_seconds: Option<u32>, now: Now) {
    let releases = task.releases.saturating_add(1);
    give_back(task, delay_seconds.unwrap_or_else(|| rest_seconds(releases)), now);
    task.releases = releases;
}

fn give_back(task: &mut TaskRecord, delay_seconds: u32, now: Now) {
    end_attempt(task, AttemptStatus::Released, now);
    task.attempt = task.attempt.saturating_sub(1);
    if task.cancel_requested_at.is_some() {
        finish(task, Status::Cancelled, None, now);
    } else if delay_seconds > 0 {
        task.status = Status::Scheduled;
        task.reason = Some(Reason::Delayed);
        task.run_at = Some(now + TimeDelta::seconds(i64::from(delay_seconds)));
    } else {
        task.status = Status::Pending;
    }
}

/// Its holder has asked for it again and been told.
pub(super) fn repeat(task: &mut TaskRecord) {
    if let Some(lease) = &mut task.lease {
        lease.repeated = true;
    }
}

/// Undoes a claim that never reached its caller: no attempt was made, no claim id was used, and what the claim displaced
/// is back. What is left of it tells which versions of the task it made.
pub(super) fn withdraw(task: &mut TaskRecord, now: Now) -> Result<(), Refusal> {
    let Some(lease) = task.lease.take_if(|lease| !lease.repeated) else {
        return Err(Refusal::WrongState(task.status));
    };
    // First of all: a task whose cancellation was asked for is final with this, and its lost token is spent.
    put_back(task, lease.into_part().before);
    give_back(task, 0, now);
    if let Some(attempt) = task.attempts.last_mut() {
        attempt.status = AttemptStatus::Withdrawn;
        if let Some(claim_id) = attempt.claim_id.take()
            && let Some(place) = task.claim_ids.iter().rposition(|id| *id == claim_id)
        {
            task.claim_ids.remove(place);
        }
    }
    let is_withdrawn = |attempt: &Kept<AttemptRecord>| attempt.status == AttemptStatus::Withdrawn;
    task.started_at =
        task.attempts.iter().rev().find(|attempt| !is_withdrawn(attempt)).map(|attempt| attempt.started_at);
    if task.attempts.iter().filter(|attempt| is_withdrawn(attempt)).count() > TaskRecord::MAX_WITHDRAWN
        && let Some(oldest) = task.attempts.iter().position(is_withdrawn)
    {
        task.attempts.remove(oldest);
    }
    Ok(())
}

/// Puts back what a claim has displaced. A server of 0.1.0 notes nothing of it: then it stays lost.
fn put_back(task: &mut TaskRecord, before: Option<Box<Kept<BeforeClaimRecord>>>) {
    let before = before.map_or_else(BeforeClaimRecord::default, |before| before.into_part());
    task.lost_token = before.lost_token;
    task.executed = before.executed;
    task.progress = before.progress;
    task.progress_version = before.progress_version;
}

pub(super) fn acknowledge_cancel(task: &mut TaskRecord, now: Now) {
    end_attempt(task, AttemptStatus::Cancelled, now);
    finish(task, Status::Cancelled, None, now);
}

/// The end of work that a service ran itself.
pub(super) fn end_self_managed(
    task: &mut TaskRecord,
    status: SelfManagedStatus,
    work: Work<'_>,
    message: Option<&str>,
    now: Now,
) -> Result<(), Refusal> {
    keep(task, work)?;
    let error = (status == SelfManagedStatus::Failed).then(|| ErrorRecord {
        message: message.unwrap_or("the service that ran the task reported a failure").to_owned(),
        code: None,
        details: None,
    });
    let (how, status, reason) = match error {
        Some(_) => (AttemptStatus::Failed, Status::Failed, Some(Reason::Error)),
        None => (AttemptStatus::Completed, Status::Completed, None),
    };
    if let Some(attempt) = end_attempt(task, how, now) {
        attempt.result_id = work.1.cloned();
        attempt.error = error.clone().map(Kept::from);
    }
    task.error = error.map(Kept::from);
    finish(task, status, reason, now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Uuid;

    use super::super::{Grant, Intent, apply};
    use super::*;
    use crate::task::Trigger;

    #[test]
    fn few_undone_claims_are_kept_and_no_other_attempt_goes_for_them() {
        let now = chrono::Utc::now();
        let mut task = TaskRecord::pending(Uuid::now_v7());
        let claim = |task: &mut TaskRecord| {
            let token = Uuid::new_v4();
            let (execution_id, worker_id) = (Uuid::now_v7(), "w".to_owned());
            let grant = Grant { token, execution_id, worker_id, lease_seconds: None, claim_id: None };
            assert_eq!(apply(task, &Intent::Claim(grant), now), Ok(Effect::Changed));
            token
        };
        let token = claim(&mut task);
        assert_eq!(
            apply(&mut task, &Intent::Release { token, delay_seconds: None }, now),
            Ok(Effect::Changed)
        );
        for _ in 0..3 * TaskRecord::MAX_WITHDRAWN {
            let token = claim(&mut task);
            assert_eq!(apply(&mut task, &Intent::Withdraw { token }, now), Ok(Effect::Changed));
        }
        assert_eq!(task.attempts.len(), 1 + TaskRecord::MAX_WITHDRAWN);
        assert_eq!((task.attempts[0].status, task.releases), (AttemptStatus::Released, 1));
        assert_eq!(task.attempts.last().and_then(|last| last.end()), Some((task.version, Status::Pending)));
        claim(&mut task);
        assert_eq!(
            task.attempts.last().expect("the latest").trigger,
            Trigger::Claim,
            "as if there were none"
        );
    }

    #[test]
    fn a_lease_that_was_asked_for_again_does_not_go_back_with_the_first_answer() {
        let token = Uuid::new_v4();
        let (execution_id, worker_id) = (Uuid::now_v7(), "w".to_owned());
        let grant = Grant { token, execution_id, worker_id, lease_seconds: None, claim_id: Some(vec![7]) };
        let now = chrono::Utc::now();
        let mut claimed = TaskRecord::pending(Uuid::now_v7());
        assert_eq!(apply(&mut claimed, &Intent::Claim(grant), now), Ok(Effect::Changed));

        let mut withdrawn = claimed.clone();
        assert_eq!(apply(&mut withdrawn, &Intent::Withdraw { token }, now), Ok(Effect::Changed));
        assert_eq!(
            (withdrawn.status, withdrawn.attempt, withdrawn.lease.clone()),
            (Status::Pending, 0, None)
        );
        assert!(apply(&mut withdrawn, &Intent::Repeat { token }, now).is_err(), "it was too late");

        let last = withdrawn.attempts.last().expect("it is kept for its versions");
        assert_eq!((last.status, last.started_version), (AttemptStatus::Withdrawn, 2));
        assert_eq!(
            (last.end(), &last.claim_id, last.receipt.is_some()),
            (Some((3, Status::Pending)), &None, false)
        );
        assert!(withdrawn.claim_ids.is_empty() && withdrawn.releases == 0);

        let mut repeated = claimed.clone();
        assert_eq!(apply(&mut repeated, &Intent::Repeat { token }, now), Ok(Effect::Changed));
        assert_eq!((repeated.version, repeated.lease_until), (claimed.version, claimed.lease_until));
        let refused = apply(&mut repeated.clone(), &Intent::Withdraw { token }, now);
        assert_eq!(refused, Err(Refusal::WrongState(Status::Processing)));
        let release = Intent::Release { token, delay_seconds: None };
        assert_eq!(apply(&mut repeated, &release, now), Ok(Effect::Changed), "its holder may give it back");
    }
}
