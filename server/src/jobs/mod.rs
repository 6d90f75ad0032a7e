//! The background jobs: what is done beside the requests, a file a job.
//!
//! Every server may run all of them: each step is a guarded update, so doing it twice changes nothing. What only one server
//! should do has a lease in the database. A database that does not answer makes a round fail, not the job.
//!
//! | file | what the job does |
//! |---|---|
//! | [`expire`] | takes back leases and attempts that ran out; [`renewals`] says which of them could not be renewed |
//! | [`promote`] | moves scheduled tasks that are due |
//! | [`wake`] | finds what other servers did, for the calls that wait here |
//! | [`registry`] | renews this server's entry, and asks what has changed that all servers must know |
//! | [`retain`] | removes tasks whose retention has ended |
//! | [`runner`], [`alarm`], [`due_moves`] | one runner for all of them, when a job's next round is, and moving due tasks page by page |

mod alarm;
mod due_moves;
mod expire;
mod promote;
mod registry;
mod renewals;
mod retain;
mod runner;
mod wake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use task_repo_protocol::system::BackgroundJob;

use crate::background::Background;
use crate::config::TaskSettings;
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::usecases::{EndWaits, Keys, TaskService};

use expire::Expire;
use promote::Promote;
use registry::{Registry, ThisServer};
use retain::Retain;
use runner::Runner;
use wake::Wake;

/// The jobs of a server.
pub struct Jobs {
    store: Store,
    settings: TaskSettings,
    dispatch: Arc<Dispatch>,
    end_waits: Arc<EndWaits>,
    keys: Arc<Keys>,
    background: Background,
    runner: Runner,
    server: Arc<ThisServer>,
}

impl Jobs {
    /// The jobs, which do not run yet.
    pub fn new(
        store: &Store,
        settings: TaskSettings,
        dispatch: &Arc<Dispatch>,
        service: &TaskService,
        keys: &Arc<Keys>,
        background: &Background,
    ) -> Self {
        Self {
            store: store.clone(),
            settings,
            dispatch: Arc::clone(dispatch),
            end_waits: Arc::clone(service.end_waits()),
            keys: Arc::clone(keys),
            background: background.clone(),
            runner: Runner::new(Arc::clone(store.clock()), background.clone()),
            server: Arc::new(ThisServer::new(store.clock().now())),
        }
    }

    /// Starts them; they end with the server's background work.
    pub fn run(&self) {
        let Self { store, settings, dispatch, end_waits, keys, background, runner, server } = self;
        let millis = Duration::from_millis;
        runner.run(Expire::new(store, background, millis(settings.sweep_interval_ms)));
        let (promote, alarm) = Promote::new(store, background);
        runner.run_by(promote, alarm);
        runner.run(Wake::new(store, dispatch, end_waits, millis(settings.wake_interval_ms)));
        runner.run(Registry::new(store, keys, server));
        runner.run(Retain::new(store, background, server, millis(settings.retention_interval_ms)));
    }

    /// How the jobs are doing, by name.
    pub fn states(&self) -> BTreeMap<String, BackgroundJob> {
        self.runner.states()
    }

    /// This server leaves: what it leaves undone runs out by itself.
    pub async fn sign_off(&self) {
        let job = self.store.release_job(retain::JOB, self.server.id());
        let _ = tokio::join!(job, self.store.remove_server(self.server.id()));
    }
}
