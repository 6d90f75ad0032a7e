//! How much a task remembers of its attempts.

use super::{AttemptRecord, AttemptStatus, Kept, Status, TaskRecord};

/// What is left of the message of an old attempt where there is no room for more, in characters.
const SHORT_MESSAGE: usize = 100;

impl TaskRecord {
    /// How many attempts are kept, beside the one that is under way.
    pub const MAX_HISTORY: usize = 100;
    /// Most bytes that these take together. The history is written whole with every claim and settlement.
    pub const MAX_HISTORY_BYTES: usize = 256 << 10;
    /// How many attempts are kept beside them that were undone. They only tell which versions they made.
    pub const MAX_WITHDRAWN: usize = 10;
    /// How many claim ids are kept, beside that of the attempt under way.
    pub const MAX_CLAIM_IDS: usize = 8;

    /// Keeps to these bounds. Of attempts that ended, the oldest give way: first their errors' details, then the length of
    /// their messages, and themselves only where they do not fit without.
    ///
    /// The attempt under way does not count. A claim that is undone later has therefore displaced nothing.
    pub(crate) fn bound_history(&mut self) {
        let is_held = self.status == Status::Processing;
        let most_ids = Self::MAX_CLAIM_IDS + usize::from(is_held && self.lease.is_some());
        self.claim_ids.drain(..self.claim_ids.len().saturating_sub(most_ids));
        let mut left = self.attempts.iter().filter(|attempt| counts(attempt)).count();
        let mut bytes: usize =
            self.attempts.iter().filter(|attempt| counts(attempt)).map(attempt_bytes).sum();
        while left > Self::MAX_HISTORY {
            bytes -= self.forget_oldest();
            left -= 1;
        }
        for shorten in [drop_details, cut_message] {
            for attempt in self.attempts.iter_mut().filter(|attempt| counts(attempt)) {
                if bytes <= Self::MAX_HISTORY_BYTES {
                    return;
                }
                let before = attempt_bytes(attempt);
                shorten(attempt);
                bytes -= before - attempt_bytes(attempt);
            }
        }
        // Only where nearly all names are of the greatest length.
        while bytes > Self::MAX_HISTORY_BYTES && left > 1 {
            bytes -= self.forget_oldest();
            left -= 1;
        }
    }

    /// Removes the oldest attempt that counts; says how many bytes it had.
    fn forget_oldest(&mut self) -> usize {
        let oldest = self.attempts.iter().position(counts);
        oldest.map_or(0, |oldest| attempt_bytes(&self.attempts.remove(oldest)))
    }
}

/// Whether an attempt is part of what is bounded: it ended, and was not undone.
fn counts(attempt: &Kept<AttemptRecord>) -> bool {
    attempt.ended_at.is_some() && attempt.status != AttemptStatus::Withdrawn
}

/// Bytes that an attempt takes, with what only a newer version knows of it.
fn attempt_bytes(attempt: &Kept<AttemptRecord>) -> usize {
    attempt.bytes() + attempt.unknown_bytes() + attempt.error.as_ref().map_or(0, Kept::unknown_bytes)
}

fn drop_details(attempt: &mut AttemptRecord) {
    if let Some(error) = &mut attempt.error
        && error.details.take().is_some()
    {
        attempt.truncated = true;
    }
}

fn cut_message(attempt: &mut AttemptRecord) {
    if let Some(error) = &mut attempt.error
        && let Some((end, _)) = error.message.char_indices().nth(SHORT_MESSAGE)
    {
        error.message.truncate(end);
        // What was cut off would stay allocated.
        error.message.shrink_to_fit();
        attempt.truncated = true;
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use task_repo_protocol::Uuid;

    use super::super::{ErrorRecord, Trigger};
    use super::*;

    fn attempt(number: u32, status: AttemptStatus, text: usize) -> Kept<AttemptRecord> {
        let (now, text) = (Utc::now(), "é".repeat(text / 2));
        let error = ErrorRecord { message: text.clone(), code: None, details: Some(text) };
        AttemptRecord {
            id: Uuid::from_u128(number.into()),
            number,
            token: None,
            claim_id: None,
            worker_id: None,
            trigger: Trigger::Claim,
            status,
            started_at: now,
            started_version: 0,
            ended_at: (status != AttemptStatus::Processing).then_some(now),
            ended_version: None,
            led_to: None,
            lost_version: None,
            lost_at: None,
            result_id: None,
            error: Some(error.into()),
            truncated: false,
            usage: None,
            receipt: None,
        }
        .into()
    }

    fn bounded(attempts: Vec<Kept<AttemptRecord>>) -> TaskRecord {
        let mut task = TaskRecord { attempts, ..TaskRecord::pending(Uuid::from_u128(1)) };
        task.bound_history();
        let once = task.attempts.clone();
        task.bound_history();
        assert!(task.attempts == once, "what is bounded stays as it is");
        task
    }

    #[test]
    fn what_fits_stays_whole() {
        let attempts: Vec<_> = (1..=100).map(|n| attempt(n, AttemptStatus::Failed, 1000)).collect();
        assert!(bounded(attempts.clone()).attempts == attempts);
    }

    #[test]
    fn the_oldest_of_too_many_goes_and_the_one_under_way_does_not_count() {
        let mut attempts: Vec<_> = (1..=103).map(|n| attempt(n, AttemptStatus::Failed, 0)).collect();
        attempts.insert(0, attempt(104, AttemptStatus::Withdrawn, 0));
        attempts.push(attempt(105, AttemptStatus::Processing, 0));
        let numbers: Vec<_> = bounded(attempts).attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers.len(), 102);
        assert_eq!((numbers[0], numbers[1], numbers[100], numbers[101]), (104, 4, 103, 105));
    }

    #[test]
    fn details_go_before_messages_and_messages_before_attempts() {
        let shape = |text: usize| {
            let task = bounded((1..=100).map(|n| attempt(n, AttemptStatus::Failed, text)).collect());
            let errors = task.attempts.iter().filter_map(|attempt| attempt.error.as_ref());
            let is_cut = |error: &&Kept<ErrorRecord>| error.message.chars().count() == SHORT_MESSAGE;
            let bare = errors.clone().filter(|error| error.details.is_none()).count();
            assert_eq!(task.attempts.iter().filter(|attempt| attempt.truncated).count(), bare);
            (task.attempts.len(), bare, errors.filter(is_cut).count())
        };
        // Each 300 bytes, and of the rest as much as fits.
        assert_eq!(shape(1_500), (100, 46, 0));
        assert_eq!(shape(4_000), (100, 100, 45));
    }

    #[test]
    fn attempts_go_where_they_do_not_fit_without_their_texts() {
        let long = |n| {
            let mut attempt = attempt(n, AttemptStatus::Failed, 0);
            (attempt.worker_id, attempt.result_id) = (Some("w".repeat(1020)), Some("r".repeat(1500)));
            attempt
        };
        let task = bounded((1..=100).map(long).collect());
        assert_eq!(task.attempts.len(), TaskRecord::MAX_HISTORY_BYTES / (300 + 1020 + 1500));
        assert_eq!(task.attempts.last().expect("the latest").number, 100);
    }
}
