//! The steps that workers, servers and time take.

use crate::bounds::Bounds;
use crate::document::{Attempt, ClaimId, Document, Ruling, Status, TaskIntent, Token, Verb};
use crate::fault::InjectedFault;
use crate::state::{
    BelievedLease, Claim, ClaimStage, NEW_STAMP, Operation, OperationStage, ServerAnswer, State,
};

/// The protocol within bounds, as it is built or with an injected fault.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// How much of everything there is.
    pub bounds: Bounds,
    /// The injected fault; `None`: the protocol as it is built.
    pub fault: Option<InjectedFault>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A server takes up a request that has reached it, or its sweeper takes up a lease that ran out, and reads the
    /// task.
    Read {
        /// The server.
        server: usize,
        /// The task that it reads.
        task: u8,
        /// What it is about to do to the task.
        intent: TaskIntent,
    },
    /// A server looks a claim's id up, before it looks for work. If no task has a claim with that id, the server looks for
    /// work in a later step.
    LookUp {
        /// The server.
        server: usize,
        /// The task whose claims it searches.
        task: u8,
        /// The id it looks up.
        id: ClaimId,
    },
    /// A server decides by what it read, and makes the guarded write if one is needed. A write that misses ends the
    /// operation without an answer: the request, which may arrive again at any time, is then read for anew.
    Write {
        /// The server.
        server: usize,
    },
    /// A server's answer reaches the worker.
    Answer {
        /// The server.
        server: usize,
    },
    /// A server notices that the caller of a claim has gone, and reads the task to take it back.
    CallerGone {
        /// The server.
        server: usize,
    },
    /// A server loses its operation, because it stopped or the connection broke. The answer is lost; what was written is
    /// not.
    Stop {
        /// The server.
        server: usize,
    },
    /// A lease runs out.
    ExpireLease {
        /// The task it is of.
        task: u8,
    },
    /// A worker settles what it believes to hold. From now on the request may arrive at any server, any number of times,
    /// or never.
    Send {
        /// The worker.
        worker: usize,
        /// How it settles.
        verb: Verb,
    },
}

