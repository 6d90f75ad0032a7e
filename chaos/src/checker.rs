//! Holds the history against what is there in the end. The terms of the queue are those of Jepsen's total-queue.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use task_repo_client::{Reason, Status, Uuid};

use crate::event::{Event, Said, Verb};
use crate::history::Record;
use crate::workload::POISON;

/// The longest that a server may take to say how it is.
const HEALTH_LIMIT: Duration = Duration::from_millis(100);
/// How many workers a task may end before it fails.
const MOST_LOSSES: u32 = 3;
/// How long before its end a lease may be seen to have ended: times are rounded, and not all are taken at once.
const EARLY_MS: i64 = 50;

/// A task as it is in the end.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) status: Status,
    pub(crate) reason: Option<Reason>,
    /// Attempts that count, and how many of them it may have.
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    /// How often its lease ran out.
    pub(crate) losses: u32,
    /// The token of the lease that completed it.
    pub(crate) result: Option<String>,
    /// Attempts that were made.
    pub(crate) executions: usize,
    /// Of those, the completed ones.
    pub(crate) completed: usize,
    /// Of those that ended with their lease, which nobody had renewed: how long after its end, in milliseconds.
    pub(crate) lost_after: Vec<i64>,
    /// Of those that ended with their lease, the callers that had vanished.
    pub(crate) lost_by_vanished: Vec<String>,
}

/// What the history says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Tasks that somebody tried to create.
    pub(crate) attempted: usize,
    /// Those that the service accepted.
    pub(crate) acknowledged: usize,
    /// Accepted, and not there.
    pub(crate) lost: Vec<String>,
    /// There, and nobody tried to create them, or all answers were that nothing was applied.
    pub(crate) unexpected: Vec<String>,
    /// There more than once.
    pub(crate) duplicated: Vec<String>,
    /// There, though nobody was told that they were accepted.
    pub(crate) recovered: usize,
    /// Tasks that more than one lease has completed.
    pub(crate) double_completions: Vec<Uuid>,
    /// Accepted completions that read differently in the end.
    pub(crate) changed_completions: Vec<Uuid>,
    /// Tasks that were handed out after a completion of them was accepted.
    pub(crate) claimed_after_completion: Vec<Uuid>,
    /// Tasks that a lease settled after another lease of them had been given.
    pub(crate) settled_by_replaced_leases: Vec<Uuid>,
    /// Tasks whose attempts did not go up from one claim to the next, or that two claims got as the same version.
    pub(crate) attempts_out_of_order: Vec<Uuid>,
    /// Tasks of workers who said all the time that they were alive.
    pub(crate) held: usize,
    /// How often those workers said so.
    pub(crate) heartbeats: u32,
    /// Those of them that were taken nevertheless.
    pub(crate) taken: Vec<Uuid>,
    /// Tasks that end their workers.
    pub(crate) poisonous: usize,
    /// Those that did not fail after as many workers as they may end.
    pub(crate) poison: Vec<String>,
    /// Tasks that were cancelled, which nobody asks for, or failed with attempts and losses left.
    pub(crate) wrongly_ended: Vec<Uuid>,
    /// Leases that ended before their time.
    pub(crate) early: usize,
    /// Callers that vanished with an answer that they had not read.
    pub(crate) reached: usize,
    /// Callers that had vanished before their answers, and whose tasks did not go back at once.
    pub(crate) lost_by_vanished: usize,
    /// Attempts that were lost with their worker.
    pub(crate) losses: usize,
    /// The longest from the end of such an attempt's lease until its task was back, in milliseconds.
    pub(crate) longest_back_ms: i64,
    /// Questions for the health of a server while its database was exhausted.
    pub(crate) health_asked: usize,
    /// Those that took more than 100 ms.
    pub(crate) health_late: usize,
    /// The longest of them, in milliseconds.
    pub(crate) health_slowest_ms: u128,
    /// Tasks that were read while others worked on them.
    pub(crate) read: usize,
    /// How often less was read than callers had been told.
    pub(crate) behind: u32,
    /// Tasks of which less was read to the last.
    pub(crate) forgotten: Vec<Uuid>,
    /// Connections of readers that ended instead of an answer.
    pub(crate) broken: usize,
    /// Tasks that are not final.
    pub(crate) stuck: Vec<Uuid>,
    /// Answers that the contract does not know.
    pub(crate) undocumented: Vec<String>,
    /// Settlements that were refused: of leases that somebody else had by then.
    pub(crate) refused_settlements: usize,
    /// The most attempts of one task.
    pub(crate) most_executions: usize,
    /// Attempts of all tasks.
    pub(crate) executions: usize,
    /// Calls in all.
    pub(crate) calls: u64,
    /// The longest call in milliseconds, beyond the time that it asked the service to wait.
    pub(crate) slowest_ms: u128,
    /// Which call that was.
    pub(crate) slowest_call: String,
    /// The longest time without an accepted create, in milliseconds.
    pub(crate) longest_without_create_ms: u128,
    /// The longest that a call may take, in milliseconds.
    pub(crate) limit_ms: u128,
}

