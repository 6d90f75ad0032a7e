//! Typed handlers made uniform.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::TaskContext;
use super::running::{HandlerFuture, HandlerOutcome, RunningHandler};
use crate::ending::Completion;
use crate::failure::TaskFailure;

/// What a handler returns: `Result<T, TaskFailure>`, with a `T` that serializes.
///
/// Another error type does not compile; the compiler says what to write:
///
/// ```compile_fail,E0277
/// # use task_repo_client::{TaskContext, WorkerBuilder};
/// async fn handler(_: TaskContext, text: String) -> anyhow::Result<usize> {
///     Ok(text.len())
/// }
/// # fn set_up(worker: WorkerBuilder) -> WorkerBuilder {
/// worker.register("count", handler)
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "a handler returns `Result<T, TaskFailure>`, with a `T` that serializes",
    note = "write `async fn handler(ctx: TaskContext, request: Request) -> Result<Response, TaskFailure>`",
    note = "in it, `?` turns any error into a `TaskFailure`: also `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `String` and `&str`"
)]
pub trait HandlerResult {
    /// The result of the task.
    type Response: Serialize;

    /// The same as the worker takes it.
    ///
    /// # Errors
    /// The handler's failure.
    fn into_result(self) -> Result<Self::Response, TaskFailure>;
}

impl<T: Serialize> HandlerResult for Result<T, TaskFailure> {
    type Response = T;

    fn into_result(self) -> Self {
        self
    }
}

/// How long a task rests at most that is given back because its request cannot be read.
const MAX_REST: Duration = Duration::from_secs(60);

/// Options of one handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options do nothing until they are given to register_with"]
pub struct HandlerOptions {
    pub(crate) concurrency: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    max_unreadable_releases: u32,
}

impl HandlerOptions {
    /// The worker's own concurrency, no timeout but the task's, and requests that cannot be read fail.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many tasks of this type run at once at most, within the worker's concurrency.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// How long an attempt may take here. Then the handler is told to stop, is aborted at its next `.await` after the
    /// worker's [patience](super::WorkerBuilder::stop_patience), and the attempt fails with the code `timeout`. The task's
    /// own `timeout_seconds` ends the handler in the same way.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives a task whose request this handler cannot read back up to `times` times in a row, so that a worker of another
    /// version can take it, before it fails. Between them it rests for 1, 2, 4 … up to 60 seconds. Without this, it fails for
    /// good at once. A service of release 0.1.0 does not count releases, and `times` does not bound them there.
    pub fn release_unreadable(mut self, times: u32) -> Self {
        self.max_unreadable_releases = times;
        self
    }

    /// What becomes of a task whose request cannot be read.
    fn unreadable(&self, context: &TaskContext, error: &serde_json::Error) -> TaskFailure {
        let message = format!("the request does not fit: {error}");
        if context.task().releases < self.max_unreadable_releases {
            // The first ones would not rest without this, and this worker might take them back before any other.
            let rest = Duration::from_secs(1 << context.task().releases.min(6)).min(MAX_REST);
            return TaskFailure::release(message, rest);
        }
        // Never retried, because the next attempt gets the same bytes.
        TaskFailure::never(message).with_code("invalid_request")
    }
}

/// A task type, its handler and its options.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) task_type: String,
    pub(crate) options: HandlerOptions,
    handler: ErasedHandler,
}

#[derive(Clone)]
enum ErasedHandler {
    Async(Arc<dyn Fn(TaskContext) -> HandlerFuture + Send + Sync>),
    Blocking(Arc<dyn Fn(TaskContext) -> HandlerOutcome + Send + Sync>),
}

impl Registration {
    /// Each attempt has a clone of `handler`, so a handler may use up what it captures.
    pub(crate) fn new<Req, F, Fut>(task_type: String, options: HandlerOptions, handler: F) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send + 'static,
    {
        let handler = ErasedHandler::Async(Arc::new(move |context| match context.request::<Req>() {
            Ok(request) => {
                let work = handler.clone()(context, request);
                Box::pin(async move { completion(work.await) })
            }
            Err(error) => Box::pin(std::future::ready(Err(options.unreadable(&context, &error)))),
        }));
        Self { task_type, options, handler }
    }

    /// The same for a handler that blocks.
    pub(crate) fn blocking<Req, F, Res>(task_type: String, options: HandlerOptions, handler: F) -> Self
    where
        Req: DeserializeOwned,
        F: FnOnce(TaskContext, Req) -> Res + Clone + Send + Sync + 'static,
        Res: HandlerResult,
    {
        let handler = ErasedHandler::Blocking(Arc::new(move |context| match context.request::<Req>() {
            Ok(request) => completion(handler.clone()(context, request)),
            Err(error) => Err(options.unreadable(&context, &error)),
        }));
        Self { task_type, options, handler }
    }

    /// Sets the handler to work on the context's task.
    pub(crate) fn start(&self, context: TaskContext) -> RunningHandler {
        let task = context.task();
        let span = tracing::info_span!(
            "task",
            task.id = %task.id,
            task.r#type = task.task_type,
            task.attempt = task.attempt,
        );
        match self.handler.clone() {
            ErasedHandler::Async(handler) => {
                RunningHandler::task(Box::pin(async move { handler(context).await }), span)
            }
            ErasedHandler::Blocking(handler) => {
                RunningHandler::thread(self.task_type.clone(), move || handler(context), span)
            }
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("task_type", &self.task_type)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What a handler returned, as it is settled. A result without a JSON form is the handler's error.
fn completion(returned: impl HandlerResult) -> HandlerOutcome {
    let result = returned.into_result()?;
    Completion::of(&result).map_err(|error| TaskFailure::from(error).for_good().with_code("invalid_result"))
}