impl Protocol {
    /// The steps that can be taken from here.
    pub(crate) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (server, operation) in state.servers.iter().enumerate() {
            if let Some(operation) = operation {
                let Operation { task, intent, stage } = *operation;
                match stage {
                    OperationStage::UnknownClaim if state.task(task).document.is_ready() => {
                        steps.push(Step::Read { server, task, intent });
                    }
                    OperationStage::UnknownClaim => {}
                    OperationStage::Read(_) => steps.push(Step::Write { server }),
                    OperationStage::Decided(_) => steps.push(Step::Answer { server }),
                }
                let is_lease = matches!(
                    (intent, stage),
                    (TaskIntent::Claim(_), OperationStage::Decided(ServerAnswer::Leased(_)))
                );
                if is_lease && self.bounds.withdrawals.is_some_and(|most| state.withdrawals() < most) {
                    steps.push(Step::CallerGone { server });
                }
                steps.push(Step::Stop { server });
            }
        }
        for (place, task) in (0..).zip(&state.tasks) {
            if task.document.status == Status::Processing && !task.is_expired {
                steps.push(Step::ExpireLease { task: place });
            }
        }
        self.sends(state, steps);
        self.reads(state, steps);
    }

    /// Everything after one step; `None`: it cannot be taken.
    pub(crate) fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Read { server, task, intent } => self.read(&mut state, server, task, intent),
            Step::LookUp { server, task, id } => look_up(&mut state, server, task, id),
            Step::CallerGone { server } => {
                let Operation { task, stage: OperationStage::Decided(ServerAnswer::Leased(token)), .. } =
                    state.servers[server]?
                else {
                    return None;
                };
                self.read(&mut state, server, task, TaskIntent::Withdraw(token));
            }
            Step::Write { server } => {
                let operation = state.servers[server]?;
                let OperationStage::Read(read) = operation.stage else { return None };
                self.write(&mut state, server, operation, &read);
            }
            Step::Answer { server } => {
                let Operation { task, intent, stage } = state.servers[server].take()?;
                let OperationStage::Decided(answer) = stage else { return None };
                receive(&mut state, task, intent, answer, self.bounds.withdrawals.is_some());
            }
            Step::Stop { server } => state.servers[server] = None,
            Step::ExpireLease { task } => state.task_mut(task).is_expired = true,
            Step::Send { worker, verb } => {
                let BelievedLease { task, token } = state.workers[worker]?;
                state.task_mut(task).claims[usize::from(token)].as_mut()?.stage = ClaimStage::Settling(verb);
            }
        }
        Some(state.representative())
    }

    fn reads(&self, state: &State, steps: &mut Vec<Step>) {
        let mut intents = Vec::new();
        for (place, task) in (0..).zip(&state.tasks) {
            let document = &task.document;
            if document.is_ready() && self.bounds.withdrawals.is_none() {
                let idle = (0..).zip(&state.workers).filter(|(_, held)| held.is_none());
                let claim = |worker| TaskIntent::Claim(ClaimId { worker, wish: 0 });
                intents.extend(idle.map(|(worker, _)| (place, claim(worker))));
            }
            if task.is_expired && self.fault != Some(InjectedFault::NoSweeper) {
                intents.push((place, TaskIntent::Expire));
            }
        }
        for (task, token, claim) in state.claims() {
            let is_held = state.is_held(task, token);
            if let ClaimStage::Settling(verb) = claim.stage
                && (is_held || self.bounds.late_requests)
            {
                intents.push((task, TaskIntent::Settle(token, verb)));
            }
            if claim.stage != ClaimStage::Unanswered
                && self.bounds.heartbeats
                && (is_held || self.bounds.late_requests)
            {
                intents.push((task, TaskIntent::Heartbeat(token)));
            }
        }
        // Servers are alike, so one free server stands for all.
        if let Some(server) = state.servers.iter().position(Option::is_none) {
            steps.extend(intents.into_iter().map(|(task, intent)| Step::Read { server, task, intent }));
            if self.bounds.withdrawals.is_some() {
                look_ups(state, server, steps);
            }
        }
    }

    fn sends(&self, state: &State, steps: &mut Vec<Step>) {
        for (worker, held) in state.workers.iter().enumerate() {
            let Some(BelievedLease { task, token }) = *held else { continue };
            if state.claim(task, token).is_some_and(|claim| claim.stage == ClaimStage::Answered) {
                steps.extend([Verb::Complete, Verb::Fail].map(|verb| Step::Send { worker, verb }));
                let released = |claim: &&Claim| claim.stage == ClaimStage::Settling(Verb::Release);
                if state.task(task).claims.iter().flatten().filter(released).count() < self.bounds.releases {
                    steps.push(Step::Send { worker, verb: Verb::Release });
                }
            }
        }
    }

    fn read(&self, state: &mut State, server: usize, task: u8, intent: TaskIntent) {
        let document = state.task(task).document;
        state.servers[server] = Some(Operation { task, intent, stage: OperationStage::Read(document) });
        if self.fault == Some(InjectedFault::AnswerBeforeWrite)
            && let TaskIntent::Settle(token, Verb::Complete) = intent
            && document.rule(intent, self.fault) == Ruling::Change
        {
            let receipt = document.after(intent, &self.bounds, self.fault).receipt();
            record_receipt(state, task, token, ServerAnswer::Receipt(receipt));
            receive(state, task, intent, ServerAnswer::Receipt(receipt), self.bounds.withdrawals.is_some());
        }
    }

    fn write(&self, state: &mut State, server: usize, operation: Operation, read: &Document) {
        let Operation { task, intent, .. } = operation;
        let answer = match read.rule(intent, self.fault) {
            Ruling::Refuse => Some(ServerAnswer::Refused),
            Ruling::Repeat(receipt) => Some(ServerAnswer::RepeatedReceipt(receipt)),
            Ruling::Change => {
                let current = state.task(task).document;
                let is_guarded = match intent {
                    TaskIntent::Claim(_) => self.fault != Some(InjectedFault::ClaimWithoutGuard),
                    TaskIntent::Expire => self.fault != Some(InjectedFault::SweepWithoutGuard),
                    _ => true,
                };
                let lands = current.stamp == read.stamp || !is_guarded;
                // Without a guard the decision rests on the document that was read, and the change is made to the document
                // that is there now.
                lands.then(|| self.apply_write(state, task, intent, current))
            }
        };
        state.servers[server] = None;
        // No answer is modelled for the sweeper, which has no caller, nor for heartbeats, whose answer changes nothing that
        // a worker does here.
        let is_awaited = match intent {
            TaskIntent::Claim(_) | TaskIntent::Settle(..) => true,
            TaskIntent::Repeat(_) => answer != Some(ServerAnswer::Refused),
            _ => false,
        };
        if let Some(answer) = answer.filter(|_| is_awaited) {
            if let TaskIntent::Settle(token, _) = intent {
                record_receipt(state, task, token, answer);
            }
            state.servers[server] = Some(Operation { stage: OperationStage::Decided(answer), ..operation });
        }
        if answer.is_none() && matches!(intent, TaskIntent::Withdraw(_)) {
            // A withdrawal whose guarded write missed is tried again, until the task says what became of the lease.
            let current = state.task(task).document;
            state.servers[server] = Some(Operation { stage: OperationStage::Read(current), ..operation });
        }
    }

    /// Makes the write in the database, and records what it breaks: the document before is compared with the one after.
    fn apply_write(
        &self,
        state: &mut State,
        place: u8,
        intent: TaskIntent,
        before: Document,
    ) -> ServerAnswer {
        let mut after = before.after(intent, &self.bounds, self.fault);
        after.stamp = NEW_STAMP;
        let breaches = &mut state.breaches;
        let task = &mut state.tasks[usize::from(place)];
        breaches.left_final |= before.status.is_final() && after.status != before.status;
        if let TaskIntent::Settle(token, _) | TaskIntent::Heartbeat(token) = intent {
            breaches.foreign_token |= before.token != Some(token) && !is_late_complete(&before, intent);
        }
        if before.token.is_some() && after.token != before.token {
            let is_own = matches!(intent, TaskIntent::Settle(token, _) | TaskIntent::Withdraw(token)
                if before.token == Some(token));
            let is_due = intent == TaskIntent::Expire && task.is_expired;
            breaches.lease_ended_early |= !is_own && !is_due;
        }
        if after.attempt < before.attempt {
            let is_release = matches!(intent, TaskIntent::Settle(_, Verb::Release) | TaskIntent::Withdraw(_));
            breaches.attempt_decreased |= !is_release || after.attempt + 1 != before.attempt;
        }
        if let TaskIntent::Withdraw(token) = intent {
            let claim = task.claims[usize::from(token)];
            breaches.withdrawn_from_holder |=
                claim.is_some_and(|claim| claim.stage != ClaimStage::Unanswered);
        }
        task.document = after;
        task.is_expired &= matches!(intent, TaskIntent::Repeat(_));
        match (intent, after.token) {
            (TaskIntent::Claim(ClaimId { worker, .. }), Some(token)) => {
                let claim = Claim { worker, stage: ClaimStage::Unanswered, first_receipt: None };
                task.claims[usize::from(token)] = Some(claim);
                ServerAnswer::Leased(token)
            }
            (TaskIntent::Repeat(token), _) => ServerAnswer::Leased(token),
            _ => ServerAnswer::Receipt(after.receipt()),
        }
    }
}

