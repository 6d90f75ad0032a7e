//! The steps that workers, servers and time take.

use crate::bounds::Bounds;
use crate::document::{Attempt, Call, ClaimId, Document, Ruling, Status, Token, Verb};
use crate::fault::Variation;
use crate::state::{Answer, Claim, FRESH, Held, Operation, Stage, State, Word};

/// The protocol within bounds, as it is built or broken on purpose.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// How much of everything there is.
    pub bounds: Bounds,
    /// What is wrong with it.
    pub variation: Variation,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A server takes up a request that has reached it, or its sweeper takes up a lease that ran out, and reads the
    /// task.
    Read {
        /// Which one.
        server: usize,
        /// Of which task.
        task: u8,
        /// What for.
        call: Call,
    },
    /// A server looks whether it knows a claim with that id, before it looks for work. If it does not, it looks for work
    /// later, in a step of its own.
    Look {
        /// Which one.
        server: usize,
        /// At which task.
        task: u8,
        /// Which one it looks for.
        id: ClaimId,
    },
    /// A server decides by what it read, and makes the guarded write if one is needed. A write that misses ends the
    /// operation without an answer: the request, which may arrive again at any time, is then read for anew.
    Write {
        /// Which one.
        server: usize,
    },
    /// A server's answer reaches the worker.
    Answer {
        /// Which one.
        server: usize,
    },
    /// A server notices that nobody waits for what it claimed, and reads the task to take it back.
    Gone {
        /// Which one.
        server: usize,
    },
    /// A server forgets what it has under way: it stopped, or the connection broke. Its answer is lost; what it wrote is
    /// not.
    Stop {
        /// Which one.
        server: usize,
    },
    /// A lease runs out.
    RunOut {
        /// Whose.
        task: u8,
    },
    /// A worker settles what it believes to hold. From now on the request may arrive at any server, any number of times,
    /// or never.
    Send {
        /// Which one.
        worker: usize,
        /// How.
        verb: Verb,
    },
}

