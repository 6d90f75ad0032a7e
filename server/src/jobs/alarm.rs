//! When the next round of a job is.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;

/// When the next round of a job is. Others may set it to an earlier time.
pub(super) struct Alarm {
    clock: Arc<Clock>,
    /// By the clock's [`instant`](Clock::instant), so that a step of the database's time moves no round. `None`: not
    /// planned yet.
    at: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Alarm {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { clock, at: Mutex::new(None), changed: Notify::new() }
    }

    /// There is something to do at that time. The job is woken only if its next round would be later.
    pub(super) fn set(&self, time: DateTime<Utc>) {
        let time = self.clock.instant() + self.clock.until(time);
        let mut at = self.at.lock();
        if at.is_none_or(|at| time < at) {
            *at = Some(time);
            self.changed.notify_one();
        }
    }

    /// A round begins. What is set from here on may be missed by it, so that counts for the next one.
    pub(super) fn begin(&self) {
        *self.at.lock() = None;
    }

    /// The next round is at that time, or earlier for what was set since this one began.
    pub(super) fn plan(&self, next: Instant) {
        let mut at = self.at.lock();
        *at = Some(at.map_or(next, |at| at.min(next)));
    }

    /// Resolves when it is time for the next round.
    pub(super) async fn rings(&self) {
        loop {
            let at = *self.at.lock();
            let rest = at.map(|at| at.saturating_duration_since(self.clock.instant()));
            match rest {
                Some(rest) if rest.is_zero() => return,
                Some(rest) => tokio::select! {
                    () = self.clock.sleep(rest) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::TimeDelta;
    use futures_util::{FutureExt as _, poll};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn planned(after: Duration) -> (Arc<Clock>, Alarm) {
        let clock = Arc::new(Clock::default());
        let alarm = Alarm::new(Arc::clone(&clock));
        alarm.begin();
        alarm.plan(clock.instant() + after);
        (clock, alarm)
    }

    #[tokio::test]
    async fn it_rings_when_planned_and_earlier_for_what_is_set_meanwhile() {
        let (clock, alarm) = planned(2 * HOUR);
        let mut rings = std::pin::pin!(alarm.rings());
        assert!(poll!(&mut rings).is_pending());
        alarm.set(clock.now() + HOUR);
        alarm.set(clock.now() + 3 * HOUR);
        clock.advance(HOUR + Duration::from_secs(1));
        rings.await;
    }

    #[tokio::test]
    async fn what_is_set_during_a_round_counts_for_the_next() {
        let (clock, alarm) = planned(Duration::ZERO);
        assert!(alarm.rings().now_or_never().is_some());
        alarm.begin();
        alarm.set(clock.now());
        alarm.plan(clock.instant() + HOUR);
        assert!(alarm.rings().now_or_never().is_some(), "it is not overwritten by the plan");
        alarm.begin();
        alarm.plan(clock.instant() + HOUR);
        assert!(alarm.rings().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_step_back_of_the_time_does_not_put_the_round_off() {
        let (clock, alarm) = planned(Duration::from_secs(1));
        clock.hear("member".to_owned(), clock.now() - TimeDelta::hours(5), clock.instant());
        clock.advance(Duration::from_secs(2));
        assert!(alarm.rings().now_or_never().is_some());
    }
}
