//! Lease tokens and ids of attempts, outside and inside.
//!
//! Tasks that are claimed together share the stored token of their leases and the stored id of their attempts, so that one
//! statement writes them all (docs/decisions/0011). Seen from outside each task has its own: the random part of the task's
//! id is put over what is stored by XOR, and taken off again where a token comes in. So no lease token and no execution id
//! in an answer is the value in the database.

use task_repo_protocol::Uuid;

/// The random bits of a `UUIDv7`: those behind its time, version and variant (RFC 9562, 5.7).
const RANDOM_BITS: u128 = (1 << 62) - 1;

/// The stored form of the lease token of a task that a request shows. Any text may be shown, and few are a token: the nil
/// UUID, which no lease has, stands for the others.
pub(crate) fn stored(task: Uuid, text: &str) -> Uuid {
    let token = Uuid::try_parse(text).ok().filter(|token| token.to_string() == text);
    token.map_or(Uuid::nil(), |token| with_id_of(task, token))
}

/// A stored token, or the stored id of an attempt, as answers about this task show it.
pub(crate) fn seen_from_outside(task: Uuid, stored: Uuid) -> Uuid {
    with_id_of(task, stored)
}

/// Puts the random part of the task's id over the other, or takes it off again.
fn with_id_of(task: Uuid, other: Uuid) -> Uuid {
    Uuid::from_u128(other.as_u128() ^ (task.as_u128() & RANDOM_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_task_only() {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let shared = Uuid::new_v4();
        let shown = seen_from_outside(one, shared).to_string();
        assert_eq!(stored(one, &shown), shared);
        assert_ne!(stored(other, &shown), shared);
        assert_ne!(shown, seen_from_outside(other, shared).to_string());
        assert_eq!(stored(one, &shown.to_uppercase()), Uuid::nil(), "in its one spelling only");
        assert_eq!(stored(one, "anything"), Uuid::nil());
    }
}
