//! Every call and its answer, in the order in which the answers came, and in a file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};
use task_repo_client::{ClientError, ErrorCode, Uuid};

use crate::event::{Event, Said};
use crate::told::Told;

/// How many events of callers count as the newest ones.
const NEWEST: usize = 32;
/// A call that takes longer has met with a fault.
const SLOW: Duration = Duration::from_secs(1);
/// How the names of files begin that worker processes write.
const PROCESS: &str = "history-of-process-";

/// An event as it stands in a file, a line each.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    unix_ms: u128,
    event: E,
}

/// All of them, and how long calls took.
pub(crate) struct History {
    inner: Mutex<Inner>,
}

struct Inner {
    began: Instant,
    file: File,
    health: Vec<Duration>,
    events: Vec<Event>,
    told: HashMap<Uuid, Told>,
    /// Whatever callers were told, in its order.
    news: Vec<Uuid>,
    calls: u64,
    troubled: u64,
    slowest: (Duration, &'static str),
    last_create: Instant,
    longest_without_create: Duration,
}

/// What was recorded.
#[derive(Default)]
pub(crate) struct Record {
    /// In the order of the answers.
    pub(crate) events: Vec<Event>,
    /// Calls in all.
    pub(crate) calls: u64,
    /// The longest call, beyond the time that it asked the service to wait, and which it was.
    pub(crate) slowest: (Duration, &'static str),
    /// The longest time between two accepted creates, without the times in which producers wait for workers.
    pub(crate) longest_without_create: Duration,
    /// How long each question for the health of a server took while its database was exhausted.
    pub(crate) health: Vec<Duration>,
}

impl History {
    /// An empty one, which is written to a new file as it grows.
    pub(crate) fn new(file: &Path) -> Result<Self> {
        let inner = Inner {
            began: Instant::now(),
            file: File::create_new(file).with_context(|| format!("cannot write {}", file.display()))?,
            health: Vec::new(),
            events: Vec::new(),
            told: HashMap::new(),
            news: Vec::new(),
            calls: 0,
            troubled: 0,
            slowest: (Duration::ZERO, "none"),
            last_create: Instant::now(),
            longest_without_create: Duration::ZERO,
        };
        Ok(Self { inner: Mutex::new(inner) })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything is there now, and calls begin.
    pub(crate) fn begin(&self) {
        self.with(|inner| (inner.began, inner.last_create) = (Instant::now(), Instant::now()));
    }

    /// Producers wait for the workers from now on, or go on after they did.
    pub(crate) fn producers_wait(&self, wait: bool) {
        self.with(|inner| {
            if wait {
                inner.longest_without_create = inner.longest_without_create.max(inner.last_create.elapsed());
            }
            inner.last_create = Instant::now();
        });
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
            if let Some((id, told)) = Told::by(&event) {
                inner.told.entry(id).or_default().add(told);
                inner.news.push(id);
            }
            write(&mut inner.file, &event);
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
            let error = answer.as_ref().err().map(ToString::to_string);
            write(
                &mut inner.file,
                &Event::Called { call: name.to_owned(), took_ms: took.as_millis(), error },
            );
        });
        let answer = answer.map_err(|error| {
            if let Some(answer) = oddity(&error) {
                self.note(Event::Odd { call: name.to_owned(), answer });
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
        });
        if took > SLOW || matches!(answer, Err(Said::Postponed | Said::Unknown)) {
            self.with(|inner| inner.troubled += 1);
        }
        answer
    }

    /// Calls so far that brought nothing, or that it cannot be done now, or an answer very late.
    pub(crate) fn troubled(&self) -> u64 {
        self.with(|inner| inner.troubled)
    }

    /// A task that callers were told of, half of the time one of the newest, and what they were told so far.
    pub(crate) fn told(&self, rng: &mut SmallRng) -> Option<(Uuid, Told)> {
        self.with(|inner| {
            let newest = inner.news.len().saturating_sub(NEWEST);
            let from = if rng.random() { newest } else { 0 };
            let id = *inner.news[from..].choose(rng)?;
            Some((id, inner.told.get(&id)?.clone()))
        })
    }

    /// A reader was told of a task.
    pub(crate) fn tell(&self, id: Uuid, told: Told) {
        self.with(|inner| inner.told.entry(id).or_default().add(told));
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

/// Writes a line at once: whoever notes it may be killed at any moment.
fn write(file: &mut File, event: &Event) {
    let mut written = || {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let mut line = serde_json::to_vec(&Line { unix_ms, event })?;
        line.push(b'\n');
        anyhow::Ok(file.write_all(&line)?)
    };
    if let Err(error) = written() {
        eprintln!("an event is missing in the file of the history: {error}");
    }
}

/// Where a worker process writes its history.
pub(crate) fn file_of_process(folder: &Path) -> PathBuf {
    folder.join(format!("{PROCESS}{}.jsonl", std::process::id()))
}

/// The events of all worker processes that wrote there.
pub(crate) fn of_processes(folder: &Path) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PROCESS) {
            events.extend(read(&entry.path())?);
        }
    }
    Ok(events)
}

/// The events in a file.
fn read(file: &Path) -> Result<Vec<Event>> {
    events(&String::from_utf8_lossy(&std::fs::read(file)?))
        .with_context(|| format!("what stands in {}", file.display()))
}

/// Those of a process that was killed may end in the middle of a line, which does not count.
fn events(text: &str) -> Result<Vec<Event>> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| Ok(serde_json::from_str::<Line<Event>>(line)?.event)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_noted_is_read_without_its_torn_last_line() {
        let odd = Event::Odd { call: "create".to_owned(), answer: "500\n\u{fe}".to_owned() };
        let held = Event::Held { id: Uuid::nil(), heartbeats: 3, was_never_silent: true, was_taken: false };
        let line = |event| serde_json::to_string(&Line { unix_ms: 1, event }).unwrap();
        let text = format!("{}\n{}\n{}", line(&odd), line(&held), &line(&odd)[..20]);
        assert_eq!(events(&text).unwrap(), [odd, held]);
        assert!(events("").unwrap().is_empty());
        assert!(events("torn\n{").is_err());
    }
}
