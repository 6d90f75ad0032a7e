//! Idempotency keys.
//!
//! One lives in the task it made: a unique index over tenant and a hash of user, key and place in the batch. The first
//! answer is a pure function of the request, the id, the time of creation and the limits that were chosen then, so a repeat
//! draws it up again from the stored task and needs no record beside it.

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use task_repo_protocol::Uuid;

use crate::access::Scope;
use crate::store::new_stamp;
use crate::task::{Status, TaskRecord};

/// How long an idempotency key is remembered.
pub(super) const IDEMPOTENCY_KEY_REMEMBERED: TimeDelta = TimeDelta::days(1);

/// What makes a create safe to repeat.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// As the caller sent it.
    pub key: String,
    /// Hash of the path and the body's JSON value.
    pub body: [u8; 32],
    /// The request that brings it.
    pub request_id: String,
}

impl IdempotencyKey {
    /// A document that holds the first place of a call whose first task is refused, until the key is forgotten: a task that was
    /// deleted before anybody saw it. Another body with the same key meets it.
    pub(super) fn holder(&self, scope: &Scope, accepted: &TaskRecord) -> TaskRecord {
        let created_at = accepted.created_at;
        TaskRecord {
            status: Status::Cancelled,
            user_id: accepted.user_id.clone(),
            deleted_at: Some(created_at),
            remove_at: Some(created_at + IDEMPOTENCY_KEY_REMEMBERED),
            stamp: new_stamp(),
            idempotency_key: Some(self.at(scope, 0)),
            idempotency_body: Some(self.body.to_vec()),
            idempotency_request: Some(self.request_id.clone()),
            ..TaskRecord::new(
                Uuid::now_v7(),
                accepted.tenant.clone(),
                accepted.task_type.clone(),
                created_at,
                accepted.limits(),
            )
        }
    }

    /// The key of the task at that place among the valid ones of the call.
    pub(super) fn at(&self, scope: &Scope, place: usize) -> Vec<u8> {
        let mut hash = Sha256::new();
        // The user comes with its length, so that no two pairs of user and key read the same.
        let user = scope.user.as_deref().unwrap_or_default();
        hash.update((user.len() as u64).to_be_bytes());
        hash.update(user);
        hash.update(&self.key);
        hash.update(b"\0");
        hash.update((place as u64).to_be_bytes());
        hash.finalize().to_vec()
    }
}
