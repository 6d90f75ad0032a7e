//! Everything at one moment: tasks, workers, servers, and what an observer has noticed.
//!
//! Two things keep the number of states small, and neither hides a behaviour:
//!
//! - A stamp is only ever compared with the latest one of its task. So the latest is 0 and every older one is 1, whatever
//!   they were when they were drawn.
//! - Workers are alike, and so are servers and tasks. Of all states that differ only in who is who, the smallest stands
//!   for the others. A counterexample may therefore call a worker by another name from one step to the next.

use crate::bounds::Bounds;
use crate::document::{Attempt, ClaimId, Document, MAX_CLAIMS, Receipt, TaskIntent, Token, Verb};

/// What the latest write of a task left in it.
const LATEST_STAMP: u8 = 0;
/// What any write before that left.
const OLDER_STAMP: u8 = 1;
/// A stamp that no write has left yet.
pub(crate) const NEW_STAMP: u8 = 2;

/// How far a worker has come with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimStage {
    /// The answer to the claim has not reached it.
    Unanswered,
    /// The worker knows the token, and may send heartbeats.
    Answered,
    /// The worker has sent that settlement. It never sends another with the same token.
    Settling(Verb),
}

/// A claim as its worker and the observer know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The worker that made it.
    pub worker: u8,
    /// How far it has come.
    pub stage: ClaimStage,
    /// The first receipt that any server sent for its settlement, whether it arrived or not.
    pub first_receipt: Option<Receipt>,
}

/// A task, and what surrounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// In the database.
    pub document: Document,
    /// Whether the lease has run out by the database's clock.
    pub is_expired: bool,
    /// Every claim, by its token.
    pub claims: [Option<Claim>; MAX_CLAIMS],
}

/// A task and the token by which a worker believes to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BelievedLease {
    /// The task's place.
    pub task: u8,
    /// The lease token.
    pub token: Token,
}

/// The answer of a server to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerAnswer {
    /// To a claim: the task, by that token.
    Leased(Token),
    /// To a settlement.
    Receipt(Receipt),
    /// To a settlement that had its receipt before.
    RepeatedReceipt(Receipt),
    /// The lease is lost.
    Refused,
    /// To a claim that was repeated: its lease is no longer held.
    NotHeld,
}

/// How far an operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationStage {
    /// No claim with this id was known.
    UnknownClaim,
    /// The task was read, and was like that.
    Read(Document),
    /// The answer is on its way.
    Decided(ServerAnswer),
}

/// What a server has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// The task's place.
    pub task: u8,
    /// What is to be done to it.
    pub intent: TaskIntent,
    /// How far it has come.
    pub stage: OperationStage,
}

/// What must never happen, and cannot be seen in one state alone: the steps record it.
#[allow(clippy::struct_excessive_bools, reason = "each is a finding of its own, and all may be made")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Breaches {
    /// A final task got another status.
    pub left_final: bool,
    /// A token that did not hold the task changed it.
    pub foreign_token: bool,
    /// A lease ended before its time, and not by its holder.
    pub lease_ended_early: bool,
    /// The attempt went down without a release.
    pub attempt_decreased: bool,
    /// The same settlement was answered by two different receipts.
    pub receipts_differ: bool,
    /// A lease was withdrawn by the server of the first answer, and its worker had received it by then or receives it later.
    pub withdrawn_from_holder: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The lease that each worker believes to hold. A worker that holds none waits for a claim.
    pub workers: Vec<Option<BelievedLease>>,
    /// The number of the claim that each worker makes next, or has under way.
    pub wishes: Vec<u8>,
    /// What each server has under way.
    pub servers: Vec<Option<Operation>>,
    /// What the observer has noticed.
    pub breaches: Breaches,
}

impl State {
    /// Where everything begins.
    pub fn first(bounds: &Bounds) -> Self {
        let task = Task { document: Document::new(), is_expired: false, claims: [None; MAX_CLAIMS] };
        Self {
            tasks: vec![task; bounds.tasks],
            workers: vec![None; bounds.workers],
            wishes: vec![0; bounds.workers],
            servers: vec![None; bounds.servers],
            breaches: Breaches::default(),
        }
    }