/// The one write that a token without a lease may make: `complete`, as long as nobody has claimed the task since its
/// lease ran out. A claim that was undone is none.
fn is_late_complete(before: &Document, intent: TaskIntent) -> bool {
    let is_latest = |token: Token| {
        let since = &before.attempts[usize::from(token) + 1..];
        since.iter().all(|attempt| matches!(attempt, Attempt::Never | Attempt::Withdrawn))
    };
    matches!(intent, TaskIntent::Settle(token, Verb::Complete)
        if before.status == Status::Pending
            && before.attempts[usize::from(token)] == Attempt::Lost
            && is_latest(token))
}

/// The look-ups of claims with an id: these arrive early and late, also long after their worker has had the answer.
fn look_ups(state: &State, server: usize, steps: &mut Vec<Step>) {
    for (worker, wishes) in (0..).zip(&state.wishes) {
        for id in (0..=*wishes).map(|wish| ClaimId { worker, wish }) {
            for (task, document) in (0..).zip(state.tasks.iter().map(|task| &task.document)) {
                let does_something = match document.token_of(id) {
                    Some(token) => document.token == Some(token) || state.is_wanted(id),
                    None => document.is_ready(),
                };
                if does_something {
                    steps.push(Step::LookUp { server, task, id });
                }
            }
        }
    }
}

