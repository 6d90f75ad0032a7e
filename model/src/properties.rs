//! What must always hold, and what must happen at least once for that to say anything.

use stateright::Property;

use crate::bounds::Bounds;
use crate::document::{Attempt, Document, Status, TaskIntent, Token, Verb};
use crate::protocol::{Protocol, Step};
use crate::state::{BelievedLease, Operation, OperationStage, ServerAnswer, State, Task};

/// A final task stays in the status it has.
pub const FINAL_STAYS: &str = "a final status is final";
/// Of all leases that a task ever had, one at most completed it.
pub const ONE_COMPLETION: &str = "at most one completion is accepted";
/// A token whose lease was lost, or that never had one, changes nothing; but see [`crate::document::Document::lost_token`].
pub const TOKEN_DECIDES: &str = "a token without the lease changes nothing";
/// No lease that still runs is taken away, also not one that was just renewed.
pub const LEASE_HOLDS: &str = "a lease ends by its holder or by running out";
/// Each attempt is counted, and stays counted unless it was released.
pub const ATTEMPTS_COUNT: &str = "only a release gives an attempt back";
/// A completion that a worker was told of is in the database.
pub const COMPLETION_STAYS: &str = "an acknowledged completion stays";
/// A repetition is answered as the first time.
pub const SAME_RECEIPT: &str = "the same settlement gets the same receipt";
/// A lease that its worker received, or receives when it repeats the claim, is not withdrawn because a connection broke.
pub const LEASE_KEPT: &str = "a lease that its worker has is not withdrawn";
/// No step leads to a state from which a task cannot become final.
pub const CAN_FINISH: &str = "every task can still become final";

/// Most steps to the end of all tasks that are tried. Each attempt takes a dozen steps at most, so this is ample.
const MAX_STEPS_TO_END: usize = 200;

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
        Property::always(TOKEN_DECIDES, |_, state: &State| !state.breaches.foreign_token),
        Property::always(LEASE_HOLDS, |_, state: &State| !state.breaches.lease_ended_early),
        Property::always(ATTEMPTS_COUNT, |_, state: &State| !state.breaches.attempt_decreased),
        Property::always(COMPLETION_STAYS, |_, state: &State| state.tasks.iter().all(receipts_hold)),
        Property::always(SAME_RECEIPT, |_, state: &State| !state.breaches.receipts_differ),
        Property::always(LEASE_KEPT, |_, state: &State| !state.breaches.withdrawn_from_holder),
        Property::always(CAN_FINISH, can_finish),
    ]
}

