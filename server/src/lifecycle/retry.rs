//! How long to wait before the next attempt.

use crate::task::{Backoff, RetryRecord};
use chrono::TimeDelta;

/// The wait after the n-th attempt: the policy's backoff, capped, then drawn by `jitter` (−1 to 1) from ± the
/// policy's share of itself.
pub fn backoff(policy: &RetryRecord, attempt: u32, jitter: f64) -> TimeDelta {
    let base = u128::from(policy.base_seconds.unsigned_abs());
    let n = u128::from(attempt.max(1));
    let seconds = match policy.backoff {
        Backoff::Fixed => base,
        Backoff::Linear => base * n,
        // One that only a newer version knows waits as is usual.
        Backoff::Exponential | Backoff::Other(_) => base << (n - 1).min(64),
    };
    let capped = seconds.min(u128::from(policy.cap_seconds.unsigned_abs()));
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "at most a day, in milliseconds"
    )]
    let millis = (capped as f64 * 1000.0 * (1.0 + policy.jitter * jitter.clamp(-1.0, 1.0))) as i64;
    TimeDelta::milliseconds(millis)
}

/// Longest that a task waits which is given back again and again, in seconds.
const LONGEST_REST: u32 = 60;
/// How many releases in a row put the task back in its place.
const RELEASES_AT_ONCE: u32 = 2;

/// How long a task waits after its n-th release in a row where the worker does not say, in seconds. The first releases cost
/// nothing, because a worker that stops gives its tasks back. A task that every worker gives back must not keep them all
/// busy.
pub fn rest_seconds(releases: u32) -> u32 {
    match releases.saturating_sub(RELEASES_AT_ONCE) {
        0 => 0,
        n => 1_u32.checked_shl(n - 1).map_or(LONGEST_REST, |seconds| seconds.min(LONGEST_REST)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(backoff: Backoff, base_seconds: i64, cap_seconds: i64, jitter: f64) -> RetryRecord {
        RetryRecord { backoff, base_seconds, cap_seconds, jitter }
    }

    #[test]
    fn follows_its_formula() {
        let after = |kind, n| backoff(&policy(kind, 5, 60, 0.0), n, 0.7).num_seconds();
        assert_eq!([1, 2, 3, 4, 5].map(|n| after(Backoff::Exponential, n)), [5, 10, 20, 40, 60]);
        assert_eq!([1, 2, 3].map(|n| after(Backoff::Linear, n)), [5, 10, 15]);
        assert_eq!([1, 2, 3].map(|n| after(Backoff::Fixed, n)), [5, 5, 5]);
        assert_eq!(after(Backoff::Exponential, u32::MAX), 60);
    }

    #[test]
    fn the_rest_doubles_from_the_third_release_in_a_row_on() {
        let rests: Vec<_> = (0..=11).map(rest_seconds).collect();
        assert_eq!(rests, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!([34, 35, 36, u32::MAX].map(rest_seconds), [60; 4]);
    }

    proptest! {
        #[test]
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "at most a day, in milliseconds")]
        fn stays_within_cap_and_jitter(base in 1_i64..=86_400, cap in 1_i64..=86_400, share in 0.0..=1.0_f64,
            drawn in -1.0..=1.0_f64, n in 1_u32..=50) {
            for kind in [Backoff::Fixed, Backoff::Linear, Backoff::Exponential] {
                let wait = backoff(&policy(kind, base, cap, share), n, drawn).num_milliseconds();
                let plain = backoff(&policy(kind, base, cap, 0.0), n, 0.0).num_milliseconds();
                prop_assert!(plain <= cap * 1000);
                let spread = (plain as f64 * share).ceil() as i64;
                prop_assert!((plain - spread - 1..=plain + spread + 1).contains(&wait));
            }
        }
    }
}
