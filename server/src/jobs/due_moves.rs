//! Moving tasks whose time has come: the most urgent of them first, a piece at a time.
//!
//! The index has them by time. So a window of it is read, and what is due of the window is moved by priority. Between two
//! pieces the job looks for what has become due meanwhile: an urgent task waits for one piece, not for all that was due
//! before it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::runner::{JobRound, Steps};
use crate::access::Scope;
use crate::lifecycle::{Intent, Refusal};
use crate::store::{Change, DuePage, DueTask, DueTasks, NotApplied, Store, StoreError};

/// How many due tasks are known at once, and put in order. 10 000 are read in about 50 ms and take 1 MB.
pub(super) const WINDOW: usize = 10_000;
/// How many tasks are moved together: as many as one write command carries.
const PIECE: usize = 500;

/// One round of a job that moves due tasks. A task that cannot be moved does not keep those behind it waiting.
pub(super) struct DueMoves<'a> {
    store: &'a Store,
    steps: &'a Steps,
    page: DuePage,
    /// What was read and is still to be moved.
    waiting: Vec<DueTask>,
    /// The window that was read last, where there may be more behind it, and which of its tasks are not due any more.
    full: Option<(DueTasks, HashSet<Uuid>)>,
    lag: Duration,
    unmoved: u64,
    failure: Option<StoreError>,
}

impl<'a> DueMoves<'a> {
    pub(super) fn new(store: &'a Store, steps: &'a Steps) -> Self {
        Self {
            store,
            steps,
            page: DuePage::default(),
            waiting: Vec::new(),
            full: None,
            lag: Duration::ZERO,
            unmoved: 0,
            failure: None,
        }
    }

    /// Where the next window begins. `None`: there is enough to do first.
    pub(super) fn next_page(&mut self) -> Option<&DuePage> {
        match self.full.take() {
            Some(full) if !self.waiting.is_empty() => {
                self.full = Some(full);
                return None;
            }
            Some((found, gone)) => {
                self.page = std::mem::take(&mut self.page).behind(&found, |id| !gone.contains(&id));
            }
            None => {}
        }
        Some(&self.page)
    }

    /// Adds a window that was read.
    pub(super) fn add(&mut self, mut found: DueTasks) {
        let now = self.store.clock().now();
        for at in found.strange.drain(..).filter(|at| *at <= now) {
            self.stays(at, now);
        }
        if found.is_full {
            self.waiting.extend(found.tasks.iter().cloned());
            self.full = Some((found, HashSet::new()));
        } else {
            self.page = std::mem::take(&mut self.page).after(&found);
            self.waiting.append(&mut found.tasks);
        }
        self.steps.step();
    }

    /// Leaves alone what is not `due` after all.
    pub(super) fn retain(&mut self, due: impl FnMut(&DueTask) -> bool) {
        self.waiting.retain(due);
    }

    /// Moves a piece of what is due, the most urgent first. Returns whether there is more to do.
    pub(super) async fn move_piece(&mut self, intent: impl Fn(&DueTask) -> Intent) -> bool {
        let now = self.store.clock().now();
        let is_due = |task: &DueTask| task.at <= now;
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_due);
        due.sort_by_key(|task| (Reverse(task.priority), task.at, task.id));
        self.waiting = due.split_off(due.len().min(PIECE));
        let has_more = !self.waiting.is_empty();
        self.waiting.extend(later);
        self.make(due, intent).await;
        self.steps.step();
        has_more || self.full.is_some() && self.waiting.is_empty()
    }

    /// When the next of what was read is due.
    pub(super) fn next(&self) -> Option<DateTime<Utc>> {
        self.waiting.iter().map(|task| task.at).min()
    }

    /// The result of the round.
    ///
    /// # Errors
    /// Why some could not be moved, if that was the database's doing.
    pub(super) fn end(self, pause: Duration) -> Result<JobRound, StoreError> {
        let Self { lag, unmoved, failure, .. } = self;
        failure.map_or(Ok(JobRound { lag, pause, unmoved }), Err)
    }

    async fn make(&mut self, mut due: Vec<DueTask>, intent: impl Fn(&DueTask) -> Intent) {
        let began = self.store.clock().now();
        // What could not be read a moment ago is not tried again at once: there may be many.
        let unread: HashSet<_> = self.store.unreadable().passed_by().into_iter().collect();
        for task in due.extract_if(.., |task| unread.contains(&task.id)) {
            self.stays(task.at, began);
        }
        if due.is_empty() {
            return;
        }
        let changes = due
            .iter()
            .map(|task| Change { scope: Scope::tenant(&task.tenant), id: task.id, intent: intent(task) })
            .collect();
        let results = self.store.apply(changes, self.store.step_deadline()).await;
        for (task, result) in due.iter().zip(results) {
            match result {
                Ok(_) => {
                    self.is_late(task.at, began);
                    self.goes(task.id);
                }
                // One that cannot be read would fail for ever, unlike a database that does not answer.
                Err(NotApplied::Store(StoreError::Unreadable)) => self.stays(task.at, began),
                Err(NotApplied::Task(Refusal::NotDue)) => {}
                Err(NotApplied::Store(error)) => self.failure = Some(error),
                // Another server, its worker or its owner was faster.
                Err(NotApplied::Missing | NotApplied::Task(_)) => self.goes(task.id),
            }
        }
    }

    fn goes(&mut self, id: Uuid) {
        if let Some((_, gone)) = &mut self.full {
            gone.insert(id);
        }
    }

    /// One is due, and stays where it is because it cannot be read.
    fn stays(&mut self, at: DateTime<Utc>, now: DateTime<Utc>) {
        self.unmoved += 1;
        self.is_late(at, now);
    }

    fn is_late(&mut self, at: DateTime<Utc>, now: DateTime<Utc>) {
        self.lag = self.lag.max((now - at).to_std().unwrap_or_default());
    }
}
