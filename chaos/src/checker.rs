//! Holds the history against what is there in the end. The terms of the queue are those of Jepsen's total-queue.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use task_repo_client::{Status, Uuid};

use crate::history::{Event, Record, Said, Verb};

/// A task as it is in the end.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) status: Status,
    /// The token of the lease that completed it.
    pub(crate) result: Option<String>,
    /// Attempts that were made.
    pub(crate) executions: usize,
    /// Of those, the completed ones.
    pub(crate) completed: usize,
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
    /// There, and nobody tried to create them, or they were refused.
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
    pub(crate) settled_by_zombies: Vec<Uuid>,
    /// Tasks whose attempts did not go up from one claim to the next, or that two claims got as the same version.
    pub(crate) attempts_out_of_order: Vec<Uuid>,
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
            ("settled by a lease that somebody else's had replaced", self.settled_by_zombies.len()),
            ("attempts out of order", self.attempts_out_of_order.len()),
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
        ..Verdict::default()
    };
    creates(record, found, &mut verdict);
    settlements(record, found, &mut verdict);
    claims(record, &mut verdict);
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
    let mut given_back = HashSet::new();
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
            Event::Settled { token, verb: Verb::Release, said: Said::Accepted | Said::Unknown, .. } => {
                given_back.insert(token.as_str());
            }
            Event::Settled {
                id, verb: Verb::Complete, said: Said::Accepted, version: Some(version), ..
            } => {
                completed.insert(*id, *version);
            }
            _ => {}
        }
    }
    for (id, mut claims) in claimed {
        claims.sort_unstable();
        let in_order = claims.windows(2).all(|pair| {
            let ((version, attempt, token), (next_version, next_attempt, next_token)) = (pair[0], pair[1]);
            token == next_token
                || (version < next_version && (attempt < next_attempt || given_back.contains(token)))
        });
        if !in_order {
            verdict.attempts_out_of_order.push(id);
        }
        let is_zombie = |(token, version): &(&str, u64)| {
            let own = claims.iter().find(|(_, _, other)| other == token).map(|(own, ..)| *own);
            own.is_some_and(|own| {
                claims.iter().any(|(other, _, name)| name != token && own < *other && other < version)
            })
        };
        if settled.get(&id).is_some_and(|settled| settled.iter().any(is_zombie)) {
            verdict.settled_by_zombies.push(id);
        }
        let last = claims.last().map_or(0, |(version, ..)| *version);
        if completed.get(&id).is_some_and(|version| last > *version) {
            verdict.claimed_after_completion.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn created(name: &str, said: Said) -> Event {
        let id = (said == Said::Accepted).then(|| id(1));
        Event::Created { name: name.to_owned(), said, id }
    }

    fn claimed(token: &str, attempt: u32, version: u64) -> Event {
        Event::Claimed { id: id(1), token: token.to_owned(), attempt, version }
    }

    fn settled(token: &str, verb: Verb, said: Said, version: u64) -> Event {
        Event::Settled { id: id(1), token: token.to_owned(), verb, said, version: Some(version) }
    }

    fn task(name: &str, result: &str) -> Found {
        Found {
            id: id(1),
            name: name.to_owned(),
            status: Status::Completed,
            result: Some(result.to_owned()),
            executions: 1,
            completed: 1,
        }
    }

    /// Beside one task with which all is well.
    fn violations(mut events: Vec<Event>, found: &[Found]) -> Vec<String> {
        let good = Uuid::from_u128(99);
        events.push(Event::Created { name: "good".to_owned(), said: Said::Accepted, id: Some(good) });
        let mut found = found.to_vec();
        found.push(Found { id: good, ..task("good", "t") });
        let record = Record {
            events,
            calls: 0,
            slowest: (Duration::ZERO, "none"),
            longest_without_create: Duration::ZERO,
        };
        check(&record, &found, Duration::from_secs(1)).violations()
    }

    #[test]
    fn a_task_that_was_created_claimed_and_completed_is_as_it_should_be() {
        let events = vec![
            created("a", Said::Unknown),
            created("a", Said::Accepted),
            claimed("t1", 1, 2),
            settled("t1", Verb::Release, Said::Accepted, 3),
            claimed("t2", 1, 4),
            claimed("t3", 2, 6),
            settled("t2", Verb::Complete, Said::Refused, 0),
            settled("t3", Verb::Complete, Said::Accepted, 7),
        ];
        assert_eq!(violations(events, &[task("a", "t3")]), Vec::<String>::new());
    }

    #[test]
    fn what_must_not_be_is_found() {
        let cases: Vec<(&str, Vec<Event>, Vec<Found>)> = vec![
            ("lost: 1", vec![created("a", Said::Accepted)], vec![]),
            ("unexpected: 1", vec![], vec![task("a", "t")]),
            ("unexpected: 1", vec![created("a", Said::Refused)], vec![task("a", "t")]),
            ("duplicated: 1", vec![created("a", Said::Unknown)], vec![task("a", "t"), task("a", "t")]),
            (
                "completed twice: 1",
                vec![
                    created("a", Said::Accepted),
                    settled("t1", Verb::Complete, Said::Accepted, 3),
                    settled("t2", Verb::Complete, Said::Accepted, 5),
                ],
                vec![task("a", "t1")],
            ),
            (
                "completed, and later different: 1",
                vec![created("a", Said::Accepted), settled("t1", Verb::Complete, Said::Accepted, 3)],
                vec![task("a", "t2")],
            ),
            (
                "handed out after their completion: 1",
                vec![
                    created("a", Said::Accepted),
                    claimed("t1", 1, 2),
                    settled("t1", Verb::Complete, Said::Accepted, 3),
                    claimed("t2", 2, 4),
                ],
                vec![task("a", "t1")],
            ),
            (
                "settled by a lease that somebody else's had replaced: 1",
                vec![
                    created("a", Said::Accepted),
                    claimed("t1", 1, 2),
                    claimed("t2", 2, 4),
                    settled("t1", Verb::Complete, Said::Accepted, 5),
                ],
                vec![task("a", "t1")],
            ),
            (
                "attempts out of order: 1",
                vec![created("a", Said::Accepted), claimed("t1", 1, 2), claimed("t2", 1, 4)],
                vec![task("a", "t2")],
            ),
            (
                "stuck: 1",
                vec![created("a", Said::Accepted)],
                vec![Found { status: Status::Processing, result: None, completed: 0, ..task("a", "t") }],
            ),
            (
                "undocumented answers: 1",
                vec![Event::Odd { call: "create", answer: "500".to_owned() }],
                vec![],
            ),
        ];
        for (violation, events, found) in cases {
            assert_eq!(violations(events, &found), [violation]);
        }
    }
}
