//! Why there is no result, and whether to try again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use task_repo_protocol::{ErrorReport, Json, Retry, UsageReport};

/// Longest message that the service takes, in characters.
const MAX_MESSAGE_CHARS: usize = 8192;
/// Longest code that the service takes, in characters.
const MAX_CODE_CHARS: usize = 128;

/// Why work on a task ended without a result.
///
/// Any [`Error`] turns into one with `?`: it is tried again while attempts are left, and its message has all its
/// sources. What should go otherwise is said with [`never`](Self::never), [`retry_after`](Self::retry_after) or
/// [`cancelled`](Self::cancelled).
///
/// ```
/// use std::time::Duration;
/// use task_repo_client::TaskFailure;
///
/// fn parse(text: &str) -> Result<u32, TaskFailure> {
///     if text.is_empty() {
///         return Err(TaskFailure::never("there is nothing to parse").with_code("empty"));
///     }
///     Ok(text.parse()?)
/// }
/// # assert!(parse("").is_err() && parse("x").is_err() && parse("7").is_ok());
/// # let _ = TaskFailure::retry_after("busy", Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a failure does nothing until it is returned or reported"]
pub struct TaskFailure {
    error: ErrorReport,
    next: NextAttempt,
    usage: Option<UsageReport>,
}

/// What comes after the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextAttempt {
    /// Another attempt, by the task's own backoff.
    Retry,
    /// Another attempt after that long.
    RetryAfter(Duration),
    /// None.
    Never,
    /// It did not fail: it was stopped.
    Cancelled,
}

impl TaskFailure {
    /// May succeed next time: tried again while attempts are left, by the task's backoff.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(message.into(), NextAttempt::Retry)
    }

    /// May succeed after that long: tried again then, while attempts are left. Whole seconds, rounded up, up to a year.
    pub fn retry_after(message: impl Into<String>, delay: Duration) -> Self {
        Self::new(message.into(), NextAttempt::RetryAfter(delay))
    }

    /// Will never succeed: the task fails for good.
    pub fn never(message: impl Into<String>) -> Self {
        Self::new(message.into(), NextAttempt::Never)
    }

    /// The work stopped because it was told to. A cancellation that was asked for is acknowledged with it, and after a
    /// stop of the worker the task is given back without costing an attempt.
    pub fn cancelled() -> Self {
        Self::new("the work was stopped".to_owned(), NextAttempt::Cancelled).with_code("cancelled")
    }

    /// With a code for programs, up to 128 characters.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.error.code = Some(shortened(code.into(), MAX_CODE_CHARS)).filter(|code| !code.is_empty());
        self
    }

    /// With details for programs, up to 32 KiB of JSON. What has no JSON form is left out.
    pub fn with_details<T: Serialize + ?Sized>(mut self, details: &T) -> Self {
        self.error.details = Json::of(details).ok();
        self
    }

    /// With what the attempt used.
    pub fn with_usage(mut self, usage: UsageReport) -> Self {
        self.usage = Some(usage);
        self
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// For programs.
    pub fn code(&self) -> Option<&str> {
        self.error.code.as_deref()
    }

    /// Whether it is [`TaskFailure::cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.next == NextAttempt::Cancelled
    }

    pub(crate) fn error(&self) -> &ErrorReport {
        &self.error
    }

    pub(crate) fn usage(&self) -> Option<UsageReport> {
        self.usage
    }

    /// Adds to what the attempt used.
    pub(crate) fn add_usage(&mut self, usage: UsageReport) {
        self.usage = Some(self.usage.unwrap_or_default().plus(usage));
    }

    /// The same failure with its message and code alone.
    pub(crate) fn without_details_and_usage(&self) -> Self {
        Self { error: ErrorReport { details: None, ..self.error.clone() }, usage: None, next: self.next }
    }

    /// Whether to try again, and after how many seconds, as the service is told.
    pub(crate) fn retry_fields(&self) -> (Option<Retry>, Option<i64>) {
        match self.next {
            NextAttempt::Retry | NextAttempt::Cancelled => (None, None),
            NextAttempt::RetryAfter(delay) => (None, Some(whole_seconds(delay))),
            NextAttempt::Never => (Some(Retry::Never), None),
        }
    }

    fn new(message: String, next: NextAttempt) -> Self {
        // Cut to what the service takes, so that a failure can be reported whatever its message.
        let error = ErrorReport { message: shortened(message, MAX_MESSAGE_CHARS), code: None, details: None };
        Self { error, next, usage: None }
    }
}

/// Tried again while attempts are left. The message is the error's, followed by its sources.
///
/// For this, `TaskFailure` is no [`Error`] itself.
impl<E: Error> From<E> for TaskFailure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retry(message)
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// As many whole seconds, rounded up; a year at most, as the service takes.
pub(crate) fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::try_from(seconds).unwrap_or(i64::MAX).min(task_repo_protocol::task::MAX_DELAY_SECONDS)
}

/// The first `max` characters.
pub(crate) fn shortened(mut text: String, max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn an_error_becomes_a_retry_with_its_sources() {
        let cause = "x".parse::<u8>().expect_err("no number");
        let failure = TaskFailure::from(Outer(cause));
        assert_eq!(failure.message(), "outer: invalid digit found in string");
        assert_eq!(failure.retry_fields(), (None, None));
    }

    #[test]
    fn what_comes_next_is_told() {
        let after = |delay| TaskFailure::retry_after("", delay).retry_fields();
        assert_eq!(after(Duration::from_millis(1500)), (None, Some(2)));
        assert_eq!(after(Duration::MAX), (None, Some(31_536_000)));
        assert_eq!(TaskFailure::never("").retry_fields(), (Some(Retry::Never), None));
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        let failure = TaskFailure::retry("é".repeat(9000)).with_code("c".repeat(200));
        assert_eq!(failure.message().chars().count(), MAX_MESSAGE_CHARS);
        assert_eq!(failure.code().map(str::len), Some(MAX_CODE_CHARS));
        assert_eq!(TaskFailure::retry("").with_code("").code(), None);
    }

    #[test]
    fn whole_seconds_round_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_nanos(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(60)), 60);
    }
}