impl Verdict {
    /// What must not be.
    pub(crate) fn violations(&self) -> Vec<String> {
        let lists = [
            ("lost", self.lost.len()),
            ("unexpected", self.unexpected.len()),
            ("duplicated", self.duplicated.len()),
            ("completed twice", self.double_completions.len()),
            ("completed, and later different", self.changed_completions.len()),
            ("handed out after their completion", self.claimed_after_completion.len()),
            ("settled by a lease that somebody else's had replaced", self.settled_by_replaced_leases.len()),
            ("attempts out of order", self.attempts_out_of_order.len()),
            ("taken from workers that had said that they were alive", self.taken.len()),
            ("tasks that end their workers, and did not fail for it", self.poison.len()),
            ("cancelled or failed, and there was no reason to", self.wrongly_ended.len()),
            ("leases that ended too early", self.early),
            ("read as if callers had never been told", self.forgotten.len()),
            ("stuck", self.stuck.len()),
            ("undocumented answers", self.undocumented.len()),
        ];
        let mut violations: Vec<_> = lists
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{what}: {count}"))
            .collect();
        if self.acknowledged == 0 || self.executions == 0 {
            violations.push("nothing was done".to_owned());
        }
        if self.read == 0 {
            violations.push("nothing was read meanwhile".to_owned());
        }
        if self.held == 0 {
            violations.push("no worker said all the time that it was alive".to_owned());
        }
        // One in a hundred may have met with the machine's own business.
        if self.health_late * 100 > self.health_asked {
            violations.push(format!("health took more than 100 ms {} times", self.health_late));
        }
        if self.slowest_ms > self.limit_ms {
            violations.push(format!("a call took {} ms: {}", self.slowest_ms, self.slowest_call));
        }
        violations
    }
}

/// Checks a record against the tasks that are there. No call may have taken longer than `limit`.
pub(crate) fn check(record: &Record, found: &[Found], limit: Duration) -> Verdict {
    let mut verdict = Verdict {
        calls: record.calls,
        slowest_ms: record.slowest.0.as_millis(),
        slowest_call: record.slowest.1.to_owned(),
        longest_without_create_ms: record.longest_without_create.as_millis(),
        limit_ms: limit.as_millis(),
        executions: found.iter().map(|task| task.executions).sum(),
        most_executions: found.iter().map(|task| task.executions).max().unwrap_or(0),
        health_asked: record.health.len(),
        health_late: record.health.iter().filter(|took| **took > HEALTH_LIMIT).count(),
        health_slowest_ms: record.health.iter().max().map_or(0, Duration::as_millis),
        ..Verdict::default()
    };
    creates(record, found, &mut verdict);
    settlements(record, found, &mut verdict);
    claims(record, &mut verdict);
    held(record, &mut verdict);
    losses(record, found, &mut verdict);
    reads(record, &mut verdict);
    of_processes(record, &mut verdict);
    let is_stuck = |task: &&Found| !task.status.is_final();
    verdict.stuck = found.iter().filter(is_stuck).map(|task| task.id).collect();
    verdict.undocumented = record
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Odd { call, answer } => Some(format!("{call}: {answer}")),
            _ => None,
        })
        .collect();
    verdict
}

