//! How a worker is set up.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::de::DeserializeOwned;
use task_repo_protocol::Uuid;
use task_repo_protocol::claim::{MAX_CLAIM_TYPES, MAX_WAIT_MS};
use task_repo_protocol::task_type_is_valid;

use super::context::TaskContext;
use super::error::WorkerError;
use super::event::{Events, WorkerEvent};
use super::handler::{HandlerOptions, HandlerResult, Registration};
use super::run::Worker;
use super::settings::Settings;
use super::wait_counts::WaitCounts;
use crate::client::TaskClient;
use crate::failure::whole_seconds;
use crate::retry::RetryBudget;

impl Worker {
    /// Sets up a worker that works through `client`; see [`WorkerBuilder`].
    pub fn builder(client: &TaskClient) -> WorkerBuilder {
        WorkerBuilder::new(client.clone())
    }
}

/// About how many bytes go into one delivery: less than the 1 MiB that proxies often take, with the claim and the head.
const DEFAULT_DELIVERY_BYTES: usize = 960 << 10;

/// Sets up a [`Worker`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct WorkerBuilder {
    settings: Settings,
}

impl WorkerBuilder {
    pub(crate) fn new(client: TaskClient) -> Self {
        let settings = Settings {
            client_without_retries: client.with_retry(RetryBudget::none()),
            client,
            worker_id: format!("worker-{}-{}", std::process::id(), &Uuid::new_v4().simple().to_string()[..8]),
            concurrency: 1,
            lease_seconds: None,
            wait: Duration::from_secs(20),
            grace: Duration::from_secs(15),
            stop_patience: Duration::from_secs(5),
            max_delivery_bytes: DEFAULT_DELIVERY_BYTES,
            tags: None,
            registrations: Vec::new(),
            events: Events::default(),
            waits: WaitCounts::of_types(0),
            stuck: AtomicU64::new(0),
        };
        Self { settings }
    }

    /// The worker's name for itself, 1–255 characters, shown in leases and executions. Default: one made up from the
    /// process id.
    pub fn worker_id(mut self, worker_id: impl Into<String>) -> Self {
        self.settings.worker_id = worker_id.into();
        self
    }

    /// How many tasks run at once, of all types together; default 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.settings.concurrency = concurrency;
        self
    }

    /// How long a lease holds without a heartbeat, in whole seconds, rounded up: 1 second to a day. Default: as each
    /// task says. Heartbeats come after a third of it.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease_seconds = Some(whole_seconds(lease));
        self
    }

    /// How long a claim waits at the service for work, up to 30 s; default 20 s. Work that appears meanwhile is given
    /// at once, so this only says how often an idle worker asks.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait.min(Duration::from_millis(MAX_WAIT_MS));
        self
    }

    /// How long handlers may go on after the worker was told to stop, default 15 s. They can hear of it at once
    /// ([`TaskContext::stopping`]); when the grace is over, they are told to stop ([`TaskContext::cancelled`]).
    ///
    /// A stop takes as long as grace and [patience](Self::stop_patience) together and 6 s more at most: keep that below
    /// what ends the process hard, such as the 30 s of Kubernetes.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How long handlers that were told to stop have to return, before they are aborted; default 5 s. It holds at a stop of
    /// the worker, after the attempt's timeout and after the lease was lost.
    pub fn stop_patience(mut self, patience: Duration) -> Self {
        self.settings.stop_patience = patience;
        self
    }

    /// About how many bytes of results are delivered in one call, default 960 KiB: proxies often take 1 MiB. A result that
    /// is larger goes alone. What is refused for its size all the same goes in halves, and later deliveries are smaller.
    pub fn max_delivery_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_delivery_bytes = bytes;
        self
    }

    /// Takes only tasks with this tag, too.
    pub fn only_tagged(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.tags.get_or_insert_default().0.insert(key.into(), value.into());
        self
    }

    /// Looks on at what happens. Called from the worker's task and from its heartbeat thread; must not block.
    pub fn on_event(mut self, hook: impl Fn(WorkerEvent<'_>) + Send + Sync + 'static) -> Self {
        self.settings.events = Events::new(hook);
        self
    }

    /// Gives tasks of this type to `handler`, with the request read as `Req`; what it returns is the task's result.
    ///
    /// ```
    /// # use task_repo_client::{TaskContext, TaskFailure, WorkerBuilder};
    /// # fn set_up(worker: WorkerBuilder, pool: std::sync::Arc<Vec<String>>) -> WorkerBuilder {
    /// worker
    ///     .register("shout", async |ctx: TaskContext, text: String| {
    ///         ctx.send_progress_text("shouting");
    ///         Ok(text.to_uppercase())
    ///     })
    ///     // What the handler shares with others, such as a database pool, is moved in: each attempt has a clone of it.
    ///     .register("look-up", async move |_, number: usize| {
    ///         Ok(pool.get(number).ok_or("there is no such row")?.clone())
    ///     })
    /// # }
    /// ```
    ///
    /// A request that does not fit fails for good with the code `invalid_request`
    /// (or see [`HandlerOptions::release_unreadable`]), a panic with the code `panic` while attempts are left. Handlers
    /// run as tokio tasks. One that blocks its thread for long belongs into [`WorkerBuilder::register_blocking`]; what it
    /// begins with `spawn_blocking` or `spawn` goes on when the handler itself is aborted, and nobody waits for it.
    pub fn register<Req, F, Fut>(self, task_type: impl Into<String>, handler: F) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send + 'static,
    {
        self.register_with(task_type, HandlerOptions::new(), handler)
    }

    /// As [`WorkerBuilder::register`], with its own options.
    pub fn register_with<Req, F, Fut>(
        mut self,
        task_type: impl Into<String>,
        options: HandlerOptions,
        handler: F,
    ) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send + 'static,
    {
        self.settings.registrations.push(Registration::new(task_type.into(), options, handler));
        self
    }

    /// As [`WorkerBuilder::register`], for a handler that blocks: it computes for long, or waits without `.await`. It runs on
    /// a thread of its own, which the end of the process does not wait for.
    ///
    /// Nothing can end it from outside: it should look at [`TaskContext::is_cancelled`] now and then. One that goes on after
    /// its timeout keeps its slot until it returns, and is told by [`WorkerEvent::HandlerStuck`].
    pub fn register_blocking<Req, F, Res>(self, task_type: impl Into<String>, handler: F) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Res + Clone + Send + Sync + 'static,
        Res: HandlerResult,
    {
        self.register_blocking_with(task_type, HandlerOptions::new(), handler)
    }

    /// As [`WorkerBuilder::register_blocking`], with its own options.
    pub fn register_blocking_with<Req, F, Res>(
        mut self,
        task_type: impl Into<String>,
        options: HandlerOptions,
        handler: F,
    ) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Res + Clone + Send + Sync + 'static,
        Res: HandlerResult,
    {
        self.settings.registrations.push(Registration::blocking(task_type.into(), options, handler));
        self
    }

    /// The worker. Nothing is sent yet.
    ///
    /// # Errors
    /// [`WorkerError::Setup`] without a handler, with more than 100, with two for one type, with a type that cannot be
    /// one, with a concurrency of 0, or with a worker id or lease outside its bounds.
    pub fn build(mut self) -> Result<Worker, WorkerError> {
        check(&self.settings).map_err(WorkerError::Setup)?;
        self.settings.waits = WaitCounts::of_types(self.settings.registrations.len());
        Ok(Worker::new(Arc::new(self.settings)))
    }
}

