//! What must always hold, and what must happen at least once for that to say anything.

use stateright::Property;

use crate::bounds::Bounds;
use crate::document::{Attempt, Call, Document, Status, Token, Verb};
use crate::protocol::{Protocol, Step};
use crate::state::{Answer, Held, Operation, Stage, State, Task};

/// A final task stays in the status it has.
pub const FINAL_STAYS: &str = "a final status is final";
/// Of all leases that a task ever had, one at most completed it.
pub const ONE_COMPLETION: &str = "at most one completion is accepted";
/// Whoever lost the lease, or never had it, changes nothing; but see [`crate::document::Document::lost_token`].
pub const TOKEN_DECIDES: &str = "a token without the lease changes nothing";
/// Nobody loses a lease that still runs, also not one that was just renewed.
pub const LEASE_HOLDS: &str = "a lease ends by its holder or by running out";
/// Each attempt is counted, and stays counted unless it was released.
pub const ATTEMPTS_COUNT: &str = "only a release gives an attempt back";
/// What a worker was told is done is done.
pub const COMPLETION_STAYS: &str = "an acknowledged completion stays";
/// A repetition is answered as the first time.
pub const SAME_RECEIPT: &str = "the same settlement gets the same receipt";
/// What a worker has from a claim, or gets from a repeat of it, does not go back because a connection had broken.
pub const KEPT: &str = "a lease that its worker has is not withdrawn";
/// Nothing leads to where only an end by hand would help.
pub const CAN_FINISH: &str = "every task can still become final";

/// Longest way to the end of all tasks that is looked for. Each attempt takes a dozen steps at most.
const LONGEST_WAY: usize = 200;

pub(crate) fn all(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let mut all = always();
    all.extend(sometimes());
    if bounds.withdrawals.is_some() {
        all.extend(sometimes_with_ids());
    }
    all
}

fn always() -> Vec<Property<Protocol>> {
    vec![
        Property::always(FINAL_STAYS, |_, state: &State| !state.breaches.left_final),
        Property::always(ONE_COMPLETION, |_, state: &State| {
            state.tasks.iter().all(|task| completions(task) <= 1)
        }),
        Property::always(TOKEN_DECIDES, |_, state: &State| !state.breaches.strange_token),
        Property::always(LEASE_HOLDS, |_, state: &State| !state.breaches.lease_stolen),
        Property::always(ATTEMPTS_COUNT, |_, state: &State| !state.breaches.attempt_fell),
        Property::always(COMPLETION_STAYS, |_, state: &State| state.tasks.iter().all(keeps_its_word)),
        Property::always(SAME_RECEIPT, |_, state: &State| !state.breaches.other_receipt),
        Property::always(KEPT, |_, state: &State| !state.breaches.withdrawn_from_holder),
        Property::always(CAN_FINISH, can_finish),
    ]
}

fn sometimes() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a zombie is refused", |_, state: &State| {
            answered(state).any(|(document, token, _, answer)| {
                answer == Answer::Refused && document.attempts[usize::from(token)] == Attempt::Lost
            })
        }),
        Property::sometimes("a lost answer is repeated", |_, state: &State| {
            state.servers.iter().flatten().any(|operation| match (operation.call, operation.stage) {
                (Call::Settle(token, _), Stage::Decided(Answer::Again(_))) => {
                    state.is_held(operation.task, token)
                }
                _ => false,
            })
        }),
        Property::sometimes("both workers believe to hold the same task", |_, state: &State| {
            let mut held = state.workers.iter().map(|held| held.map(|Held { task, .. }| task));
            let first = held.next().flatten();
            first.is_some() && held.all(|other| other == first)
        }),
        Property::sometimes("two servers give the same task to two workers", |_, state: &State| {
            let mut claims = state.servers.iter().map(|operation| match operation {
                &Some(Operation { task, call: Call::Claim(id), stage: Stage::Read(_) }) => {
                    Some((task, id.worker))
                }
                _ => None,
            });
            match (claims.next().flatten(), claims.next().flatten()) {
                (Some((task, worker)), Some((other_task, other_worker))) => {
                    task == other_task && worker != other_worker
                }
                _ => false,
            }
        }),
        Property::sometimes("a completion after the lease ran out is accepted", |_, state: &State| {
            let is_late = |document: &Document| document.claims() == 1 && document.losses == 1;
            state
                .tasks
                .iter()
                .any(|task| task.document.status == Status::Completed && is_late(&task.document))
        }),
        Property::sometimes("a task fails by its losses or by its attempts", |_, state: &State| {
            state.tasks.iter().any(|task| task.document.status == Status::Failed)
        }),
        Property::sometimes("all tasks are completed", |_, state: &State| {
            state.tasks.iter().all(|task| task.document.status == Status::Completed)
        }),
    ]
}

