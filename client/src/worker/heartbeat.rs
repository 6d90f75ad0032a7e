//! The heartbeat thread: renews leases and tells progress, whatever the handlers do to their runtime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use task_repo_protocol::{ErrorCode, HeartbeatItem, HeartbeatResult};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::WorkerError;
use super::event::{Events, WorkerEvent};
use super::lease::{CancelReason, HeldLease};
use crate::claimed::ClaimedTask;
use crate::client::TaskClient;
use crate::error::ClientError;
use crate::retry::{RetryBudget, endless_pauses};

/// Most heartbeats in one call.
const MAX_HEARTBEATS: usize = 1000;
/// Longest that a call with heartbeats may take, so that those after it are not late.
const MAX_CALL_TIME: Duration = Duration::from_secs(10);
/// Least time that a call with heartbeats is given, however short the leases.
const MIN_CALL_TIME: Duration = Duration::from_millis(500);
/// Longest delay before a failed heartbeat is sent again; for short leases it is a quarter of the interval.
const MAX_RESEND_DELAY: Duration = Duration::from_secs(5);

/// The leases of a worker and the thread that renews them. Dropped, the thread ends.
pub(crate) struct HeartbeatThread {
    shared: Arc<SharedLeases>,
    ended: oneshot::Receiver<()>,
}

