//! Progress on its way to the service: the latest update wins, and updates are sent at most every 250 ms.

use std::time::{Duration, Instant};

use task_repo_protocol::ProgressUpdate;

/// Least time between two updates of one task that are sent, so that a busy handler does not flood the service.
pub(crate) const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Longest text that the service takes, in characters.
const MAX_TEXT_CHARS: usize = 4096;

/// The progress that a handler reported and that has not reached the service yet.
#[derive(Debug, Default)]
pub(crate) struct ProgressQueue {
    waiting: Option<ProgressUpdate>,
    sending: Option<ProgressUpdate>,
    /// When the next update may be sent.
    not_before: Option<Instant>,
    /// The handler is done: the waiting update is sent at once.
    is_flushing: bool,
}

impl ProgressQueue {
    /// Merges an update into the waiting one; fields that it lacks stay. True: no update waited before.
    pub(crate) fn put(&mut self, update: ProgressUpdate) -> bool {
        let update = within_limits(update);
        if update.value.is_none() && update.text.is_none() {
            return false;
        }
        let is_first = self.waiting.is_none();
        let old = self.waiting.take().unwrap_or_default();
        self.waiting = Some(newer_over(update, old));
        is_first
    }

    /// When the waiting update should be sent; `None`: none waits.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        self.waiting.as_ref()?;
        Some(self.not_before.filter(|_| !self.is_flushing).unwrap_or(now))
    }

    /// Takes the waiting update, to send it.
    pub(crate) fn take(&mut self, now: Instant) -> Option<ProgressUpdate> {
        let update = self.waiting.take()?;
        self.not_before = Some(now + MIN_REPORT_INTERVAL);
        self.sending = Some(update.clone());
        Some(update)
    }

    /// The update that was sent has arrived, or will never be accepted.
    pub(crate) fn sent(&mut self) {
        self.sending = None;
    }

    /// The update that was sent has not arrived. It waits again until `not_before`, beneath any newer one. While flushing it
    /// is dropped, because the result waits for it.
    pub(crate) fn missed(&mut self, not_before: Instant) {
        let Some(old) = self.sending.take() else { return };
        self.not_before = Some(not_before);
        if self.is_flushing {
            self.waiting = None;
        } else {
            self.waiting = Some(newer_over(self.waiting.take().unwrap_or_default(), old));
        }
    }

    /// From now on, the waiting update is sent at once.
    pub(crate) fn flush(&mut self) {
        self.is_flushing = true;
    }

    /// Whether no update waits or is being sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.sending.is_none()
    }
}

/// Both updates as one; of a field that both have, the newer.
fn newer_over(newer: ProgressUpdate, older: ProgressUpdate) -> ProgressUpdate {
    ProgressUpdate { value: newer.value.or(older.value), text: newer.text.or(older.text) }
}

/// The update within the service's limits, because a refused heartbeat would not renew the lease.
fn within_limits(update: ProgressUpdate) -> ProgressUpdate {
    ProgressUpdate {
        value: update.value.filter(|value| !value.is_nan()).map(|value| value.clamp(0.0, 1.0)),
        text: update.text.map(|text| crate::failure::shortened(text, MAX_TEXT_CHARS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: f64) -> ProgressUpdate {
        ProgressUpdate { value: Some(value), text: None }
    }

    fn text(text: &str) -> ProgressUpdate {
        ProgressUpdate { value: None, text: Some(text.to_owned()) }
    }

    fn both(value: f64, text: &str) -> ProgressUpdate {
        ProgressUpdate { value: Some(value), text: Some(text.to_owned()) }
    }

    #[test]
    fn the_latest_wins_and_what_it_does_not_say_stays() {
        let (mut queue, now) = (ProgressQueue::default(), Instant::now());
        assert!(queue.put(text("begun")));
        assert!(!queue.put(value(0.1)));
        assert!(!queue.put(value(0.2)));
        assert_eq!(queue.take(now), Some(both(0.2, "begun")));
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn reports_keep_their_distance_until_the_end() {
        let (mut queue, now) = (ProgressQueue::default(), Instant::now());
        queue.put(value(0.1));
        assert_eq!(queue.due_at(now), Some(now));
        queue.take(now);
        queue.sent();
        assert_eq!(queue.due_at(now), None);
        queue.put(value(0.2));
        assert_eq!(queue.due_at(now), Some(now + MIN_REPORT_INTERVAL));
        queue.flush();
        assert_eq!(queue.due_at(now), Some(now));
    }

    #[test]
    fn what_was_missed_is_sent_again_under_what_is_newer() {
        let (mut queue, now) = (ProgressQueue::default(), Instant::now());
        queue.put(both(0.1, "old"));
        queue.take(now);
        queue.put(value(0.2));
        queue.missed(now + MIN_REPORT_INTERVAL * 9);
        assert_eq!(queue.due_at(now), Some(now + MIN_REPORT_INTERVAL * 9));
        assert_eq!(queue.take(now), Some(both(0.2, "old")));
    }

    #[test]
    fn at_the_end_one_try_has_to_do() {
        let (mut queue, now) = (ProgressQueue::default(), Instant::now());
        queue.put(value(1.0));
        queue.flush();
        queue.take(now);
        assert!(!queue.is_empty());
        queue.missed(now);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_the_service_would_refuse_is_made_to_fit() {
        let (mut queue, now) = (ProgressQueue::default(), Instant::now());
        assert!(!queue.put(value(f64::NAN)));
        queue.put(both(7.0, &"é".repeat(5000)));
        let sent = queue.take(now).expect("waits");
        assert_eq!(
            (sent.value, sent.text.map(|text| text.chars().count())),
            (Some(1.0), Some(MAX_TEXT_CHARS))
        );
    }
}