/// What became of tasks whose workers said all the time that they were alive.
fn held(record: &Record, verdict: &mut Verdict) {
    for event in &record.events {
        if let Event::Held { id, heartbeats, was_never_silent: true, was_taken } = event {
            verdict.held += 1;
            verdict.heartbeats += heartbeats;
            verdict.taken.extend(was_taken.then_some(*id));
        }
    }
}

/// What readers were told while others worked.
fn reads(record: &Record, verdict: &mut Verdict) {
    for event in &record.events {
        match event {
            Event::Read { id, behind, is_forgotten } => {
                verdict.read += 1;
                verdict.behind += behind;
                verdict.forgotten.extend(is_forgotten.then_some(*id));
            }
            Event::Broken { .. } => verdict.broken += 1,
            _ => {}
        }
    }
}

/// How long calls of worker processes took.
fn of_processes(record: &Record, verdict: &mut Verdict) {
    for event in &record.events {
        if let Event::Called { call, took_ms, .. } = event {
            verdict.calls += 1;
            if *took_ms > verdict.slowest_ms {
                verdict.slowest_ms = *took_ms;
                verdict.slowest_call = format!("{call} of a worker process");
            }
        }
    }
}

/// What became of tasks whose workers were lost, and of those that failed.
fn losses(record: &Record, found: &[Found], verdict: &mut Verdict) {
    let lost_after = || found.iter().flat_map(|task| &task.lost_after);
    verdict.losses = lost_after().count();
    verdict.longest_back_ms = lost_after().copied().max().unwrap_or(0);
    verdict.early = lost_after().filter(|after| **after < -EARLY_MS).count();
    let reached: HashSet<_> = record
        .events
        .iter()
        .filter_map(|event| if let Event::Reached { worker_id } = event { Some(worker_id) } else { None })
        .collect();
    let vanished: HashSet<_> = found.iter().flat_map(|task| &task.lost_by_vanished).collect();
    verdict.reached = reached.len();
    verdict.lost_by_vanished = vanished.difference(&reached).count();
    let is_used_up = |task: &Found| match task.reason {
        Some(Reason::Lost) => task.losses >= MOST_LOSSES || task.attempt >= task.max_attempts,
        Some(Reason::Exhausted | Reason::Timeout) => task.attempt >= task.max_attempts,
        _ => false,
    };
    for task in found {
        if task.status == Status::Cancelled || task.status == Status::Failed && !is_used_up(task) {
            verdict.wrongly_ended.push(task.id);
        }
        if task.name.starts_with(POISON) {
            verdict.poisonous += 1;
            let is_ended = task.status == Status::Failed && task.reason == Some(Reason::Lost);
            if !(is_ended && task.losses == MOST_LOSSES) {
                verdict.poison.push(task.name.clone());
            }
        }
    }
}

fn creates(record: &Record, found: &[Found], verdict: &mut Verdict) {
    let mut said: HashMap<&str, HashSet<Said>> = HashMap::new();
    let mut ids: HashMap<&str, Uuid> = HashMap::new();
    for event in &record.events {
        if let Event::Created { name, said: it, id } = event {
            said.entry(name).or_default().insert(*it);
            ids.extend(id.map(|id| (name.as_str(), id)));
        }
    }
    let mut there: HashMap<&str, Vec<Uuid>> = HashMap::new();
    for task in found {
        there.entry(&task.name).or_default().push(task.id);
    }
    verdict.attempted = said.len();
    for (name, answers) in &said {
        let places = there.get(name).map_or(0, Vec::len);
        if answers.contains(&Said::Accepted) {
            verdict.acknowledged += 1;
            let is_there = there.get(name).is_some_and(|there| there.contains(&ids[name]));
            if !is_there {
                verdict.lost.push((*name).to_owned());
            }
        } else if places > 0 {
            verdict.recovered += 1;
            if !answers.contains(&Said::Unknown) {
                verdict.unexpected.push((*name).to_owned());
            }
        }
        if places > 1 {
            verdict.duplicated.push((*name).to_owned());
        }
    }
    let strange = there.keys().filter(|name| !said.contains_key(*name));
    verdict.unexpected.extend(strange.map(|name| (*name).to_owned()));
}

