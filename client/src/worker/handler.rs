//! Typed handlers made uniform.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::TaskContext;
use crate::ending::Completion;
use crate::failure::TaskFailure;

type HandlerFuture = Pin<Box<dyn Future<Output = Result<Completion, TaskFailure>> + Send>>;
type ErasedHandler = Arc<dyn Fn(TaskContext) -> HandlerFuture + Send + Sync>;

/// Options of one handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options do nothing until they are given to register_with"]
pub struct HandlerOptions {
    pub(crate) concurrency: Option<usize>,
    pub(crate) timeout: Option<Duration>,
}

impl HandlerOptions {
    /// The worker's own concurrency, and no timeout but the task's.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many tasks of this type run at once at most, within the worker's concurrency.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// How long an attempt may take here. Then the handler is aborted at its next `.await` and the attempt fails with
    /// the code `timeout`. The task's own `timeout_seconds` is the service's to keep and goes beside this.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A task type, its handler and its options.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) task_type: String,
    pub(crate) options: HandlerOptions,
    handler: ErasedHandler,
}

impl Registration {
    pub(crate) fn new<Req, Res, F, Fut>(task_type: String, options: HandlerOptions, handler: F) -> Self
    where
        Req: DeserializeOwned,
        Res: Serialize,
        F: Fn(TaskContext, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, TaskFailure>> + Send + 'static,
    {
        let erased: ErasedHandler = Arc::new(move |context| match context.request::<Req>() {
            Ok(request) => {
                let work = handler(context, request);
                Box::pin(async move { completion(&work.await?) })
            }
            // Never retried, because the next attempt gets the same bytes.
            Err(error) => {
                let failure = TaskFailure::never(format!("the request does not fit: {error}"));
                Box::pin(std::future::ready(Err(failure.with_code("invalid_request"))))
            }
        });
        Self { task_type, options, handler: erased }
    }

    /// The handler at work on the context's task.
    pub(crate) fn run(&self, context: TaskContext) -> HandlerFuture {
        (self.handler)(context)
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

fn completion<Res: Serialize>(result: &Res) -> Result<Completion, TaskFailure> {
    Completion::of(result)
        .map_err(|error| TaskFailure::never(TaskFailure::from(error).message()).with_code("invalid_result"))
}
