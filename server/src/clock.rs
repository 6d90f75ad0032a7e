//! The time: that of most of the database's members, carried forward by this process's monotonic clock.
//!
//! Invariant: no worker's clock, no jump of this machine's wall clock, and not one member's clock against those of the
//! others decides when a lease runs out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// How many answers of a member count; the one that was under way for the shortest time is right.
const ANSWERS: usize = 3;
/// Differences that are due to the way of an answer, not to a clock, in milliseconds.
const NOISE: u64 = 50;

/// The median of the members' clocks, as they were last heard.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    /// The time at which it began, in milliseconds, as it is believed now.
    origin: AtomicI64,
    /// The same, as each member has it: by its latest answers.
    members: Mutex<HashMap<String, VecDeque<i64>>>,
}

impl Clock {
    /// A clock that reads `time` now, and has heard of no member.
    pub fn set_to(time: DateTime<Utc>) -> Self {
        let origin = AtomicI64::new(time.timestamp_millis());
        Self { began: Instant::now(), origin, members: Mutex::default() }
    }

    /// Reads `time` at `at`, until members are heard.
    pub fn begin_at(&self, time: DateTime<Utc>, at: Instant) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.is_empty() {
            self.origin.store(self.origin_of(time, at), Ordering::Relaxed);
        }
    }

    fn origin_of(&self, time: DateTime<Utc>, at: Instant) -> i64 {
        time.timestamp_millis() - millis(at.saturating_duration_since(self.began))
    }

    /// A member's clock read `time` at `at`, or before: answers may come late, but never too early.
    pub fn hear(&self, member: String, time: DateTime<Utc>, at: Instant) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = members.entry(member).or_default();
        latest.push_back(self.origin_of(time, at));
        if latest.len() > ANSWERS {
            latest.pop_front();
        }
        let mut origins: Vec<_> =
            members.values().filter_map(|latest| latest.iter().max()).copied().collect();
        origins.sort_unstable();
        let now = self.origin.load(Ordering::Relaxed);
        // Where two are in the middle, the one that fits what was believed before.
        let middle = [origins[(origins.len() - 1) / 2], origins[origins.len() / 2]];
        let median = if middle[0].abs_diff(now) <= middle[1].abs_diff(now) { middle[0] } else { middle[1] };
        if median.abs_diff(now) > NOISE {
            let step = TimeDelta::milliseconds(median - now);
            tracing::info!(%step, "the time is set by the database's clocks");
            self.origin.store(median, Ordering::Relaxed);
        }
    }

    /// A member has left the set.
    pub fn forget(&self, member: &str) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(member);
    }

    /// Now, to the millisecond.
    pub fn now(&self) -> DateTime<Utc> {
        let now = self.origin.load(Ordering::Relaxed).saturating_add(millis(self.began.elapsed()));
        DateTime::from_timestamp_millis(now).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// How long until `time`; zero when it has passed.
    pub fn until(&self, time: DateTime<Utc>) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: TimeDelta = TimeDelta::minutes(5);

    /// A clock an hour behind the time that is returned too, and what `members` say.
    fn heard(members: &[(&str, TimeDelta)]) -> (Clock, DateTime<Utc>) {
        let time = Utc::now();
        let clock = Clock::set_to(time - TimeDelta::hours(1));
        for (member, ahead) in members {
            say(&clock, member, time + *ahead);
        }
        (clock, time)
    }

    fn say(clock: &Clock, member: &str, time: DateTime<Utc>) {
        clock.hear(member.to_owned(), time, clock.began);
    }

    fn is_at(clock: &Clock, time: DateTime<Utc>) -> bool {
        clock.origin.load(Ordering::Relaxed) == time.timestamp_millis()
    }

    #[test]
    fn one_member_is_followed_wherever_it_goes() {
        let (clock, time) = heard(&[("a", TimeDelta::zero())]);
        assert!(is_at(&clock, time));
        say(&clock, "a", time + FIVE_MINUTES);
        assert!(is_at(&clock, time + FIVE_MINUTES));
    }

    #[test]
    fn a_member_whose_clock_is_wrong_changes_nothing_while_two_others_are_right() {
        for wrong in [FIVE_MINUTES, -FIVE_MINUTES] {
            let (clock, time) = heard(&[("a", TimeDelta::zero()), ("b", TimeDelta::zero()), ("c", wrong)]);
            assert!(is_at(&clock, time));
            let (clock, time) = heard(&[("c", wrong), ("a", TimeDelta::zero()), ("b", TimeDelta::zero())]);
            assert!(is_at(&clock, time));
        }
    }

    #[test]
    fn of_two_that_differ_the_one_that_fits_what_was_believed_counts() {
        let (clock, time) = heard(&[("a", TimeDelta::zero()), ("b", FIVE_MINUTES)]);
        assert!(is_at(&clock, time));
        clock.forget("a");
        say(&clock, "b", time + FIVE_MINUTES);
        assert!(is_at(&clock, time + FIVE_MINUTES));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_take_the_time_back() {
        let (clock, time) = heard(&[("a", TimeDelta::zero())]);
        let late = time - FIVE_MINUTES;
        say(&clock, "a", late);
        say(&clock, "a", late);
        assert!(is_at(&clock, time));
        say(&clock, "a", late);
        assert!(is_at(&clock, late), "so many answers are not late: the clock was set back");
    }

    #[test]
    fn the_way_of_an_answer_does_not_move_the_time() {
        let (clock, time) = heard(&[("a", TimeDelta::zero())]);
        say(&clock, "a", time - TimeDelta::milliseconds(20));
        assert!(is_at(&clock, time));
    }
}