/// What a server does about a claim's id before it looks for work.
fn look_up(state: &mut State, server: usize, task: u8, id: ClaimId) {
    let document = state.task(task).document;
    let operation = match document.token_of(id) {
        None => Operation { task, intent: TaskIntent::Claim(id), stage: OperationStage::UnknownClaim },
        Some(token) if document.token == Some(token) => {
            Operation { task, intent: TaskIntent::Repeat(token), stage: OperationStage::Read(document) }
        }
        Some(_) => Operation {
            task,
            intent: TaskIntent::Claim(id),
            stage: OperationStage::Decided(ServerAnswer::NotHeld),
        },
    };
    state.servers[server] = Some(operation);
}

/// Keeps the first receipt of a settlement, and records whether a later one differs.
fn record_receipt(state: &mut State, task: u8, token: Token, answer: ServerAnswer) {
    if let ServerAnswer::Receipt(receipt) | ServerAnswer::RepeatedReceipt(receipt) = answer
        && let Some(claim) = &mut state.task_mut(task).claims[usize::from(token)]
    {
        let first = *claim.first_receipt.get_or_insert(receipt);
        state.breaches.receipts_differ |= first != receipt;
    }
}

/// An answer reaches its worker. An answer that the worker no longer waits for changes nothing.
fn receive(state: &mut State, task: u8, intent: TaskIntent, answer: ServerAnswer, has_ids: bool) {
    match (intent, answer) {
        (TaskIntent::Claim(id), ServerAnswer::Leased(token)) if state.is_wanted(id) => {
            receive_lease(state, task, token, id);
        }
        (TaskIntent::Claim(id), ServerAnswer::NotHeld) if state.is_wanted(id) => {
            state.wishes[usize::from(id.worker)] += 1;
        }
        (TaskIntent::Repeat(token), ServerAnswer::Leased(_)) => {
            state.breaches.withdrawn_from_holder |=
                state.task(task).document.attempts[usize::from(token)] == Attempt::Withdrawn;
            let id = state.task(task).document.claim_ids[usize::from(token)];
            if let Some(id) = id.filter(|id| state.is_wanted(*id)) {
                receive_lease(state, task, token, id);
            }
        }
        (TaskIntent::Settle(token, _), _) => {
            for (held, wish) in state.workers.iter_mut().zip(&mut state.wishes) {
                if held.take_if(|held| *held == BelievedLease { task, token }).is_some() && has_ids {
                    *wish += 1;
                }
            }
        }
        _ => {}
    }
}

/// The worker receives the lease that it wanted.
fn receive_lease(state: &mut State, task: u8, token: Token, id: ClaimId) {
    state.workers[usize::from(id.worker)] = Some(BelievedLease { task, token });
    if let Some(claim) = &mut state.task_mut(task).claims[usize::from(token)] {
        claim.stage = ClaimStage::Answered;
    }
}