fn check(settings: &Settings) -> Result<(), String> {
    let registrations = &settings.registrations;
    if !(1..=MAX_CLAIM_TYPES).contains(&registrations.len()) {
        return Err(format!(
            "a worker has 1 to {MAX_CLAIM_TYPES} handlers, and {} are registered",
            registrations.len()
        ));
    }
    let mut seen = HashSet::new();
    for Registration { task_type, options, .. } in registrations {
        if !task_type_is_valid(task_type) {
            return Err(format!(
                "{task_type:?} cannot be a task type: 1 to 128 of A-Z a-z 0-9 . _ : - are expected"
            ));
        }
        if !seen.insert(task_type) {
            return Err(format!("{task_type} has two handlers: register one for each task type"));
        }
        if options.concurrency == Some(0) {
            return Err(format!("the concurrency of {task_type} is 0: 1 or more is expected"));
        }
    }
    if settings.concurrency == 0 {
        return Err("the concurrency is 0: 1 or more is expected".to_owned());
    }
    if !(1..=255).contains(&settings.worker_id.chars().count()) {
        return Err("the worker id must have 1 to 255 characters".to_owned());
    }
    if settings.lease_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
        return Err("the lease must be 1 second to 1 day".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Tags;

    use super::super::slots::ClaimPlan;
    use super::*;
    use crate::failure::TaskFailure;

    fn builder() -> WorkerBuilder {
        Worker::builder(&TaskClient::new("http://127.0.0.1:1", "key").expect("a client"))
    }

    async fn nothing(_: TaskContext, (): ()) -> Result<(), TaskFailure> {
        Ok(())
    }

    #[test]
    fn a_worker_that_could_not_work_is_not_built() {
        assert!(builder().build().is_err(), "no handler");
        assert!(builder().register("a", nothing).register("a", nothing).build().is_err(), "two for one type");
        assert!(builder().register("a b", nothing).build().is_err(), "no task type");
        assert!(builder().register("a", nothing).concurrency(0).build().is_err(), "no slot");
        assert!(builder().register("a", nothing).worker_id("").build().is_err(), "no name");
        assert!(builder().register("a", nothing).lease(Duration::ZERO).build().is_err(), "no lease");
        let none = HandlerOptions::new().concurrency(0);
        assert!(builder().register_with("a", none, nothing).build().is_err(), "no slot of the type");
        assert!(builder().register("a", nothing).build().is_ok());
    }

    #[test]
    fn a_claim_names_the_types_of_its_plan() {
        let WorkerBuilder { settings } =
            builder().register("a", nothing).register("b", nothing).only_tagged("run", "1");
        let claim =
            settings.claim(&ClaimPlan { types: vec![1], limit: 3 }, Duration::from_secs(2), Uuid::nil());
        assert_eq!(claim.task_types, ["b"]);
        assert_eq!((claim.limit, claim.wait_ms), (Some(3), Some(2000)));
        assert_eq!(claim.tags, Some(Tags::from([("run", "1")])));
        assert_eq!(claim.claim_id, Some(Uuid::nil()));
    }
}
