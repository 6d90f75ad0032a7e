//! A handler at work, as a tokio task or on a thread of its own.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use crate::ending::Completion;
use crate::failure::TaskFailure;

/// What a handler ended with.
pub(crate) type HandlerOutcome = Result<Completion, TaskFailure>;

/// An async handler at work on one task.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = HandlerOutcome> + Send>>;

/// A handler at work.
pub(crate) enum RunningHandler {
    /// A tokio task of its own, so that its panic ends there and a blocked thread does not block the worker's loop.
    Task(AbortOnDropHandle<HandlerOutcome>),
    /// A thread of its own. It is none of the runtime's, which would wait for it before the process could end.
    Thread(oneshot::Receiver<HandlerOutcome>),
}

impl RunningHandler {
    /// Begins an async handler.
    pub(crate) fn task(work: HandlerFuture, span: Span) -> Self {
        Self::Task(AbortOnDropHandle::new(tokio::spawn(work.instrument(span))))
    }

    /// Begins a blocking handler. `name` is the thread's.
    pub(crate) fn thread(
        name: String,
        work: impl FnOnce() -> HandlerOutcome + Send + 'static,
        span: Span,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let runtime = Handle::current();
        let begun = std::thread::Builder::new().name(name).spawn(move || {
            let _in_runtime = runtime.enter();
            let outcome = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
            // The worker may be gone.
            let _ = end.send(outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
        });
        match begun {
            Ok(_) => Self::Thread(ended),
            Err(error) => {
                let (end, ended) = oneshot::channel();
                let failure =
                    TaskFailure::retry(format!("no thread for the handler can be started: {error}"));
                let _ = end.send(Err(failure));
                Self::Thread(ended)
            }
        }
    }

    /// Waits until the handler has ended. May be given up and called again.
    pub(crate) async fn ended(&mut self) -> HandlerOutcome {
        match self {
            Self::Task(task) => task.await.unwrap_or_else(|error| Err(failure_of(error))),
            // The thread always sends.
            Self::Thread(ended) => ended.await.unwrap_or_else(|_| Err(TaskFailure::cancelled())),
        }
    }

    /// Ends it at its next `.await`. A thread cannot be ended.
    pub(crate) fn abort(&self) {
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}

/// The failure of a handler that did not return.
fn failure_of(error: JoinError) -> TaskFailure {
    match error.try_into_panic() {
        Ok(panic) => panicked(panic.as_ref()),
        // The handler was aborted, or its runtime shuts down.
        Err(_) => TaskFailure::cancelled(),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> TaskFailure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    TaskFailure::retry(format!("the handler panicked: {text}")).with_code("panic")
}