fn sometimes_with_ids() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a claim is taken back, and its task completed", |_, state: &State| {
            let is_done = |task: &Task| task.document.status == Status::Completed;
            state.withdrawals() > 0 && state.tasks.iter().all(is_done)
        }),
        Property::sometimes(
            "a late completion is accepted after a claim since was undone",
            |_, state: &State| {
                state.tasks.iter().any(|Task { document, .. }| {
                    let is_late = |pair: &[Attempt]| {
                        matches!(pair, [Attempt::Settled(Verb::Complete, _), Attempt::Withdrawn])
                    };
                    document.losses == 1 && document.attempts.windows(2).any(is_late)
                })
            },
        ),
        Property::sometimes("a server is too late to take a claim back", |_, state: &State| {
            operations(state).any(|(document, call)| {
                matches!(call, Call::Withdraw(token) if document.token == Some(token) && document.is_kept)
            })
        }),
        Property::sometimes("a server repeats what another takes back", |_, state: &State| {
            let is_repeat = |call| matches!(call, Call::Repeat(_));
            let is_withdrawal = |call| matches!(call, Call::Withdraw(_));
            operations(state).any(|(_, call)| is_repeat(call))
                && operations(state).any(|(_, call)| is_withdrawal(call))
        }),
        Property::sometimes("a claim that comes late takes work for nobody", |_, state: &State| {
            operations(state).any(|(document, call)| {
                matches!(call, Call::Claim(id) if document.token_of(id).is_some() && !state.is_wanted(id))
            })
        }),
    ]
}

/// What servers have under way, with the task as it is now.
fn operations(state: &State) -> impl Iterator<Item = (&Document, Call)> {
    let servers = state.servers.iter().flatten();
    servers.map(|operation| (&state.task(operation.task).document, operation.call))
}

/// How many leases completed the task, by what the database keeps or by what a server said.
fn completions(task: &Task) -> usize {
    let kept = |attempt: &Attempt| matches!(attempt, Attempt::Settled(Verb::Complete, _));
    let told = |token: usize| {
        let told = task.claims[token].and_then(|claim| claim.told);
        told.is_some_and(|receipt| receipt.status == Status::Completed)
    };
    let attempts = task.document.attempts.iter().enumerate();
    attempts.filter(|(token, attempt)| kept(attempt) || told(*token)).count()
}

/// Whether every receipt for a completion is still what the task itself says.
fn keeps_its_word(task: &Task) -> bool {
    task.claims.iter().zip(task.document.attempts).all(|(claim, attempt)| {
        match claim.and_then(|claim| claim.told) {
            Some(receipt) if receipt.status == Status::Completed => {
                task.document.status == Status::Completed
                    && attempt == Attempt::Settled(Verb::Complete, receipt)
            }
            _ => true,
        }
    })
}

/// The answers to settlements on their way, with the task as it is now.
fn answered(state: &State) -> impl Iterator<Item = (&Document, Token, Verb, Answer)> {
    state.servers.iter().flatten().filter_map(|operation| match (operation.call, operation.stage) {
        (Call::Settle(token, verb), Stage::Decided(answer)) => {
            Some((&state.task(operation.task).document, token, verb, answer))
        }
        _ => None,
    })
}

/// Whether a way leads from here to the end of all tasks. One is found by going on; that others may lead astray for a
/// while does not matter.
fn can_finish(protocol: &Protocol, state: &State) -> bool {
    let mut state = state.clone();
    let mut steps = Vec::new();
    for _ in 0..LONGEST_WAY {
        if state.tasks.iter().all(|task| task.document.status.is_final()) {
            return true;
        }
        steps.clear();
        protocol.steps(&state, &mut steps);
        let onward = steps.iter().filter_map(|step| Some((distance(&state, *step)?, *step)));
        let Some((_, step)) = onward.min_by_key(|(distance, _)| *distance) else { return false };
        let Some(next) = protocol.take(&state, step) else { return false };
        state = next;
    }
    false
}

/// How little a step detains from the end; `None`: it does not lead there.
fn distance(state: &State, step: Step) -> Option<u8> {
    match step {
        Step::Answer { .. } => Some(0),
        Step::Write { .. } => Some(1),
        Step::Read { call: Call::Expire, .. } => Some(2),
        Step::RunOut { .. } => Some(3),
        Step::Read { call: Call::Claim(_), .. } => Some(4),
        Step::Look { id, .. } => state.is_wanted(id).then_some(4),
        Step::Read { task, call: Call::Settle(token, _), .. } => state.is_held(task, token).then_some(5),
        Step::Send { verb: Verb::Complete, .. } => Some(6),
        _ => None,
    }
}
