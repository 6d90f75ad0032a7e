//! The background jobs: what is done beside the requests, a file a job.
//!
//! Every server may run all of them: each step is a guarded update, so doing it twice changes nothing. What only one server
//! should do has a lease in the database. A database that does not answer makes a round fail, not the job.
//!
//! | file | what the job does |
//! |---|---|
//! | [`sweeper`] | takes back leases and attempts that ran out; [`renewals`] says which of them could not be renewed |
//! | [`promoter`] | moves scheduled tasks that are due |
//! | [`waker`] | finds what other servers did, for the calls that wait here |
//! | [`server_registry`] | renews this server's entry, and asks what has changed that all servers must know |
//! | [`retention`] | removes tasks whose retention has ended |
//! | [`feed_reader`] | reads the change stream of the tasks, and writes the event log, counts and roll-ups |
//! | [`log_reader`] | reads the event log for those who watch tasks on this server |
//! | [`index_check`] | notices that indexes are missing, and makes them again |
//! | [`runner`], [`alarm`], [`due_moves`] | one runner for all of them, when a job's next round is, and moving due tasks, the most urgent first |

mod alarm;
mod due_moves;
mod feed_reader;
mod index_check;
mod log_reader;
mod promoter;
mod renewals;
mod retention;
mod runner;
mod server_registry;
mod sweeper;
mod waker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use task_repo_protocol::system::BackgroundJob;

use crate::background::Background;
use crate::config::TaskSettings;
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::usecases::{Keys, Streams, TaskService};

use feed_reader::FeedReader;
pub use feed_reader::FeedState;
use index_check::IndexCheck;
use log_reader::LogReader;
use promoter::Promoter;
use retention::Retention;
use runner::Runner;
use server_registry::{ServerRegistry, ThisServer};
use sweeper::Sweeper;
use waker::Waker;

/// The jobs of a server.
pub struct Jobs {
    store: Store,
    background: Background,
    runner: Runner,
    server: Arc<ThisServer>,
    feed: Arc<FeedState>,
}

impl Jobs {
    /// None runs yet.
    pub fn new(store: Store, background: Background) -> Self {
        let runner = Runner::new(Arc::clone(store.clock()), background.clone(), store.timeout());
        let server = Arc::new(ThisServer::new(store.clock().now()));
        Self { store, background, runner, server, feed: Arc::default() }
    }

    /// Starts them; they end with the server's background work.
    pub fn run(
        &self,
        settings: TaskSettings,
        dispatch: &Arc<Dispatch>,
        service: &Arc<TaskService>,
        keys: &Arc<Keys>,
    ) {
        let Self { store, background, runner, server, feed } = self;
        let millis = Duration::from_millis;
        runner.run(Sweeper::new(store, background, service.types(), millis(settings.sweep_interval_ms)));
        let (promoter, alarm) = Promoter::new(store, background);
        runner.run_by(promoter, alarm);
        runner.run(Waker::new(store, dispatch, service.end_waits(), millis(settings.wake_interval_ms)));
        runner.run(ServerRegistry::new(store, keys, service, server));
        let (index_check, alarm) = IndexCheck::new(store);
        runner.run_by(index_check, alarm);
        let log_kept = TimeDelta::hours(settings.event_log_hours.into());
        runner.run(FeedReader::new(store, server, feed, log_kept));
        runner.run(Retention::new(store, background, server, millis(settings.retention_interval_ms)));
    }

    /// Reads the event log for those streams.
    pub fn read_log_for(&self, streams: &Arc<Streams>) {
        self.runner.run(LogReader::new(streams));
    }

    /// How far the feed is.
    pub fn feed(&self) -> &FeedState {
        &self.feed
    }

    /// How the jobs are doing, by name. The metrics of the jobs are set to the same.
    pub fn states(&self) -> BTreeMap<String, BackgroundJob> {
        self.runner.states()
    }

    /// This server leaves: what it leaves undone runs out by itself.
    pub async fn sign_off(&self) {
        let release = |job| self.store.release_job(job, self.server.id());
        let (retention, feed) = (release(retention::JOB), release(feed_reader::JOB));
        let _ = tokio::join!(retention, feed, self.store.remove_server(self.server.id()));
    }
}
