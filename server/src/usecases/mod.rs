//! What the service means: a file per intention, between the HTTP edge and the store.
//!
//! | file | intention |
//! |---|---|
//! | [`create`] | new tasks, one or many, and repeats of the same call |
//! | [`claim`], [`desk`], [`waiters`], [`round`], [`shelf`] | giving ready work to whoever asks, now or as soon as there is some |
//! | [`settle`] | what workers report |
//! | [`operate`] | what owners do: cancel, execute, edit, delete, run their own work |
//! | [`query`] | reading and listing, and waiting for the end of a task |
//! | [`sweep`], [`upkeep`] | the loops beside the requests |
//! | [`keys`] | issuing, rotating and checking API keys |

mod advice;
mod apart;
mod claim;
mod create;
mod desk;
mod failure;
mod idempotency;
mod key_end;
mod keys;
mod operate;
mod query;
mod round;
mod settle;
mod shelf;
mod sweep;
mod upkeep;
mod waiters;
mod watch;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::TaskSettings;
use crate::events::{Hub, TaskEvent};
use crate::store::Store;
use crate::task::Status;

pub use claim::Handout;
pub use create::Created;
pub use failure::{Failure, shortened};
pub use idempotency::IdempotencyKey;
pub use key_end::KeyEnd;
pub use keys::Identity;
pub use query::{ListQuery, Page, WrongCursor};
pub use settle::Settled;

/// The service behind the HTTP edge. One for a server, shared by all its requests.
pub struct TaskService {
    store: Store,
    settings: TaskSettings,
    server: upkeep::ThisServer,
    desk: Arc<desk::Desk>,
    watch: Arc<watch::Watch>,
    due: Arc<sweep::DueAlarm>,
    jobs: sweep::Jobs,
    pulse: sweep::Pulse,
    keys: keys::KeyRing,
    runtime: Handle,
    background: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
}

impl TaskService {
    /// The service on that database. Nothing runs until [`TaskService::run_background`].
    pub fn new(store: Store, settings: TaskSettings, bootstrap_key: &str) -> Arc<Self> {
        let (desk, watch, due) =
            (Arc::<desk::Desk>::default(), Arc::<watch::Watch>::default(), Arc::default());
        subscribe(store.hub(), &desk, &watch, &due);
        Arc::new(Self {
            server: upkeep::ThisServer::new(store.clock().now()),
            store,
            settings,
            desk,
            watch,
            due,
            jobs: sweep::Jobs::default(),
            pulse: sweep::Pulse::default(),
            keys: keys::KeyRing::new(bootstrap_key),
            runtime: Handle::current(),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// The database, for health answers and for the deadlines of requests.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How many claims wait for work of that type after a look that found none for them.
    pub fn idle_claims(&self, task_type: &str) -> usize {
        self.desk.idle(task_type)
    }

    /// How many calls wait for the end of a task after a look that found it unfinished.
    pub fn idle_reads(&self) -> usize {
        self.watch.idle()
    }

    /// Whether the server takes no new waiting calls because it is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Not ready any more; waiting calls are answered at once.
    pub fn drain(&self) {
        self.draining.cancel();
        self.desk.wake_all();
    }

    /// Ends the background loops and waits for what they and abandoned claims still do.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.background.close();
        self.background.wait().await;
        self.sign_off().await;
        self.store.close().await;
    }
}

/// Has whoever waits here hear of the moves that this server makes.
fn subscribe(hub: &Hub, desk: &Arc<desk::Desk>, watch: &Arc<watch::Watch>, due: &Arc<sweep::DueAlarm>) {
    let (desk, watch, due) = (Arc::clone(desk), Arc::clone(watch), Arc::clone(due));
    hub.subscribe(move |event| {
        let TaskEvent { before, task, .. } = event;
        if before.is_none() {
            metrics::counter!("task_repo_tasks_created_total").increment(1);
        }
        match task.status {
            _ if task.deleted_at.is_some() => watch.finished(task.id),
            // Its payloads are at hand: whoever waits need not look for it.
            Status::Pending if before.is_none() => desk.offer(task),
            Status::Pending => desk.returned(task),
            Status::Scheduled => {
                if let Some(run_at) = task.run_at {
                    due.set(run_at);
                }
            }
            Status::Completed | Status::Failed | Status::Cancelled => watch.finished(task.id),
            Status::Processing | Status::Held | Status::Other(_) => {}
        }
    });
}
