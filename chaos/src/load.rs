//! Producers and workers, built on the client, who note each call and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use task_repo_client::{
    Backoff, Claim, ClaimedTask, ClientError, Json, ListTasks, NewRetryPolicy, NewTask, Receipt, SettleError,
    TaskClient, TaskFailure, Uuid,
};
use tokio::sync::watch;

use crate::event::{Event, Said, Verb};
use crate::history::History;
use crate::workload::{LEASE, ODD, POISON, Phase, QUEUES, STEADY};

mod steady;

/// Attempts of every task: more than it may lose, so that each limit shows by itself.
const ATTEMPTS: i64 = 50;
/// How long a claim waits.
const WAIT: Duration = Duration::from_millis(500);

/// A caller: its servers, its random numbers, and its history.
pub(crate) struct Caller {
    name: String,
    servers: Vec<TaskClient>,
    rng: SmallRng,
    history: Arc<History>,
    phase: watch::Receiver<Phase>,
    has_backlog: Arc<AtomicBool>,
    aborts_on_poison: bool,
}

/// What the callers of a run have in common.
pub(crate) struct Load {
    servers: Vec<TaskClient>,
    seed: u64,
    history: Arc<History>,
    phase: watch::Receiver<Phase>,
    has_backlog: Arc<AtomicBool>,
    aborts_on_poison: bool,
}

impl Load {
    /// For callers of these servers.
    pub(crate) fn new(
        servers: Vec<TaskClient>,
        seed: u64,
        history: Arc<History>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { servers, seed, history, phase, has_backlog: Arc::default(), aborts_on_poison: false }
    }

    /// One more caller; each number has its own random numbers.
    pub(crate) fn caller(&self, name: String, number: u64) -> Caller {
        Caller {
            name,
            servers: self.servers.clone(),
            rng: SmallRng::seed_from_u64(self.seed.wrapping_mul(1_000_000).wrapping_add(number)),
            history: Arc::clone(&self.history),
            phase: self.phase.clone(),
            has_backlog: Arc::clone(&self.has_backlog),
            aborts_on_poison: self.aborts_on_poison,
        }
    }

    /// A poison task ends the process of the caller that gets it.
    pub(crate) fn aborting_on_poison(self) -> Self {
        Self { aborts_on_poison: true, ..self }
    }

    /// Whether producers wait for the workers.
    pub(crate) fn hold_back(&self, has_backlog: bool) {
        if self.has_backlog.swap(has_backlog, Ordering::Relaxed) != has_backlog {
            self.history.producers_wait(has_backlog);
        }
    }

    /// What is noted.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }
}

impl Caller {
    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn server(&mut self) -> TaskClient {
        self.servers[self.rng.random_range(0..self.servers.len())].clone()
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }

    /// Creates tasks as long as faults are made.
    pub(crate) async fn produce(mut self) {
        for number in 0_u64.. {
            if self.phase() != Phase::Faults {
                return;
            }
            // The rare kinds first, so that no run is without them.
            let draw: f64 = match number {
                0 => 0.98,
                1 => 0.995,
                _ => self.rng.random(),
            };
            let (queue, kind) = match draw {
                0.995.. => (QUEUES[0], format!("{POISON}-")),
                0.98.. => (STEADY, String::new()),
                _ => (QUEUES[self.rng.random_range(0..QUEUES.len())], String::new()),
            };
            let name = format!("{kind}{}-{number}", self.name);
            let task = NewTask {
                name: Some(name.clone()),
                request: Json::of(&name).ok(),
                max_attempts: Some(ATTEMPTS),
                lease_seconds: i64::try_from(LEASE.as_secs()).ok(),
                retry: Some(NewRetryPolicy {
                    backoff: Backoff::Fixed,
                    base_seconds: 1,
                    cap_seconds: 1,
                    ..NewRetryPolicy::default()
                }),
                ..NewTask::new(queue)
            };
            while matches!(self.create(&task, &name).await, Err(Said::Unknown | Said::Postponed)) {
                // Now and then a producer dies before it knows.
                if self.rng.random_bool(0.1) || self.phase() == Phase::Over {
                    break;
                }
                self.pause(20..200).await;
            }
            self.pause(2..20).await;
            while self.has_backlog.load(Ordering::Relaxed) && self.phase() == Phase::Faults {
                self.pause(100..300).await;
            }
        }
    }

    /// Creates, reads and lists as many tasks as the service takes, until then.
    pub(crate) async fn overload(mut self, until: Instant) {
        let mut number = 0;
        while Instant::now() < until {
            let name = format!("{}-{number}", self.name);
            let lease_seconds = i64::try_from(LEASE.as_secs()).ok();
            let request = Json::of(&name).ok();
            let task =
                NewTask { name: Some(name.clone()), request, lease_seconds, ..NewTask::new(QUEUES[0]) };
            let created = self.create(&task, &name).await;
            let server = self.server();
            // Only how long they take, and that the contract knows their answers.
            if let Ok(id) = created {
                let _ = self.history.call("get", Duration::ZERO, server.get_task(id)).await;
            }
            let all = ListTasks::new().any_status().limit(100);
            let _ = self.history.call("list", Duration::ZERO, server.list_tasks(&all)).await;
            number += 1;
        }
    }