    /// A task by its place.
    pub fn task(&self, place: u8) -> &Task {
        &self.tasks[usize::from(place)]
    }

    pub(crate) fn task_mut(&mut self, place: u8) -> &mut Task {
        &mut self.tasks[usize::from(place)]
    }

    /// The claim that a token came from.
    pub fn claim(&self, task: u8, token: Token) -> Option<&Claim> {
        self.task(task).claims[usize::from(token)].as_ref()
    }

    /// Whether the worker that got this token still waits for an answer about it.
    pub fn is_held(&self, task: u8, token: Token) -> bool {
        self.workers.contains(&Some(BelievedLease { task, token }))
    }

    /// Whether a worker waits for an answer to this claim.
    pub fn is_wanted(&self, id: ClaimId) -> bool {
        let worker = usize::from(id.worker);
        self.workers[worker].is_none() && self.wishes[worker] == id.wish
    }

    /// How often a claim was taken back.
    pub fn withdrawals(&self) -> usize {
        let attempts = self.tasks.iter().flat_map(|task| task.document.attempts);
        attempts.filter(|attempt| *attempt == Attempt::Withdrawn).count()
    }

    /// Every claim with its task's place and its token.
    pub fn claims(&self) -> impl Iterator<Item = (u8, Token, &Claim)> {
        (0..).zip(&self.tasks).flat_map(|(place, task)| {
            (0..).zip(&task.claims).filter_map(move |(token, claim)| Some((place, token, claim.as_ref()?)))
        })
    }

    /// The one that stands for all that differ only in stamps and in who is who.
    pub(crate) fn representative(mut self) -> Self {
        for server in self.servers.iter_mut().flatten() {
            if let OperationStage::Read(read) = &mut server.stage {
                let latest = self.tasks[usize::from(server.task)].document.stamp;
                read.stamp = if read.stamp == latest { LATEST_STAMP } else { OLDER_STAMP };
            }
        }
        for task in &mut self.tasks {
            task.document.stamp = LATEST_STAMP;
        }
        let mut least = self.clone().with_servers_in_order();
        for swap_workers in [false, true] {
            for swap_tasks in [false, true] {
                if (swap_workers && self.workers.len() == 2) || (swap_tasks && self.tasks.len() == 2) {
                    least = least.min(self.renamed(swap_workers, swap_tasks));
                }
            }
        }
        least
    }

    fn with_servers_in_order(mut self) -> Self {
        self.servers.sort_unstable();
        self
    }

    /// The same with workers, tasks or both called by each other's names.
    fn renamed(&self, swap_workers: bool, swap_tasks: bool) -> Self {
        let mut state = self.clone();
        if swap_workers && state.workers.len() == 2 {
            state.workers.reverse();
            state.wishes.reverse();
            let read = state.servers.iter_mut().flatten().filter_map(|server| match &mut server.stage {
                OperationStage::Read(document) => Some(document),
                _ => None,
            });
            let documents = state.tasks.iter_mut().map(|task| &mut task.document).chain(read);
            for id in documents.flat_map(|document| &mut document.claim_ids).flatten() {
                id.worker = 1 - id.worker;
            }
            for claim in state.tasks.iter_mut().flat_map(|task| &mut task.claims).flatten() {
                claim.worker = 1 - claim.worker;
            }
            for server in state.servers.iter_mut().flatten() {
                if let TaskIntent::Claim(id) = &mut server.intent {
                    id.worker = 1 - id.worker;
                }
            }
        }
        if swap_tasks && state.tasks.len() == 2 {
            state.tasks.reverse();
            for held in state.workers.iter_mut().flatten() {
                held.task = 1 - held.task;
            }
            for server in state.servers.iter_mut().flatten() {
                server.task = 1 - server.task;
            }
        }
        state.with_servers_in_order()
    }
}