impl Protocol {
    /// The steps that can be taken from here.
    pub(crate) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (server, operation) in state.servers.iter().enumerate() {
            if let Some(operation) = operation {
                let Operation { task, call, stage } = *operation;
                match stage {
                    Stage::New if state.task(task).document.is_ready() => {
                        steps.push(Step::Read { server, task, call });
                    }
                    Stage::New => {}
                    Stage::Read(_) => steps.push(Step::Write { server }),
                    Stage::Decided(_) => steps.push(Step::Answer { server }),
                }
                let is_lease = matches!((call, stage), (Call::Claim(_), Stage::Decided(Answer::Leased(_))));
                if is_lease && self.bounds.withdrawals.is_some_and(|most| state.withdrawals() < most) {
                    steps.push(Step::Gone { server });
                }
                steps.push(Step::Stop { server });
            }
        }
        for (place, task) in (0..).zip(&state.tasks) {
            if task.document.status == Status::Processing && !task.is_overdue {
                steps.push(Step::RunOut { task: place });
            }
        }
        self.sends(state, steps);
        self.reads(state, steps);
    }

    /// Everything after one step; `None`: it cannot be taken.
    pub(crate) fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Read { server, task, call } => self.read(&mut state, server, task, call),
            Step::Look { server, task, id } => look(&mut state, server, task, id),
            Step::Gone { server } => {
                let Operation { task, stage: Stage::Decided(Answer::Leased(token)), .. } =
                    state.servers[server]?
                else {
                    return None;
                };
                self.read(&mut state, server, task, Call::Withdraw(token));
            }
            Step::Write { server } => {
                let operation = state.servers[server]?;
                let Stage::Read(read) = operation.stage else { return None };
                self.write(&mut state, server, operation, &read);
            }
            Step::Answer { server } => {
                let Operation { task, call, stage } = state.servers[server].take()?;
                let Stage::Decided(answer) = stage else { return None };
                hear(&mut state, task, call, answer, self.bounds.withdrawals.is_some());
            }
            Step::Stop { server } => state.servers[server] = None,
            Step::RunOut { task } => state.task_mut(task).is_overdue = true,
            Step::Send { worker, verb } => {
                let Held { task, token } = state.workers[worker]?;
                state.task_mut(task).claims[usize::from(token)].as_mut()?.word = Word::Sent(verb);
            }
        }
        Some(state.representative())
    }

    fn reads(&self, state: &State, steps: &mut Vec<Step>) {
        let mut calls = Vec::new();
        for (place, task) in (0..).zip(&state.tasks) {
            let document = &task.document;
            if document.is_ready() && self.bounds.withdrawals.is_none() {
                let idle = (0..).zip(&state.workers).filter(|(_, held)| held.is_none());
                let claim = |worker| Call::Claim(ClaimId { worker, wish: 0 });
                calls.extend(idle.map(|(worker, _)| (place, claim(worker))));
            }
            if task.is_overdue && self.variation != Variation::NoSweeper {
                calls.push((place, Call::Expire));
            }
        }
        for (task, token, claim) in state.claims() {
            let is_held = state.is_held(task, token);
            if let Word::Sent(verb) = claim.word
                && (is_held || self.bounds.late_requests)
            {
                calls.push((task, Call::Settle(token, verb)));
            }
            if claim.word != Word::Unheard && self.bounds.heartbeats && (is_held || self.bounds.late_requests)
            {
                calls.push((task, Call::Heartbeat(token)));
            }
        }
        // Servers are alike: which of those that are free takes it makes no difference.
        if let Some(server) = state.servers.iter().position(Option::is_none) {
            steps.extend(calls.into_iter().map(|(task, call)| Step::Read { server, task, call }));
            if self.bounds.withdrawals.is_some() {
                looks(state, server, steps);
            }
        }
    }

    fn sends(&self, state: &State, steps: &mut Vec<Step>) {
        for (worker, held) in state.workers.iter().enumerate() {
            let Some(Held { task, token }) = *held else { continue };
            if state.claim(task, token).is_some_and(|claim| claim.word == Word::Heard) {
                steps.extend([Verb::Complete, Verb::Fail].map(|verb| Step::Send { worker, verb }));
                let released = |claim: &&Claim| claim.word == Word::Sent(Verb::Release);
                if state.task(task).claims.iter().flatten().filter(released).count() < self.bounds.releases {
                    steps.push(Step::Send { worker, verb: Verb::Release });
                }
            }
        }
    }

    fn read(&self, state: &mut State, server: usize, task: u8, call: Call) {
        let document = state.task(task).document;
        state.servers[server] = Some(Operation { task, call, stage: Stage::Read(document) });
        if self.variation == Variation::AnswerBeforeWrite
            && let Call::Settle(token, Verb::Complete) = call
            && document.rule(call, self.variation) == Ruling::Change
        {
            let receipt = document.after(call, &self.bounds, self.variation).receipt();
            tell(state, task, token, Answer::Receipt(receipt));
            hear(state, task, call, Answer::Receipt(receipt), self.bounds.withdrawals.is_some());
        }
    }

    fn write(&self, state: &mut State, server: usize, operation: Operation, read: &Document) {
        let Operation { task, call, .. } = operation;
        let answer = match read.rule(call, self.variation) {
            Ruling::Refuse => Some(Answer::Refused),
            Ruling::Repeat(receipt) => Some(Answer::Again(receipt)),
            Ruling::Change => {
                let current = state.task(task).document;
                let is_guarded = match call {
                    Call::Claim(_) => self.variation != Variation::ClaimWithoutGuard,
                    Call::Expire => self.variation != Variation::SweepWithoutGuard,
                    _ => true,
                };
                let lands = current.stamp == read.stamp || !is_guarded;
                // Without the guard the decision was made about what was read, and the change is made to what is there.
                lands.then(|| self.land(state, task, call, current))
            }
        };
        state.servers[server] = None;
        // Nobody waits for the sweeper, and what a heartbeat is told changes nothing that a worker does here.
        let is_awaited = match call {
            Call::Claim(_) | Call::Settle(..) => true,
            Call::Repeat(_) => answer != Some(Answer::Refused),
            _ => false,
        };
        if let Some(answer) = answer.filter(|_| is_awaited) {
            if let Call::Settle(token, _) = call {
                tell(state, task, token, answer);
            }
            state.servers[server] = Some(Operation { stage: Stage::Decided(answer), ..operation });
        }
        if answer.is_none() && matches!(call, Call::Withdraw(_)) {
            // It does not rest until the database has said what became of it.
            let current = state.task(task).document;
            state.servers[server] = Some(Operation { stage: Stage::Read(current), ..operation });
        }
    }

    /// The write is in the database. The observer compares before and after.
    fn land(&self, state: &mut State, place: u8, call: Call, before: Document) -> Answer {
        let mut after = before.after(call, &self.bounds, self.variation);
        after.stamp = FRESH;
        let breaches = &mut state.breaches;
        let task = &mut state.tasks[usize::from(place)];
        breaches.left_final |= before.status.is_final() && after.status != before.status;
        if let Call::Settle(token, _) | Call::Heartbeat(token) = call {
            breaches.strange_token |= before.token != Some(token) && !is_late_complete(&before, call);
        }
        if before.token.is_some() && after.token != before.token {
            let is_own = matches!(call, Call::Settle(token, _) | Call::Withdraw(token)
                if before.token == Some(token));
            let is_due = call == Call::Expire && task.is_overdue;
            breaches.lease_stolen |= !is_own && !is_due;
        }
        if after.attempt < before.attempt {
            let is_release = matches!(call, Call::Settle(_, Verb::Release) | Call::Withdraw(_));
            breaches.attempt_fell |= !is_release || after.attempt + 1 != before.attempt;
        }
        if let Call::Withdraw(token) = call {
            let claim = task.claims[usize::from(token)];
            breaches.withdrawn_from_holder |= claim.is_some_and(|claim| claim.word != Word::Unheard);
        }
        task.document = after;
        task.is_overdue &= matches!(call, Call::Repeat(_));
        match (call, after.token) {
            (Call::Claim(ClaimId { worker, .. }), Some(token)) => {
                let claim = Claim { worker, word: Word::Unheard, told: None };
                task.claims[usize::from(token)] = Some(claim);
                Answer::Leased(token)
            }
            (Call::Repeat(token), _) => Answer::Leased(token),
            _ => Answer::Receipt(after.receipt()),
        }
    }
}