    async fn create(&mut self, task: &NewTask, name: &str) -> Result<Uuid, Said> {
        let server = self.server();
        let created =
            self.history.call("create", Duration::ZERO, server.create_task_with_key(task, name)).await;
        let created = created.map(|created| created.value.id);
        let said = created.err().unwrap_or(Said::Accepted);
        self.history.note(Event::Created { name: name.to_owned(), said, id: created.ok() });
        created
    }

    /// Claims and settles until all is over.
    pub(crate) async fn work(mut self) {
        while self.phase() != Phase::Over {
            let limit = self.rng.random_range(1..=4);
            for task in self.claim(&QUEUES, limit).await {
                self.work_on(task).await;
            }
        }
    }

    async fn claim(&mut self, queues: &[&str], limit: u32) -> Vec<ClaimedTask> {
        let claim = Claim {
            limit: Some(limit),
            wait_ms: u64::try_from(WAIT.as_millis()).ok(),
            claim_id: Some(Uuid::now_v7()),
            task_types: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            worker_id: self.name.clone(),
            ..Claim::default()
        };
        let mut claimed = Err(Said::Unknown);
        for _ in 0..5 {
            let server = self.server();
            claimed = self.history.call("claim", WAIT, server.claim(&claim)).await;
            match claimed {
                Err(Said::Unknown | Said::Postponed) => self.pause(20..200).await,
                _ => break,
            }
        }
        let claimed = claimed.unwrap_or_default();
        for task in &claimed {
            let payload: Option<String> = task.task().request.json().and_then(|json| json.to().ok());
            if let Some(name) = task.task().name.clone().filter(|name| !name.starts_with(ODD))
                && payload.as_ref() != Some(&name)
            {
                let answer = format!("{name} came with the payload of {payload:?}");
                self.history.note(Event::Odd { call: "claim".to_owned(), answer });
            }
            self.history.note(Event::Claimed {
                id: task.id(),
                token: task.lease_token().to_owned(),
                attempt: task.task().attempt,
                version: task.task().version,
            });
        }
        claimed
    }

    /// Works on a task: settles it, drops it, or holds it for too long.
    async fn work_on(&mut self, task: ClaimedTask) {
        if task.task().name.as_deref().is_some_and(|name| name.starts_with(POISON)) {
            if self.aborts_on_poison {
                std::process::abort();
            }
            return;
        }
        let draw: f64 = if self.phase() == Phase::Faults { self.rng.random() } else { 0.0 };
        if task.task().losses > 0 && self.phase() == Phase::Faults {
            // Long enough that whoever had it before may come back meanwhile.
            tokio::time::sleep(LEASE * 2 / 3).await;
        }
        self.pause(0..15).await;
        let verb = match draw {
            // The worker dies with the task.
            0.97.. => return,
            // The worker hangs until another worker may have the task, and settles it then.
            0.95.. => {
                tokio::time::sleep(LEASE + LEASE / 2).await;
                Verb::Complete
            }
            0.90.. => Verb::Release,
            0.80.. => Verb::Fail,
            _ => Verb::Complete,
        };
        self.settle(task, verb).await;
    }

    /// Ends an attempt, and says what came of it.
    async fn settle(&mut self, task: ClaimedTask, verb: Verb) -> Said {
        let (id, token) = (task.id(), task.lease_token().to_owned());
        // Before the call, too: a worker that is killed meanwhile may have settled it, and will not say so.
        self.history.note(Event::Settled {
            id,
            token: token.clone(),
            verb,
            said: Said::Unknown,
            version: None,
        });
        let mut task = Some(task);
        for _ in 0..20 {
            let Some(held) = task.take() else { return Said::Unknown };
            let server = self.server();
            let settling = async {
                let settled: Result<Receipt, SettleError> = match verb {
                    Verb::Complete => server.complete_task(held, &token).await,
                    Verb::Fail => server.fail_task(held, TaskFailure::retry("on purpose")).await,
                    Verb::Release => held.release(Duration::ZERO).await,
                };
                settled.map_err(|unsettled| {
                    task = Some(*unsettled.claimed);
                    unsettled.error
                })
            };
            let settled = self.history.call::<_, ClientError>("settle", Duration::ZERO, settling).await;
            let (said, version) = match settled {
                Ok(receipt) => (Said::Accepted, Some(receipt.version)),
                Err(said) => (said, None),
            };
            self.history.note(Event::Settled { id, token: token.clone(), verb, said, version });
            if !matches!(said, Said::Unknown | Said::Postponed) || self.phase() == Phase::Over {
                return said;
            }
            self.pause(20..300).await;
        }
        Said::Unknown
    }
}