#[derive(Default)]
struct SharedLeases {
    /// By lease token, because a task that is claimed again while an earlier attempt ends has two leases.
    leases: Mutex<HashMap<Arc<str>, Arc<HeldLease>>>,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl HeartbeatThread {
    /// Starts the thread.
    pub(crate) fn start(client: &TaskClient, events: Events) -> Result<Self, WorkerError> {
        // The thread has a runtime and connections of its own, so that a handler that blocks the worker's runtime does not
        // stop heartbeats.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(WorkerError::Thread)?;
        // The client does not repeat calls: a failed heartbeat is sent anew, with the progress known by then.
        let client = client.detached().map_err(WorkerError::Client)?.with_retry(RetryBudget::none());
        let shared = Arc::new(SharedLeases::default());
        let (end, ended) = oneshot::channel();
        let heartbeat_loop = HeartbeatLoop { shared: Arc::clone(&shared), client, events };
        std::thread::Builder::new()
            .name("task-heartbeats".to_owned())
            .spawn(move || {
                runtime.block_on(heartbeat_loop.run());
                // Does not wait for a look-up of a name that is under way.
                runtime.shutdown_background();
                // The worker may be gone and not wait for this.
                let _ = end.send(());
            })
            .map_err(WorkerError::Thread)?;
        Ok(Self { shared, ended })
    }

    /// Renews the task's lease from now on, until the guard is dropped. The first heartbeat comes after the usual interval,
    /// unless `first_heartbeat_at` says when.
    pub(crate) fn hold(&self, claimed: &ClaimedTask, first_heartbeat_at: Option<Instant>) -> LeaseGuard {
        let lease = Arc::new(HeldLease::new(claimed, first_heartbeat_at, Arc::clone(&self.shared.wake)));
        self.shared.leases().insert(Arc::clone(lease.token()), Arc::clone(&lease));
        self.shared.wake.notify_one();
        LeaseGuard { lease, shared: Arc::clone(&self.shared) }
    }

    /// Tells all handlers to stop.
    pub(crate) fn cancel_all(&self, reason: CancelReason) {
        let leases: Vec<_> = self.shared.leases().values().cloned().collect();
        for lease in leases {
            lease.cancel(reason);
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) async fn stop(mut self) {
        self.shared.stop.cancel();
        let _ = (&mut self.ended).await;
    }
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// A lease that is renewed as long as this lives.
pub(crate) struct LeaseGuard {
    lease: Arc<HeldLease>,
    shared: Arc<SharedLeases>,
}

impl LeaseGuard {
    pub(crate) fn lease(&self) -> &Arc<HeldLease> {
        &self.lease
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.shared.leases().remove(self.lease.token());
        // A handler on a thread of its own may still work on it.
        self.lease.cancel(CancelReason::Shutdown);
    }
}

impl SharedLeases {
    fn leases(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<HeldLease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leases to send heartbeats for now, or when the next one is due.
    fn due(&self, now: Instant) -> Result<Vec<Arc<HeldLease>>, Option<Instant>> {
        let leases = self.leases();
        let next = leases.values().map(|lease| lease.due_at(now)).min();
        if next.is_none_or(|next| next > now) {
            return Err(next);
        }
        // Leases that are nearly due go along, so that calls are fewer and fuller.
        let is_due = |lease: &&Arc<HeldLease>| lease.due_at(now) <= now + lease.interval / 4;
        Ok(leases.values().filter(is_due).cloned().collect())
    }
}

/// The loop that runs on the thread.
struct HeartbeatLoop {
    shared: Arc<SharedLeases>,
    client: TaskClient,
    events: Events,
}

impl HeartbeatLoop {
    async fn run(self) {
        let stop = self.shared.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.send_when_due() => {}
        }
    }

    async fn send_when_due(&self) {
        loop {
            match self.shared.due(Instant::now()) {
                Ok(leases) => {
                    for leases in leases.chunks(MAX_HEARTBEATS) {
                        self.send(leases).await;
                    }
                }
                Err(next) => {
                    let due = async {
                        match next {
                            Some(next) => tokio::time::sleep_until(next.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = due => {}
                        () = self.shared.wake.notified() => {}
                    }
                }
            }
        }
    }

    /// Sends the leases' heartbeats in one call; in halves, where something between finds one call too large.
    async fn send(&self, leases: &[Arc<HeldLease>]) {
        let now = Instant::now();
        let heartbeats: Vec<HeartbeatItem> = leases.iter().map(|lease| lease.heartbeat(now)).collect();
        // The next half is the last.
        let mut waiting = vec![(leases, &heartbeats[..])];
        while let Some((leases, heartbeats)) = waiting.pop() {
            let shortest = leases.iter().map(|lease| lease.interval).min().unwrap_or(MAX_CALL_TIME);
            let timeout = shortest.clamp(MIN_CALL_TIME, MAX_CALL_TIME);
            match self.client.send_heartbeats(heartbeats, timeout).await {
                Ok(results) if results.len() == leases.len() => {
                    for ((lease, heartbeat), result) in leases.iter().zip(heartbeats).zip(results) {
                        self.answered(lease, heartbeat, result);
                    }
                }
                Ok(_) => resend_all_soon(leases),
                Err(error) if error.is_too_large() && leases.len() > 1 => {
                    let half = leases.len() / 2;
                    waiting.push((&leases[half..], &heartbeats[half..]));
                    waiting.push((&leases[..half], &heartbeats[..half]));
                }
                Err(error) => {
                    if error.may_be_about_the_body() {
                        for lease in leases {
                            lease.drop_progress();
                        }
                    }
                    resend_all_soon(leases);
                    self.events.emit(WorkerEvent::HeartbeatFailed { error: &error, leases: leases.len() });
                }
            }
        }
    }

    fn answered(&self, lease: &HeldLease, heartbeat: &HeartbeatItem, result: HeartbeatResult) {
        let Some(problem) = result.problem else {
            lease.renewed(result.expires_at, result.cancel_requested.unwrap_or(false));
            return;
        };
        match problem.code {
            ErrorCode::LeaseLost | ErrorCode::TaskNotFound => {
                self.shared.leases().remove(lease.token());
                lease.lost();
            }
            ErrorCode::ValidationFailed | ErrorCode::PayloadTooLarge if heartbeat.progress.is_some() => {
                lease.progress_refused(Instant::now());
            }
            _ => {
                resend_soon(lease);
                let error = ClientError::Refused(Box::new(problem));
                self.events.emit(WorkerEvent::HeartbeatFailed { error: &error, leases: 1 });
            }
        }
    }
}

fn resend_all_soon(leases: &[Arc<HeldLease>]) {
    for lease in leases {
        resend_soon(lease);
    }
}

/// Has the next heartbeat sent sooner than after its interval; when exactly is left to chance, so that workers whose
/// heartbeats failed together do not send them again together.
fn resend_soon(lease: &HeldLease) {
    let shortest = (lease.interval / 4).min(MAX_RESEND_DELAY) / 2;
    lease.missed(Instant::now() + endless_pauses(shortest, shortest).next().unwrap_or(shortest));
}