fn sometimes() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a zombie is refused", |_, state: &State| {
            answered(state).any(|(document, token, _, answer)| {
                answer == ServerAnswer::Refused && document.attempts[usize::from(token)] == Attempt::Lost
            })
        }),
        Property::sometimes("a lost answer is repeated", |_, state: &State| {
            state.servers.iter().flatten().any(|operation| match (operation.intent, operation.stage) {
                (TaskIntent::Settle(token, _), OperationStage::Decided(ServerAnswer::RepeatedReceipt(_))) => {
                    state.is_held(operation.task, token)
                }
                _ => false,
            })
        }),
        Property::sometimes("both workers believe to hold the same task", |_, state: &State| {
            let mut held = state.workers.iter().map(|held| held.map(|BelievedLease { task, .. }| task));
            let first = held.next().flatten();
            first.is_some() && held.all(|other| other == first)
        }),
        Property::sometimes("two servers give the same task to two workers", |_, state: &State| {
            let mut claims = state.servers.iter().map(|operation| match operation {
                &Some(Operation { task, intent: TaskIntent::Claim(id), stage: OperationStage::Read(_) }) => {
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
            operations(state).any(|(document, intent)| {
                matches!(intent, TaskIntent::Withdraw(token) if document.token == Some(token) && document.is_kept)
            })
        }),
        Property::sometimes("a server repeats what another takes back", |_, state: &State| {
            let is_repeat = |intent| matches!(intent, TaskIntent::Repeat(_));
            let is_withdrawal = |intent| matches!(intent, TaskIntent::Withdraw(_));
            operations(state).any(|(_, intent)| is_repeat(intent))
                && operations(state).any(|(_, intent)| is_withdrawal(intent))
        }),
        Property::sometimes("a claim that comes late takes work for nobody", |_, state: &State| {
            operations(state).any(|(document, intent)| {
                matches!(intent, TaskIntent::Claim(id) if document.token_of(id).is_some() && !state.is_wanted(id))
            })
        }),
    ]
}

/// What servers have under way, with the task as it is now.
fn operations(state: &State) -> impl Iterator<Item = (&Document, TaskIntent)> {
    let servers = state.servers.iter().flatten();
    servers.map(|operation| (&state.task(operation.task).document, operation.intent))
}

/// How many leases completed the task, by what the database keeps or by what a server said.
fn completions(task: &Task) -> usize {
    let kept = |attempt: &Attempt| matches!(attempt, Attempt::Settled(Verb::Complete, _));
    let told = |token: usize| {
        let told = task.claims[token].and_then(|claim| claim.first_receipt);
        told.is_some_and(|receipt| receipt.status == Status::Completed)
    };
    let attempts = task.document.attempts.iter().enumerate();
    attempts.filter(|(token, attempt)| kept(attempt) || told(*token)).count()
}

/// Whether every receipt for a completion is still what the task itself says.
fn receipts_hold(task: &Task) -> bool {
    task.claims.iter().zip(task.document.attempts).all(|(claim, attempt)| {
        match claim.and_then(|claim| claim.first_receipt) {
            Some(receipt) if receipt.status == Status::Completed => {
                task.document.status == Status::Completed
                    && attempt == Attempt::Settled(Verb::Complete, receipt)
            }
            _ => true,
        }
    })
}

/// The answers to settlements on their way, with the task as it is now.
fn answered(state: &State) -> impl Iterator<Item = (&Document, Token, Verb, ServerAnswer)> {
    state.servers.iter().flatten().filter_map(|operation| match (operation.intent, operation.stage) {
        (TaskIntent::Settle(token, verb), OperationStage::Decided(answer)) => {
            Some((&state.task(operation.task).document, token, verb, answer))
        }
        _ => None,
    })
}

/// Whether some steps lead from here to the end of all tasks. They are found by always taking the step of lowest [`rank`];
/// other steps may take longer.
fn can_finish(protocol: &Protocol, state: &State) -> bool {
    let mut state = state.clone();
    let mut steps = Vec::new();
    for _ in 0..MAX_STEPS_TO_END {
        if state.tasks.iter().all(|task| task.document.status.is_final()) {
            return true;
        }
        steps.clear();
        protocol.steps(&state, &mut steps);
        let onward = steps.iter().filter_map(|step| Some((rank(&state, *step)?, *step)));
        let Some((_, step)) = onward.min_by_key(|(rank, _)| *rank) else { return false };
        let Some(next) = protocol.take(&state, step) else { return false };
        state = next;
    }
    false
}

/// In which order steps are tried on the way to the end, lowest first; `None`: the step does not lead there.
fn rank(state: &State, step: Step) -> Option<u8> {
    match step {
        Step::Answer { .. } => Some(0),
        Step::Write { .. } => Some(1),
        Step::Read { intent: TaskIntent::Expire, .. } => Some(2),
        Step::ExpireLease { .. } => Some(3),
        Step::Read { intent: TaskIntent::Claim(_), .. } => Some(4),
        Step::LookUp { id, .. } => state.is_wanted(id).then_some(4),
        Step::Read { task, intent: TaskIntent::Settle(token, _), .. } => {
            state.is_held(task, token).then_some(5)
        }
        Step::Send { verb: Verb::Complete, .. } => Some(6),
        _ => None,
    }
}
