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
//! | [`log_messages`] | what the event log tells those who watch a tenant |
//! | [`watch`], [`watch_tenant`] | opening the stream of a task, and that of a tenant |

mod history;
mod log_messages;
mod message;
mod news;
mod outbox;
mod registry;
mod tail;
mod watch;
mod watch_tenant;
mod watcher;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::background::Background;
use crate::store::{Store, StoreError};

pub use log_messages::StreamFilter;
use news::{News, NewsSender};
pub use outbox::Next;
pub use registry::StreamLimits;
use registry::{OpenStreams, TaskWatchers};
use tail::Tail;
pub use tail::TailState;
pub use watch::TaskStream;
use watch_tenant::FAR_BACK;
pub use watch_tenant::TenantStream;

/// How many documents of the event log one read brings.
const DOCUMENTS_TOGETHER: i64 = 8;

/// The streams that are open on this server.
pub struct Streams {
    store: Store,
    open: Arc<OpenStreams>,
    tasks: Arc<TaskWatchers>,
    news: NewsSender,
    tail: Tail,
    /// Each stream of a tenant has a share in it.
    tenants: Arc<()>,
    /// The turns of those who read the event log from far back.
    far_back: Semaphore,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("open", &self.open).finish_non_exhaustive()
    }
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
                let _ = told.send(News::Here(event.told(), Arc::clone(event.task)));
            }
        });
        Arc::new(Self {
            store,
            open: OpenStreams::new(limits),
            tasks,
            news,
            tail: Tail::default(),
            tenants: Arc::default(),
            far_back: Semaphore::new(FAR_BACK),
        })
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
        let is_watched = || self.tasks.is_any() || Arc::strong_count(&self.tenants) > 1;
        let Some(position) = self.tail.next(is_watched) else { return Ok(false) };
        let until = self.store.step_deadline();
        let documents = self.store.log_after(position, DOCUMENTS_TOGETHER, until).await?;
        let now = self.store.clock().now();
        if documents.is_empty() {
            if self.tail.found_nothing(now) {
                let end = self.store.log_end(until).await?;
                if end < position {
                    // The log was dropped, or restored from before.
                    self.tail.begin_anew(end, now);
                    self.tasks.cut_off_all();
                }
            }
            return Ok(false);
        }
        let numbers = documents.iter().map(|document| document.number);
        let has_hole = numbers.zip(position + 1..).any(|(number, expected)| number != expected);
        if has_hole || documents.iter().any(|document| document.gap.is_some()) {
            // What is missing stands in the histories of the tasks, which everybody reads who comes again.
            self.tasks.cut_off_all();
        }
        let is_full = documents.len() >= usize::try_from(DOCUMENTS_TOGETHER).unwrap_or_default();
        let moves = documents.iter().flat_map(|document| &document.moves);
        let moves: Vec<_> = moves.filter(|it| self.tasks.has(it.task)).cloned().collect();
        if !moves.is_empty() {
            let _ = self.news.send(News::There(moves));
        }
        self.tail.advance(documents, now);
        Ok(is_full)
    }
}
