//! The time: that of most of the database's members, carried forward by this process's monotonic clock.
//!
//! Invariant: no worker's clock, no jump of this machine's wall clock, and not one member's clock against those of the
//! others decides when a lease runs out.
//!
//! The background jobs sleep by this clock. A test that moves it wakes them, so that a lease of a minute runs out at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;

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
    /// By how much tests have moved it, in milliseconds; zero in a service that runs.
    moved: AtomicI64,
    /// Told of every move.
    sleepers: watch::Sender<()>,
}

impl Default for Clock {
    /// This machine's time, until members are heard.
    fn default() -> Self {
        Self::set_to(Utc::now())
    }
}

impl Clock {
    /// A clock that reads `time` now, and has heard of no member.
    pub fn set_to(time: DateTime<Utc>) -> Self {
        let origin = AtomicI64::new(time.timestamp_millis());
        Self {
            began: Instant::now(),
            origin,
            members: Mutex::default(),
            moved: AtomicI64::new(0),
            sleepers: watch::Sender::default(),
        }
    }

    /// Reads `time` at `at`, until members are heard.
    pub fn begin_at(&self, time: DateTime<Utc>, at: Instant) {
        let members = self.members.lock();
        if members.is_empty() {
            self.origin.store(self.origin_of(time, at), Ordering::Relaxed);
        }
    }

    fn origin_of(&self, time: DateTime<Utc>, at: Instant) -> i64 {
        time.timestamp_millis() - millis(at.saturating_duration_since(self.began))
    }

    /// A member's clock read `time` at `at`, or before: answers may come late, but never too early.
    pub fn hear(&self, member: String, time: DateTime<Utc>, at: Instant) {
        let mut members = self.members.lock();
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
        self.members.lock().remove(member);
    }

    /// Now, to the millisecond.
    pub fn now(&self) -> DateTime<Utc> {
        let passed = millis(self.instant().saturating_duration_since(self.began));
        let now = self.origin.load(Ordering::Relaxed).saturating_add(passed);
        DateTime::from_timestamp_millis(now).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// How long until `time`; zero when it has passed.
    pub fn until(&self, time: DateTime<Utc>) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }

    /// A point in time to measure by how long ago something was: it never goes back, and moves with this clock.
    pub fn instant(&self) -> Instant {
        Instant::now() + self.moved()
    }

    fn moved(&self) -> Duration {
        Duration::from_millis(self.moved.load(Ordering::Acquire).unsigned_abs())
    }

    /// How long ago `earlier` was, an [`instant`](Self::instant) of this clock.
    pub fn since(&self, earlier: Instant) -> Duration {
        self.instant().saturating_duration_since(earlier)
    }

    /// Sleeps for `duration` by this clock. A move of the clock counts as time that has passed.
    pub async fn sleep(&self, duration: Duration) {
        // Subscribed before the first look at the time: a move after the look ends the wait below.
        let mut moves = self.sleepers.subscribe();
        let end = self.instant() + duration;
        loop {
            let left = end.saturating_duration_since(self.instant());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // It cannot close: this clock holds the sender.
                _ = moves.changed() => {}
            }
        }
    }

    /// Moves the clock on, for tests. Everybody who sleeps by it looks at the time again. The time jumps, as on a machine
    /// that was suspended: background jobs find that nothing happened in between.
    pub fn advance(&self, duration: Duration) {
        self.moved.fetch_add(millis(duration), Ordering::AcqRel);
        self.sleepers.send_replace(());
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
    fn a_clock_that_was_moved_stays_moved_whatever_members_say() {
        let (clock, time) = heard(&[("a", TimeDelta::zero())]);
        clock.advance(Duration::from_secs(3600));
        say(&clock, "a", time);
        // Both to the millisecond, as the clock counts.
        let off = clock.now().timestamp_millis() - (time + TimeDelta::hours(1)).timestamp_millis();
        assert!((0..60_000).contains(&off), "{off}");
    }

    #[tokio::test]
    async fn a_move_wakes_those_who_sleep_by_the_clock_and_only_those_whose_time_has_come() {
        let clock = Clock::default();
        let short = clock.sleep(Duration::from_secs(3600));
        let long = clock.sleep(Duration::from_secs(7200));
        let (mut short, mut long) = (std::pin::pin!(short), std::pin::pin!(long));
        assert!(futures_util::poll!(&mut short).is_pending() && futures_util::poll!(&mut long).is_pending());
        clock.advance(Duration::from_secs(3601));
        short.await;
        assert!(futures_util::poll!(&mut long).is_pending());
        clock.advance(Duration::from_secs(3600));
        long.await;
    }

    #[test]
    fn the_way_of_an_answer_does_not_move_the_time() {
        let (clock, time) = heard(&[("a", TimeDelta::zero())]);
        say(&clock, "a", time - TimeDelta::milliseconds(20));
        assert!(is_at(&clock, time));
    }
}
