//! What happened to tasks, told within the server at the commit.
//!
//! The place where a write is known to be durable makes the event and gives it to the subscribers, whether the caller of
//! the write is still there or not. Nothing that must not be lost hangs on an event: a server that dies between the
//! commit and the event tells nobody, and what other servers did is not told here.

mod effects;
#[cfg(test)]
mod told_later;

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::task::{MoveRecord, Status, Step, TaskMove, TaskRecord};

pub use effects::{
    Effects, FailureEffect, FailureKey, HourEffect, HourKey, MAX_CODES, Moves, SeenFailures, Standing, Times,
    TypeEffect, TypeKey,
};

/// A write of one task that has become durable.
#[derive(Debug)]
pub struct TaskEvent<'a> {
    /// Where the task stood before; `None`: it has just been created.
    pub before: Option<Status>,
    /// What was done, in order: an entry for each version that the write has made.
    pub moves: &'a [MoveRecord],
    /// The task afterwards. With its payloads if it has just been created, otherwise perhaps without.
    pub task: &'a Arc<TaskRecord>,
}

impl TaskEvent<'_> {
    /// What is told of it: a move for each version.
    pub fn told(&self) -> Vec<TaskMove> {
        let task = self.task;
        let led_to = self.moves.iter().skip(1).filter_map(|next| next.from).chain([task.status]);
        let steps = self.moves.iter().zip(led_to).map(|(it, to)| Step {
            version: it.version,
            at: it.at,
            verb: it.verb,
            from: it.from,
            to,
            reason: task.reason.filter(|_| it.version == task.version),
            run_at: task.run_at.filter(|_| it.version == task.version),
            fields: it.fields.iter().map(|field| (*field).to_owned()).collect(),
        });
        steps.map(|step| TaskMove::of(task, step)).collect()
    }
}

type Subscriber = Box<dyn Fn(&TaskEvent<'_>) + Send + Sync>;

/// Gives events to whoever has subscribed. Subscribers are called one after the other by the task that carries the
/// write, so each must be quick and may not wait.
#[derive(Default)]
pub struct Hub {
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Hub {
    /// Calls `subscriber` with every event from now on.
    pub fn subscribe(&self, subscriber: impl Fn(&TaskEvent<'_>) + Send + Sync + 'static) {
        self.subscribers.write().push(Box::new(subscriber));
    }

    /// Tells all subscribers.
    pub fn emit(&self, event: &TaskEvent<'_>) {
        for subscriber in self.subscribers.read().iter() {
            subscriber(event);
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use task_repo_protocol::Uuid;

    use super::*;

    #[test]
    fn every_subscriber_hears_every_event_in_order() {
        let (hub, heard) = (Hub::default(), Arc::new(Mutex::new(Vec::new())));
        for name in ["a", "b"] {
            let heard = Arc::clone(&heard);
            hub.subscribe(move |event| heard.lock().push((name, event.before)));
        }
        let task = Arc::new(TaskRecord::pending(Uuid::nil()));
        for before in [None, Some(Status::Pending)] {
            hub.emit(&TaskEvent { before, moves: &[], task: &task });
        }
        let pending = Some(Status::Pending);
        assert_eq!(*heard.lock(), [("a", None), ("b", None), ("a", pending), ("b", pending)]);
    }
}
