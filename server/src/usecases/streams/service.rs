//! The streams that are open on this server, and what all of them live on.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::background::Background;
use crate::store::{Store, StoreError};

use super::news::{News, NewsSender};
use super::registry::StreamLimits;
use super::registry::{OpenStreams, TaskWatchers};
use super::tail::Tail;
use super::tail::TailState;

/// How many streams may read the event log from far back at a time.
const FAR_BACK: usize = 8;
/// How many documents of the event log one read brings.
const DOCUMENTS_TOGETHER: i64 = 8;

/// The streams that are open on this server.
pub struct Streams {
    pub(super) store: Store,
    pub(super) open: Arc<OpenStreams>,
    pub(super) tasks: Arc<TaskWatchers>,
    pub(super) news: NewsSender,
    pub(super) tail: Tail,
    /// Each stream of a tenant has a share in it.
    pub(super) tenants: Arc<()>,
    /// The turns of those who read the event log from far back.
    pub(super) far_back: Semaphore,
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
        let news = super::news::bring(&store, &tasks, background);
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
    pub(super) async fn follow_log(&self, until: Instant) -> Result<(), StoreError> {
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