fn settlements(record: &Record, found: &[Found], verdict: &mut Verdict) {
    let mut completed: HashMap<Uuid, HashSet<&str>> = HashMap::new();
    for event in &record.events {
        match event {
            Event::Settled { id, token, verb: Verb::Complete, said: Said::Accepted, .. } => {
                completed.entry(*id).or_default().insert(token);
            }
            Event::Settled { said: Said::Refused, .. } => verdict.refused_settlements += 1,
            _ => {}
        }
    }
    let there: HashMap<_, _> = found.iter().map(|task| (task.id, task)).collect();
    for (id, tokens) in &completed {
        if tokens.len() > 1 {
            verdict.double_completions.push(*id);
        }
        let is_so = there.get(id).is_some_and(|task| {
            task.status == Status::Completed
                && task.result.as_deref().is_some_and(|token| tokens.contains(token))
        });
        if !is_so {
            verdict.changed_completions.push(*id);
        }
    }
    let twice = found.iter().filter(|task| task.completed > 1).map(|task| task.id);
    verdict.double_completions.extend(twice);
}

fn claims(record: &Record, verdict: &mut Verdict) {
    let mut claimed: HashMap<Uuid, Vec<(u64, u32, &str)>> = HashMap::new();
    let (mut given_back, mut kept) = (HashSet::new(), HashSet::new());
    let mut completed: HashMap<Uuid, u64> = HashMap::new();
    let mut settled: HashMap<Uuid, Vec<(&str, u64)>> = HashMap::new();
    for event in &record.events {
        if let Event::Settled { id, token, said: Said::Accepted, version: Some(version), .. } = event {
            settled.entry(*id).or_default().push((token, *version));
        }
        match event {
            Event::Claimed { id, token, attempt, version } => {
                claimed.entry(*id).or_default().push((*version, *attempt, token));
            }
            // A release that is repeated gets its first answer, so that one that is refused never was.
            Event::Settled { token, verb: Verb::Release, said: Said::Refused, .. } => {
                kept.insert(token.as_str());
            }
            Event::Settled { token, verb: Verb::Release, said: Said::Accepted | Said::Unknown, .. } => {
                given_back.insert(token.as_str());
            }
            Event::Settled {
                id, verb: Verb::Complete, said: Said::Accepted, version: Some(version), ..
            } => {
                // The first one: what several processes noted is in no order.
                completed.entry(*id).and_modify(|first| *first = *version.min(first)).or_insert(*version);
            }
            _ => {}
        }
    }
    let is_given_back = |token: &str| given_back.contains(token) && !kept.contains(token);
    for (id, mut claims) in claimed {
        claims.sort_unstable();
        let in_order = claims.windows(2).all(|pair| {
            let ((version, attempt, token), (next_version, next_attempt, next_token)) = (pair[0], pair[1]);
            token == next_token
                || (version < next_version && (attempt < next_attempt || is_given_back(token)))
        });
        if !in_order {
            verdict.attempts_out_of_order.push(id);
        }
        let is_replaced = |(token, version): &(&str, u64)| {
            let own = claims.iter().find(|(_, _, other)| other == token).map(|(own, ..)| *own);
            own.is_some_and(|own| {
                claims.iter().any(|(other, _, name)| name != token && own < *other && other < version)
            })
        };
        if settled.get(&id).is_some_and(|settled| settled.iter().any(is_replaced)) {
            verdict.settled_by_replaced_leases.push(id);
        }
        let last = claims.last().map_or(0, |(version, ..)| *version);
        if completed.get(&id).is_some_and(|version| last > *version) {
            verdict.claimed_after_completion.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
