//! What is absent in a stored task, and what that means. It is part of the stored form and never changes, whatever a new
//! task gets.

use super::parts::{RetryRecord, UsageRecord};
use crate::kept::Kept;

/// What a task without `lease_seconds` means.
const ABSENT_LEASE_SECONDS: u32 = 60;
/// What a task without `timeout_seconds` means.
const ABSENT_TIMEOUT_SECONDS: u32 = 300;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(super) fn is_unused(usage: &Kept<UsageRecord>) -> bool {
    *usage == Kept::default()
}

pub(super) const fn usual_lease() -> u32 {
    ABSENT_LEASE_SECONDS
}

pub(super) const fn usual_timeout() -> u32 {
    ABSENT_TIMEOUT_SECONDS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_usual_lease(seconds: &u32) -> bool {
    *seconds == usual_lease()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_usual_timeout(seconds: &u32) -> bool {
    *seconds == usual_timeout()
}

pub(super) fn is_usual_retry(retry: &Kept<RetryRecord>) -> bool {
    *retry == Kept::default()
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::Uuid;

    use super::super::{Backoff, TaskRecord};
    use super::*;

    #[test]
    fn what_is_absent_in_a_stored_task_means_the_same_in_every_release() {
        let task = TaskRecord::pending(Uuid::from_u128(1));
        let retry =
            RetryRecord { backoff: Backoff::Exponential, base_seconds: 5, cap_seconds: 3600, jitter: 0.2 };
        assert_eq!((task.lease_seconds, task.timeout_seconds, *task.retry), (60, 300, retry));
        let stored = bson::serialize_to_document(&task).expect("a stored form");
        assert!(
            ["lease_seconds", "timeout_seconds", "retry", "pending_at"]
                .iter()
                .all(|it| !stored.contains_key(it))
        );
    }
}
