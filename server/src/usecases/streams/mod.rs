//! Watching tasks: the streams that are open on this server.
//!
//! Watching costs the database one read when a stream is opened. What this server does is told at the commit; what others do
//! is read from the event log, by one reader for all who watch here.
//!
//! | file | what it does |
//! |---|---|
//! | [`message`] | what watchers are told of a version of a task |
//! | [`history`] | what the history of a task tells of versions that nobody here was told of |
//! | [`watcher`], [`outbox`] | one watcher of a task, and what waits to be sent to it |
//! | [`registry`] | the watchers of tasks, and how many streams are open |
//! | [`news`] | brings what happened to those who watch |
//! | [`tail`] | how far the event log has been read |
//! | [`watch`] | opening the stream of a task |

mod history;
mod message;
mod news;
mod outbox;
mod registry;
mod tail;
mod watch;
mod watcher;

use std::sync::Arc;
use std::time::Instant;

use crate::background::Background;
use crate::events::TaskMove;
use crate::store::{Store, StoreError};

use news::{News, NewsSender};
pub use outbox::Next;
pub use registry::StreamLimits;
use registry::{OpenStreams, TaskWatchers};
use tail::Tail;
pub use tail::TailState;
pub use watch::TaskStream;

/// How many documents of the event log one read brings.
const DOCUMENTS_TOGETHER: i64 = 8;

/// The streams that are open on this server.
pub struct Streams {
    store: Store,
    open: Arc<OpenStreams>,
    tasks: Arc<TaskWatchers>,
    news: NewsSender,
    tail: Tail,
}

impl Streams {
    /// None yet. They hear from the hub what this server does.
    pub fn new(store: Store, limits: StreamLimits, background: &Background) -> Arc<Self> {
        let tasks = Arc::<TaskWatchers>::default();
        let news = news::bring(&store, &tasks, background);
        let (heard, told) = (Arc::clone(&tasks), news.clone());
        store.hub().subscribe(move |event| {
            if heard.has(event.task.id) {
                // Without a receiver the server stops, and so do its streams.
                let _ = told.send(News::Here(TaskMove::of_event(event), Arc::clone(event.task)));
            }
        });
        Arc::new(Self { store, open: OpenStreams::new(limits), tasks, news, tail: Tail::default() })
    }

    /// How many streams are open.
    pub fn count(&self) -> usize {
        self.open.count()
    }

    /// How far the event log has been read.
    pub fn tail(&self) -> TailState {
        self.tail.state()
    }

    /// Has the event log read from now on. Whoever watches must be registered by now, and reads afterwards what it watches:
    /// so each change is either in what was read, or comes from the log.
    async fn follow_log(&self, until: Instant) -> Result<(), StoreError> {
        if self.tail.state().position.is_none() {
            self.tail.begin(self.store.log_end(until).await?);
        }
        Ok(())
    }

    /// Reads on in the event log for all who watch here. Returns whether there may be more.
    ///
    /// # Errors
    /// When the database does not answer; the next read goes on from the same place.
    pub async fn read_log(&self) -> Result<bool, StoreError> {
        let Some(position) = self.tail.next(|| self.tasks.is_any()) else { return Ok(false) };
        let until = self.store.step_deadline();
        let documents = self.store.log_after(position, DOCUMENTS_TOGETHER, until).await?;
        let now = self.store.clock().now();
        let Some(last) = documents.last() else {
            if self.tail.found_nothing(now) && self.store.log_end(until).await? < position {
                // The log was dropped, or restored from before: numbers have begun anew.
                let end = self.store.log_end(until).await?;
                self.tail.advance(end, None, now);
                self.tasks.cut_off_all();
            }
            return Ok(false);
        };
        let numbers = documents.iter().map(|document| document.number);
        let has_hole = numbers.zip(position + 1..).any(|(number, expected)| number != expected);
        if has_hole || documents.iter().any(|document| document.gap.is_some()) {
            // What is missing stands in the histories of the tasks, which everybody reads who comes again.
            self.tasks.cut_off_all();
        }
        let (number, is_full) = (last.number, documents.len() >= DOCUMENTS_TOGETHER.unsigned_abs() as usize);
        let latest = documents.iter().flat_map(|document| &document.moves).map(|it| it.at).max();
        let moves = documents.into_iter().flat_map(|document| document.moves);
        let moves: Vec<_> = moves.filter(|it| self.tasks.has(it.task)).collect();
        if !moves.is_empty() {
            let _ = self.news.send(News::There(moves));
        }
        self.tail.advance(number, latest, now);
        Ok(is_full)
    }
}
