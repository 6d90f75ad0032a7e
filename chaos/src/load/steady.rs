//! Workers that hold their tasks for long, and say all the time that they are alive. No task may ever be taken from one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use task_repo_client::{ClaimedTask, ErrorCode, HeartbeatItem, Payload, TaskClient};
use tokio::task::JoinSet;

use super::Caller;
use crate::event::{Event, Verb};
use crate::history::History;
use crate::workload::{LEASE, Phase, STEADY};

/// A worker whose heartbeats pause for longer may lose its task: a heartbeat needs time to arrive within the lease, and
/// this machine may have been too slow.
const SILENCE: Duration = Duration::from_millis(1500);

/// What came of a heartbeat.
enum Answer {
    /// The lease is longer now; when this was asked for.
    Renewed(Instant),
    /// Somebody else may have the task.
    Lost,
    /// Nothing, or that it cannot be done now.
    Nothing,
}

impl Caller {
    /// Claims tasks that take long, one at a time, and holds each for up to five leases.
    pub(crate) async fn work_steadily(mut self) {
        while self.phase() != Phase::Over {
            // The lease may be as old as the claim, if it is a repeat that brings it.
            let asked = Instant::now();
            let claimed = self.claim(&[STEADY], 1).await;
            let Some(task) = claimed.into_iter().next() else { continue };
            self.hold(&task, asked).await;
            self.settle(task, Verb::Complete).await;
        }
    }

    /// Sends heartbeats for a task to every server, one after the other, without waiting for answers. Ends only after a
    /// heartbeat was accepted, so that heartbeats are sent before, during and after an outage.
    async fn hold(&mut self, task: &ClaimedTask, asked: Instant) {
        let until = Instant::now() + LEASE.mul_f64(self.rng.random_range(1.0..5.0));
        let item = HeartbeatItem {
            id: task.id().to_string(),
            lease_token: task.lease_token().to_owned(),
            lease_seconds: None,
            progress: None,
            checkpoint: Payload::Omitted,
        };
        let mut answers = JoinSet::new();
        let (mut heartbeats, mut spoke, mut renewed) = (0, asked, None);
        let (mut was_never_silent, mut was_taken) = (true, false);
        while !was_taken && self.phase() != Phase::Over {
            let is_heard = renewed.is_some_and(|at: Instant| at.elapsed() < SILENCE);
            if is_heard && (Instant::now() > until || self.phase() == Phase::Drain) {
                break;
            }
            was_never_silent &= spoke.elapsed() < SILENCE;
            spoke = Instant::now();
            for server in &self.servers {
                answers.spawn(beat(server.clone(), item.clone(), Arc::clone(&self.history)));
                heartbeats += 1;
            }
            self.pause(300..500).await;
            while let Some(Ok(answer)) = answers.try_join_next() {
                match answer {
                    Answer::Renewed(at) => renewed = renewed.max(Some(at)),
                    Answer::Lost => was_taken = true,
                    Answer::Nothing => {}
                }
            }
        }
        self.history.note(Event::Held { id: task.id(), heartbeats, was_never_silent, was_taken });
    }
}

async fn beat(server: TaskClient, item: HeartbeatItem, history: Arc<History>) -> Answer {
    let asked = Instant::now();
    let beat = server.heartbeats(std::slice::from_ref(&item));
    let results = history.call("heartbeat", Duration::ZERO, beat).await.unwrap_or_default();
    match results.first().map(|result| &result.problem) {
        Some(None) => Answer::Renewed(asked),
        Some(Some(problem)) if problem.code == ErrorCode::LeaseLost => Answer::Lost,
        _ => Answer::Nothing,
    }
}
