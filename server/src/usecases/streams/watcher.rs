//! One watcher of one task: what it has been told, and what waits to be sent to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use task_repo_protocol::StreamEventType;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::history::moves_after;
use super::message::{Audience, Message, messages};
use super::outbox::{Next, Outbox};
use crate::task::{MoveVerb, Status, TaskMove, TaskRecord};

/// The least time between two reports of progress: 250 ms by the watcher's clock, to which the way may bring two closer
/// together than they were sent.
const PROGRESS_PACE: Duration = Duration::from_millis(260);

/// What is told of a task at once.
#[derive(Debug)]
pub(super) struct Told {
    /// Its versions, in order.
    pub(super) versions: Vec<ToldVersion>,
    /// The task as it is with the last of them, where this server has made them.
    pub(super) task: Option<Arc<TaskRecord>>,
}

/// What is told of a version of a task.
#[derive(Debug)]
pub(super) struct ToldVersion {
    pub(super) version: i64,
    /// Where the task stands with it.
    pub(super) to: Status,
    pub(super) messages: Vec<Message>,
}

/// A watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    state: Mutex<State>,
    /// Something may be sent.
    ready: Notify,
}

#[derive(Debug)]
struct State {
    /// Told while the task was being read; `None`: it has been.
    early: Option<Vec<Arc<Told>>>,
    /// The latest version that the watcher has been told of, and where the task stood with it.
    told: i64,
    status: Status,
    outbox: Outbox,
    /// Progress whose time has not come yet.
    held: Option<Bytes>,
    /// When progress was last sent.
    progress_sent: Option<Instant>,
}

/// A message as a stream has it. `id`: where the stream is with it.
pub(super) fn event(id: Option<&str>, json: &str) -> Bytes {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    format!("{id}event: task_event\ndata: {json}\n\n").into()
}

impl Watcher {
    /// It hears of its task from now on, and is told once it is [begun](Self::begin).
    pub(super) fn new() -> Self {
        let state = State {
            early: Some(Vec::new()),
            told: 0,
            status: Status::Pending,
            outbox: Outbox::default(),
            held: None,
            progress_sent: None,
        };
        Self { state: Mutex::new(state), ready: Notify::new() }
    }

    /// The stream begins with `first` and these messages, after which the task stands where it was read. What came meanwhile
    /// follows, unless the stream is over with them.
    pub(super) fn begin(&self, task: &TaskRecord, first: Bytes, messages: &[Message], is_over: bool) {
        let mut state = self.state.lock();
        (state.told, state.status) = (task.version, task.status);
        state.outbox.push(first);
        for message in messages {
            state.put(message);
        }
        if is_over {
            state.release_held(Instant::now(), true);
            state.outbox.close();
        }
        for told in state.early.take().unwrap_or_default() {
            state.tell(&told);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Tells what happened, as far as the watcher has not been told yet.
    pub(super) fn tell(&self, told: &Arc<Told>) {
        let mut state = self.state.lock();
        match &mut state.early {
            Some(early) => early.push(Arc::clone(told)),
            None => state.tell(told),
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Whether that version would be news.
    pub(super) fn wants(&self, version: i64) -> bool {
        let state = self.state.lock();
        state.early.is_some() || (!state.outbox.is_closed() && version > state.told)
    }

    /// What the watcher would be told cannot be had: it is to come again.
    pub(super) fn cut_off(&self) {
        self.state.lock().outbox.cut_off();
        self.ready.notify_one();
    }

    /// The next thing to be sent.
    pub(super) async fn next(&self) -> Next {
        loop {
            let ready = self.ready.notified();
            let due = {
                let mut state = self.state.lock();
                state.release_held(Instant::now(), false);
                if let Some(next) = state.outbox.pop() {
                    return next;
                }
                state.held.as_ref().and(state.progress_sent).map(|sent| sent + PROGRESS_PACE)
            };
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, ready).await),
                None => ready.await,
            }
        }
    }
}

impl State {
    fn tell(&mut self, told: &Told) {
        for it in &told.versions {
            if it.version <= self.told || self.outbox.is_closed() {
                continue;
            }
            if it.version > self.told + 1
                && let Some(task) = &told.task
            {
                self.tell_missed(task, it.version);
            }
            for message in &it.messages {
                self.send(message);
            }
            (self.told, self.status) = (it.version, it.to);
        }
    }

    /// Tells of what other servers did since, of which the event log has not told yet, by the history of the task.
    fn tell_missed(&mut self, task: &TaskRecord, before: i64) {
        for it in moves_after(task, self.told, true) {
            if it.version > before || self.outbox.is_closed() {
                break;
            }
            // Only a task that has become ready can be started, and a promotion stands in no history.
            let is_waiting = matches!(self.status, Status::Scheduled | Status::Held);
            if it.start.is_some() && is_waiting && it.version > self.told + 1 {
                let at = task.pending_at.filter(|at| *at <= it.at).unwrap_or(it.at);
                let (from, to) = (Some(self.status), Status::Pending);
                let promoted = TaskMove { version: it.version - 1, at, from, to, start: None, ..it.clone() };
                let promoted = TaskMove { verb: MoveVerb::Promote, ..promoted };
                for message in &messages(&promoted, Audience::OfTask(None)) {
                    self.send(message);
                }
                (self.told, self.status) = (promoted.version, to);
            }
            if it.version == before {
                break;
            }
            if it.to == Status::Completed {
                // Its result is not at hand. Whoever resumes is told, from the database.
                return self.outbox.cut_off();
            }
            for message in &messages(&it, Audience::OfTask(None)) {
                self.send(message);
            }
            (self.told, self.status) = (it.version, it.to);
        }
    }

    /// Sends a message; the stream ends with a final one.
    fn send(&mut self, message: &Message) {
        self.put(message);
        if message.event_type.is_final() {
            self.outbox.close();
        }
    }

    fn put(&mut self, message: &Message) {
        let (now, text) = (Instant::now(), event(Some(&message.seq.to_string()), &message.json));
        if message.event_type == StreamEventType::ProgressUpdate {
            self.held = Some(text);
            self.release_held(now, false);
        } else {
            self.release_held(now, true);
            self.outbox.push(text);
        }
    }

    /// Sends progress whose time has come, or that must go before something else.
    fn release_held(&mut self, now: Instant, at_once: bool) {
        let is_due = self.progress_sent.is_none_or(|sent| sent + PROGRESS_PACE <= now);
        if (is_due || at_once)
            && let Some(held) = self.held.take()
        {
            self.outbox.push(held);
            self.progress_sent = Some(now);
        }
    }
}
