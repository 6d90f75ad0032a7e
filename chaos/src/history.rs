//! Every call and its answer, in the order in which the answers came.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use task_repo_client::{ClientError, ErrorCode, Uuid};

/// What a caller knows of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum Said {
    /// It was applied, and the service said so.
    Accepted,
    /// It was not applied, and never will be.
    Refused,
    /// It was not applied; another time it may be.
    Postponed,
    /// Nothing, or that it is not known.
    Unknown,
}

/// How an attempt was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Verb {
    /// With a result, which is the lease's token.
    Complete,
    /// Without one.
    Fail,
    /// Given back.
    Release,
}

/// A call and its answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) enum Event {
    /// A task was to be created under that name, which is its idempotency key too.
    Created { name: String, said: Said, id: Option<Uuid> },
    /// A worker got a task.
    Claimed { id: Uuid, token: String, attempt: u32, version: u64 },
    /// A worker that had said all the time that it was alive was told that it had lost its task.
    Taken { id: Uuid },
    /// A worker settled a task.
    Settled { id: Uuid, token: String, verb: Verb, said: Said, version: Option<u64> },
    /// An answer that the contract does not know.
    Odd { call: &'static str, answer: String },
}

/// All of them, and how long calls took.
pub(crate) struct History {
    inner: Mutex<Inner>,
}

struct Inner {
    began: Instant,
    health: Vec<Duration>,
    events: Vec<Event>,
    calls: u64,
    slowest: (Duration, &'static str),
    last_create: Instant,
    longest_without_create: Duration,
}

/// What was recorded.
pub(crate) struct Record {
    /// In the order of the answers.
    pub(crate) events: Vec<Event>,
    /// Calls in all.
    pub(crate) calls: u64,
    /// The longest call, beyond the time that it asked the service to wait, and which it was.
    pub(crate) slowest: (Duration, &'static str),
    /// The longest time between two accepted creates.
    pub(crate) longest_without_create: Duration,
    /// How long each question for the health of a server took while its database was exhausted.
    pub(crate) health: Vec<Duration>,
}

impl History {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let inner = Inner {
            began: Instant::now(),
            health: Vec::new(),
            events: Vec::new(),
            calls: 0,
            slowest: (Duration::ZERO, "none"),
            last_create: Instant::now(),
            longest_without_create: Duration::ZERO,
        };
        Self { inner: Mutex::new(inner) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long it is since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.with(|inner| inner.began.elapsed())
    }

    /// A server's health was asked for, which took so long.
    pub(crate) fn asked_for_health(&self, took: Duration) {
        self.with(|inner| inner.health.push(took));
    }

    /// Adds an event.
    pub(crate) fn note(&self, event: Event) {
        self.with(|inner| {
            if matches!(event, Event::Created { said: Said::Accepted, .. }) {
                inner.longest_without_create = inner.longest_without_create.max(inner.last_create.elapsed());
                inner.last_create = Instant::now();
            }
            inner.events.push(event);
        });
    }

    /// Makes a call that may ask the service to wait for so long, and says what its caller knows then.
    pub(crate) async fn call<T, E: Into<ClientError>>(
        &self,
        name: &'static str,
        wait: Duration,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Said> {
        let began = Instant::now();
        let answer = call.await.map_err(Into::into);
        let took = began.elapsed().saturating_sub(wait);
        self.with(|inner| {
            inner.calls += 1;
            inner.slowest = inner.slowest.max((took, name));
        });
        answer.map_err(|error| {
            if let Some(answer) = oddity(&error) {
                self.note(Event::Odd { call: name, answer });
            }
            match &error {
                ClientError::Refused(problem)
                    if matches!(problem.code, ErrorCode::Unavailable | ErrorCode::Overloaded) =>
                {
                    Said::Postponed
                }
                error if error.is_retryable() || error.may_have_been_applied() => Said::Unknown,
                _ => Said::Refused,
            }
        })
    }

    /// Ends it.
    pub(crate) fn record(&self) -> Record {
        self.with(|inner| Record {
            events: inner.events.clone(),
            calls: inner.calls,
            slowest: inner.slowest,
            longest_without_create: inner.longest_without_create,
            health: inner.health.clone(),
        })
    }

    /// Tasks that were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        let is_accepted = |event: &&Event| matches!(event, Event::Created { said: Said::Accepted, .. });
        self.with(|inner| inner.events.iter().filter(is_accepted).count())
    }
}

/// What no caller here should ever see.
fn oddity(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Transport(_) => None,
        // All that these callers may be told: not now, it is not known, or somebody else has the task.
        ClientError::Refused(problem) => {
            let is_expected =
                problem.retryable || matches!(problem.code, ErrorCode::OutcomeUnknown | ErrorCode::LeaseLost);
            (!is_expected).then(|| format!("{error}: {:?}", problem.errors))
        }
        other => Some(other.to_string()),
    }
}
