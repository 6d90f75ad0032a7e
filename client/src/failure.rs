//! Why there is no result, and whether to try again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use task_repo_protocol::report::MAX_DETAILS_BYTES;
use task_repo_protocol::{ErrorReport, Json, Retry, UsageReport};

/// Longest message that the service takes, in characters.
const MAX_MESSAGE_CHARS: usize = 8192;
/// Longest code that the service takes, in characters.
const MAX_CODE_CHARS: usize = 128;

/// Why work on a task ended without a result.
///
/// `?` turns any error into one that is tried again while attempts are left: every [`Error`], `anyhow::Error`,
/// `Box<dyn Error + Send + Sync>`, `String` and `&str`. The message has all causes, and so has `causes` in the details.
/// What should go otherwise is said: [`never`](Self::never) and [`for_good`](Self::for_good) end the task,
/// [`retry_after`](Self::retry_after) names the pause, [`release`](Self::release) and [`cancelled`](Self::cancelled) give
/// the task back.
///
/// ```
/// use std::time::Duration;
/// use task_repo_client::TaskFailure;
///
/// fn parse(text: &str) -> Result<u32, TaskFailure> {
///     if text.is_empty() {
///         return Err(TaskFailure::never("there is nothing to parse").with_code("empty"));
///     }
///     if text == "-" {
///         Err("a dash may become a number yet")?;
///     }
///     // The text will not change: no attempt will read it.
///     text.parse().map_err(|error| TaskFailure::from(error).for_good())
/// }
/// # assert!(parse("").is_err() && parse("-").is_err() && parse("x").is_err() && parse("7").is_ok());
/// # let _ = TaskFailure::retry_after("busy", Duration::from_secs(30));
///
/// fn load() -> anyhow::Result<String> {
///     anyhow::bail!("the file is away")
/// }
///
/// fn size() -> Result<usize, TaskFailure> {
///     Ok(load()?.len())
/// }
/// # assert_eq!(size().expect_err("fails").message(), "the file is away");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a failure does nothing until it is returned or reported"]
pub struct TaskFailure(Box<FailureReport>);

#[derive(Debug, Clone, PartialEq)]
struct FailureReport {
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
    /// It did not fail: the task is given back, and rests that long.
    Release(Duration),
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

    /// This worker cannot do it now, and another one may: the task is given back, the attempt does not count, and nobody
    /// claims the task for `delay`, in whole seconds, rounded up. With a delay of zero the service says how long it waits:
    /// see [`Ending::Released`](crate::Ending::Released). `why` stands in the worker's log; the service does not keep it.
    pub fn release(why: impl Into<String>, delay: Duration) -> Self {
        Self::new(why.into(), NextAttempt::Release(delay)).with_code("released")
    }

    /// The same, but no other attempt follows: the task fails for good.
    pub fn for_good(mut self) -> Self {
        self.0.next = NextAttempt::Never;
        self
    }

    /// With a code for programs, up to 128 characters.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.error.code = Some(shortened(code.into(), MAX_CODE_CHARS)).filter(|code| !code.is_empty());
        self
    }

    /// With details for programs, up to 32 KiB of JSON. What is larger, or has no JSON form, is left out with a warning in
    /// the log.
    pub fn with_details<T: Serialize + ?Sized>(mut self, details: &T) -> Self {
        self.0.error.details = match Json::of(details) {
            Ok(json) if json.as_str().len() <= MAX_DETAILS_BYTES => Some(json),
            Ok(json) => {
                let bytes = json.as_str().len();
                tracing::warn!(
                    bytes,
                    MAX_DETAILS_BYTES,
                    "the details of a failure are left out: they are too large"
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the details of a failure are left out: they have no JSON form");
                None
            }
        };
        self
    }

    /// With what the attempt used.
    pub fn with_usage(mut self, usage: UsageReport) -> Self {
        self.0.usage = Some(usage);
        self
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.0.error.message
    }

    /// For programs.
    pub fn code(&self) -> Option<&str> {
        self.0.error.code.as_deref()
    }

    /// Whether it is [`TaskFailure::cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.0.next == NextAttempt::Cancelled
    }

    /// For how long the task rests, where it is [`TaskFailure::release`].
    pub(crate) fn release_delay(&self) -> Option<Duration> {
        match self.0.next {
            NextAttempt::Release(delay) => Some(delay),
            _ => None,
        }
    }

    pub(crate) fn error(&self) -> &ErrorReport {
        &self.0.error
    }

    pub(crate) fn usage(&self) -> Option<UsageReport> {
        self.0.usage
    }

    /// The failure that `?` makes of an error.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors name their cause themselves.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            causes.push(text);
            next = cause.source();
        }
        let failure = Self::retry(message);
        if causes.is_empty() { failure } else { failure.with_details(&Causes { causes }) }
    }

    /// Adds to what the attempt used.
    pub(crate) fn add_usage(&mut self, usage: UsageReport) {
        self.0.usage = Some(self.0.usage.unwrap_or_default().plus(usage));
    }

    /// The same failure with its message and code alone.
    pub(crate) fn without_details_and_usage(&self) -> Self {
        let error = ErrorReport { details: None, ..self.0.error.clone() };
        Self(Box::new(FailureReport { error, usage: None, next: self.0.next }))
    }

    /// Whether to try again, and after how many seconds, as the service is told.
    pub(crate) fn retry_fields(&self) -> (Option<Retry>, Option<i64>) {
        match self.0.next {
            NextAttempt::Retry | NextAttempt::Cancelled | NextAttempt::Release(_) => (None, None),
            NextAttempt::RetryAfter(delay) => (None, Some(whole_seconds(delay))),
            NextAttempt::Never => (Some(Retry::Never), None),
        }
    }

    fn new(message: String, next: NextAttempt) -> Self {
        // Cut to what the service takes, so that a failure can be reported whatever its message.
        let error = ErrorReport { message: shortened(message, MAX_MESSAGE_CHARS), code: None, details: None };
        Self(Box::new(FailureReport { error, next, usage: None }))
    }
}

