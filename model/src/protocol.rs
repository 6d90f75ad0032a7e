//! The steps that workers, servers and time take.

use stateright::{Model, Property};

use crate::document::{Attempt, Call, Document, MAX_CLAIMS, Ruling, Status, Token, Verb};
use crate::state::{Answer, Claim, FRESH, Held, Operation, Stage, State, Word};
use crate::{Bounds, Variation, properties};

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
    fn reads(&self, state: &State, steps: &mut Vec<Step>) {
        let mut calls = Vec::new();
        for (place, task) in (0..).zip(&state.tasks) {
            let document = &task.document;
            if document.status == Status::Pending && document.claims() < MAX_CLAIMS {
                let idle = (0..).zip(&state.workers).filter(|(_, held)| held.is_none());
                calls.extend(idle.map(|(worker, _)| (place, Call::Claim(worker))));
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
            hear(state, task, call, Answer::Receipt(receipt));
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
        let is_awaited = matches!(call, Call::Claim(_) | Call::Settle(..));
        if let Some(answer) = answer.filter(|_| is_awaited) {
            if let Call::Settle(token, _) = call {
                tell(state, task, token, answer);
            }
            state.servers[server] = Some(Operation { stage: Stage::Decided(answer), ..operation });
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
            let is_own = matches!(call, Call::Settle(token, _) if before.token == Some(token));
            let is_due = call == Call::Expire && task.is_overdue;
            breaches.lease_stolen |= !is_own && !is_due;
        }
        if after.attempt < before.attempt {
            let is_release = matches!(call, Call::Settle(_, Verb::Release));
            breaches.attempt_fell |= !is_release || after.attempt + 1 != before.attempt;
        }
        task.document = after;
        task.is_overdue = false;
        match (call, after.token) {
            (Call::Claim(worker), Some(token)) => {
                let claim = Claim { worker, word: Word::Unheard, told: None };
                task.claims[usize::from(token)] = Some(claim);
                Answer::Leased(token)
            }
            _ => Answer::Receipt(after.receipt()),
        }
    }
}

/// The one write that a token without a lease may make: `complete`, as long as nobody has claimed the task since its
/// lease ran out.
fn is_late_complete(before: &Document, call: Call) -> bool {
    matches!(call, Call::Settle(token, Verb::Complete)
        if before.status == Status::Pending
            && before.attempts[usize::from(token)] == Attempt::Lost
            && before.claims() == usize::from(token) + 1)
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
fn hear(state: &mut State, task: u8, call: Call, answer: Answer) {
    match (call, answer) {
        (Call::Claim(worker), Answer::Leased(token)) => {
            let held = &mut state.workers[usize::from(worker)];
            if held.is_none() {
                *held = Some(Held { task, token });
                if let Some(claim) = &mut state.task_mut(task).claims[usize::from(token)] {
                    claim.word = Word::Heard;
                }
            }
        }
        (Call::Settle(token, _), _) => {
            for held in &mut state.workers {
                held.take_if(|held| *held == Held { task, token });
            }
        }
        _ => {}
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (server, operation) in state.servers.iter().enumerate() {
            if let Some(operation) = operation {
                steps.push(match operation.stage {
                    Stage::Read(_) => Step::Write { server },
                    Stage::Decided(_) => Step::Answer { server },
                });
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

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Read { server, task, call } => self.read(&mut state, server, task, call),
            Step::Write { server } => {
                let operation = state.servers[server]?;
                let Stage::Read(read) = operation.stage else { return None };
                self.write(&mut state, server, operation, &read);
            }
            Step::Answer { server } => {
                let Operation { task, call, stage } = state.servers[server].take()?;
                let Stage::Decided(answer) = stage else { return None };
                hear(&mut state, task, call, answer);
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

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