/// The one write that a token without a lease may make: `complete`, as long as nobody has claimed the task since its
/// lease ran out. A claim that was undone is none.
fn is_late_complete(before: &Document, call: Call) -> bool {
    let is_latest = |token: Token| {
        let since = &before.attempts[usize::from(token) + 1..];
        since.iter().all(|attempt| matches!(attempt, Attempt::Never | Attempt::Withdrawn))
    };
    matches!(call, Call::Settle(token, Verb::Complete)
        if before.status == Status::Pending
            && before.attempts[usize::from(token)] == Attempt::Lost
            && is_latest(token))
}

/// Claims with an id arrive early and late, also those whose answer was heard long ago.
fn looks(state: &State, server: usize, steps: &mut Vec<Step>) {
    for (worker, wishes) in (0..).zip(&state.wishes) {
        for id in (0..=*wishes).map(|wish| ClaimId { worker, wish }) {
            for (task, document) in (0..).zip(state.tasks.iter().map(|task| &task.document)) {
                let does_something = match document.token_of(id) {
                    Some(token) => document.token == Some(token) || state.is_wanted(id),
                    None => document.is_ready(),
                };
                if does_something {
                    steps.push(Step::Look { server, task, id });
                }
            }
        }
    }
}

/// What a server does about a claim's id before it looks for work.
fn look(state: &mut State, server: usize, task: u8, id: ClaimId) {
    let document = state.task(task).document;
    let operation = match document.token_of(id) {
        None => Operation { task, call: Call::Claim(id), stage: Stage::New },
        Some(token) if document.token == Some(token) => {
            Operation { task, call: Call::Repeat(token), stage: Stage::Read(document) }
        }
        Some(_) => Operation { task, call: Call::Claim(id), stage: Stage::Decided(Answer::Nothing) },
    };
    state.servers[server] = Some(operation);
}

/// The observer notes what a server says of a settlement.
fn tell(state: &mut State, task: u8, token: Token, answer: Answer) {
    if let Answer::Receipt(receipt) | Answer::Again(receipt) = answer
        && let Some(claim) = &mut state.task_mut(task).claims[usize::from(token)]
    {
        let first = *claim.told.get_or_insert(receipt);
        state.breaches.other_receipt |= first != receipt;
    }
}

/// The worker learns the answer. One that it does not wait for any more is as good as lost.
fn hear(state: &mut State, task: u8, call: Call, answer: Answer, has_ids: bool) {
    match (call, answer) {
        (Call::Claim(id), Answer::Leased(token)) if state.is_wanted(id) => get(state, task, token, id),
        (Call::Claim(id), Answer::Nothing) if state.is_wanted(id) => {
            state.wishes[usize::from(id.worker)] += 1;
        }
        (Call::Repeat(token), Answer::Leased(_)) => {
            state.breaches.withdrawn_from_holder |=
                state.task(task).document.attempts[usize::from(token)] == Attempt::Withdrawn;
            let id = state.task(task).document.claim_ids[usize::from(token)];
            if let Some(id) = id.filter(|id| state.is_wanted(*id)) {
                get(state, task, token, id);
            }
        }
        (Call::Settle(token, _), _) => {
            for (held, wish) in state.workers.iter_mut().zip(&mut state.wishes) {
                if held.take_if(|held| *held == Held { task, token }).is_some() && has_ids {
                    *wish += 1;
                }
            }
        }
        _ => {}
    }
}

/// The worker has the lease that it wanted.
fn get(state: &mut State, task: u8, token: Token, id: ClaimId) {
    state.workers[usize::from(id.worker)] = Some(Held { task, token });
    if let Some(claim) = &mut state.task_mut(task).claims[usize::from(token)] {
        claim.word = Word::Heard;
    }
}