/// Tried again while attempts are left. The message is the error's, followed by its causes; `causes` in the details has
/// them one by one.
///
/// For this, `TaskFailure` is no [`Error`] itself.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskFailure {
    fn from(error: E) -> Self {
        Self::of(&*error.into())
    }
}

/// The details of a failure that was an error with causes, the nearest first.
#[derive(Serialize)]
struct Causes {
    causes: Vec<String>,
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
        let details = failure.error().details.as_ref().map(Json::as_str);
        assert_eq!(details, Some(r#"{"causes":["invalid digit found in string"]}"#));
    }

    fn number(text: &str) -> Result<u8, Outer> {
        text.parse().map_err(Outer)
    }

    /// What people write in handlers, as a failure.
    fn failure_of(how: &str) -> TaskFailure {
        let failed = || -> Result<u8, TaskFailure> {
            match how {
                "text" => Err("plain")?,
                "string" => Err(String::from("owned"))?,
                "boxed" => Err(Box::<dyn Error + Send + Sync>::from("boxed"))?,
                "anyhow" => anyhow::Context::context(number("x"), "while counting")?,
                "failure" => Err(TaskFailure::never("said so"))?,
                _ => number("x")?,
            };
            Ok(0)
        };
        failed().expect_err("fails")
    }

    #[test]
    fn the_question_mark_takes_whatever_people_have() {
        let chain = "outer: invalid digit found in string";
        for (how, message, causes) in [
            ("text", "plain".to_owned(), 0),
            ("string", "owned".to_owned(), 0),
            ("boxed", "boxed".to_owned(), 0),
            ("anyhow", format!("while counting: {chain}"), 2),
            ("error", chain.to_owned(), 1),
        ] {
            let failure = failure_of(how);
            assert_eq!(
                (failure.message(), failure.retry_fields()),
                (message.as_str(), (None, None)),
                "{how}"
            );
            let details = failure.error().details.as_ref().map(|json| json.to().expect("an object"));
            let found = details
                .map_or(0, |details: std::collections::HashMap<String, Vec<String>>| details["causes"].len());
            assert_eq!(found, causes, "{how}");
        }
        assert_eq!(failure_of("failure").retry_fields(), (Some(Retry::Never), None));
        assert_eq!(failure_of("error").for_good().retry_fields(), (Some(Retry::Never), None));
    }

    #[test]
    fn details_that_the_service_would_refuse_are_left_out() {
        let details = |details: &dyn Fn() -> Json| TaskFailure::retry("").with_details(&details()).0.error;
        let of_length = |length: usize| Json::of(&"x".repeat(length - 2)).expect("text");
        assert!(details(&|| of_length(MAX_DETAILS_BYTES)).details.is_some());
        assert!(details(&|| of_length(MAX_DETAILS_BYTES + 1)).details.is_none());
        assert!(TaskFailure::retry("").with_details(&f64::NAN).0.error.details.is_none());
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
