//! How long the client tries by itself, and what it may try again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::ClientError;

/// How often, and for how long, a call is repeated before its error is given to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// How often a call is sent at most; 1: never repeated.
    pub attempts: u32,
    /// How long a call may take with all its repetitions; a long poll may take its wait in addition.
    pub total: Duration,
    /// The pause before the first repetition; it doubles from one to the next, and each is up to twice as long by
    /// chance, so that many clients do not come back together.
    pub first_pause: Duration,
    /// The longest pause, unless the service asks for a longer one.
    pub longest_pause: Duration,
}

impl Default for RetryBudget {
    /// 6 attempts within 30 s, pauses from 100 ms to 5 s.
    fn default() -> Self {
        Self {
            attempts: 6,
            total: Duration::from_secs(30),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl RetryBudget {
    /// No repetition: the first error is the caller's.
    #[must_use]
    pub fn none() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// The pauses between the attempts.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let repetitions = usize::try_from(self.attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        pauses(self.first_pause, self.longest_pause).with_max_times(repetitions).build()
    }
}

/// Pauses without an end, for loops that go on until they are stopped.
pub(crate) fn endless_pauses(
    first: Duration,
    longest: Duration,
) -> impl Iterator<Item = Duration> + Send + use<> {
    pauses(first, longest).without_max_times().build()
}

fn pauses(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_factor(2.0).with_min_delay(first).with_max_delay(longest).with_jitter()
}

/// The longest pause that anything but the service itself can ask for: a maintenance page may ask for hours.
const LONGEST_PAUSE_FOR_OTHERS: Duration = Duration::from_secs(30);

/// How long to wait before a repetition: the pause drawn, and never less than the service asked for.
pub(crate) fn pause_after(error: &ClientError, drawn: Duration) -> Duration {
    let longest = if error.problem().is_some() { Duration::MAX } else { LONGEST_PAUSE_FOR_OTHERS };
    // The two are added, so that clients that were refused together do not come back together.
    error.retry_after().map_or(drawn, |asked| asked.min(longest).saturating_add(drawn))
}

/// When a call may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// After any passing error: it changes nothing, or carries a key, claim id or token that keeps it single.
    Always,
    /// Only when the error rules out that it was applied.
    Unapplied,
    /// After anything but a final refusal by the service itself: finished work must not be lost to what something in
    /// between has answered.
    UntilSettled,
    /// As [`Repeat::Always`]; and when a repetition finds the thing gone, the attempt before it was the one that
    /// removed it.
    UntilGone,
}

impl Repeat {
    /// Whether a call that failed with `error` may be sent again.
    pub(crate) fn allows(self, error: &ClientError) -> bool {
        match self {
            Self::Always | Self::UntilGone => error.is_retryable(),
            Self::Unapplied => error.is_retryable() && !error.may_have_been_applied(),
            Self::UntilSettled => !error.is_final(),
        }
    }
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::{ErrorCode, Problem};

    use super::*;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused(Box::new(Problem::new(code, "", "r")))
    }

    #[test]
    fn only_passing_errors_are_repeated() {
        for code in ErrorCode::ALL {
            assert_eq!(Repeat::Always.allows(&refused(*code)), code.is_retryable(), "{code}");
        }
    }

    #[test]
    fn a_call_without_a_name_is_repeated_only_when_it_had_no_effect() {
        assert!(Repeat::Unapplied.allows(&refused(ErrorCode::Overloaded)));
        assert!(!Repeat::Unapplied.allows(&refused(ErrorCode::OutcomeUnknown)));
        assert!(!Repeat::Unapplied.allows(&refused(ErrorCode::InvalidTransition)));
    }

    #[test]
    fn pauses_grow_are_jittered_and_end() {
        let budget = RetryBudget { attempts: 5, ..RetryBudget::default() };
        let pauses: Vec<_> = budget.pauses().collect();
        assert_eq!(pauses.len(), 4);
        for (repetition, pause) in pauses.iter().enumerate() {
            let least = budget.first_pause * 2_u32.pow(u32::try_from(repetition).expect("small"));
            assert!((least..=least * 2).contains(pause), "{repetition}: {pause:?}");
        }
        assert_eq!(RetryBudget::none().pauses().count(), 0);
    }

    /// Clients that were refused at one moment must not come back at one moment.
    #[test]
    fn no_two_clients_pause_alike_and_a_thousand_spread() {
        let budget = RetryBudget::default();
        assert_ne!(budget.pauses().collect::<Vec<_>>(), budget.pauses().collect::<Vec<_>>());
        let tenth = budget.first_pause / 10;
        let mut in_tenth = [0; 10];
        for _ in 0..1000 {
            let pause = budget.pauses().next().expect("it is repeated");
            let number = pause.saturating_sub(budget.first_pause).as_nanos() / tenth.as_nanos();
            in_tenth[usize::try_from(number).expect("small").min(9)] += 1;
        }
        // Of 1000 random pauses, about 100 fall into each tenth; fewer than 50 do so once in many millions of runs.
        assert!(in_tenth.iter().all(|count| *count >= 50), "{in_tenth:?}");
    }

    #[test]
    fn the_service_s_wish_is_the_least() {
        let mut problem = Problem::new(ErrorCode::Overloaded, "", "r");
        problem.retry_after_seconds = Some(3);
        let error = ClientError::Refused(Box::new(problem));
        assert!(pause_after(&error, Duration::from_millis(10)) >= Duration::from_secs(3));
        let drawn = Duration::from_millis(10);
        assert_eq!(pause_after(&refused(ErrorCode::Unavailable), drawn), drawn);
        let (retry_after, body) = (Some(Duration::from_secs(86_400)), String::new());
        let page = ClientError::Unexpected { call: "/tasks", status: 503, retry_after, body, proxy: None };
        assert_eq!(pause_after(&page, drawn), LONGEST_PAUSE_FOR_OTHERS + drawn, "a page is not the service");
    }
}
