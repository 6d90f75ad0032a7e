//! The task as it is kept.
//!
//! One struct is what the lifecycle works on and, through its serde form, what the database stores: a field is
//! named once. Payloads are the JSON text the client sent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{Bytes, serde_as, skip_serializing_none};
use task_repo_protocol::{
    ExecutionStatus, Progress, Reason, Receipt, RetryPolicy, Status, Tags, Trigger, Usage, Uuid,
};

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;

/// A task, whole or (where a read leaves them out) without its payloads.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// `UUIDv7`, chosen by the server that created it.
    #[serde(rename = "_id")]
    #[serde_as(as = "Id")]
    pub id: Uuid,
    /// Whose it is; first in every index and filter.
    pub tenant: String,
    /// The end user it was created for.
    pub user_id: Option<String>,
    /// The queue it waits in.
    pub task_type: String,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Why it is `scheduled` or `failed`.
    pub reason: Option<Reason>,
    /// 0–100, higher first.
    pub priority: i32,
    /// Its age among tasks of one priority: `run_at`, else creation.
    #[serde_as(as = "Date")]
    pub ready_at: DateTime<Utc>,
    /// JSON text as sent.
    pub request: Option<String>,
    /// JSON text of the template as sent.
    pub template: Option<String>,
    /// JSON text as sent; absent: `{}`.
    pub metadata: Option<String>,
    /// Each `key:value`, so that one index finds any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How many attempts have begun that count.
    pub attempt: u32,
    /// How many may.
    pub max_attempts: u32,
    /// How often its lease ran out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub losses: u32,
    /// Where it says otherwise than the default.
    pub retry: Option<RetryPolicy>,
    /// Where it says otherwise than the default.
    pub lease_seconds: Option<u32>,
    /// Where it says otherwise than the default.
    pub timeout_seconds: Option<u32>,
    /// How long it stays once final, in seconds; absent: for ever.
    pub retention_seconds: Option<u32>,
    /// Not to be claimed before.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// For its owner.
    #[serde_as(as = "Option<Date>")]
    pub due_date: Option<DateTime<Utc>>,
    /// For its owner.
    #[serde_as(as = "Option<Date>")]
    pub reminder_time: Option<DateTime<Utc>>,
    /// Who works on it, while somebody does under a lease.
    pub lease: Option<LeaseRecord>,
    /// While it is `processing`: when the sweeper takes it back.
    #[serde_as(as = "Option<Date>")]
    pub lease_until: Option<DateTime<Utc>>,
    /// While it is `processing`: when the attempt ends, whatever the heartbeats.
    #[serde_as(as = "Option<Date>")]
    pub timeout_at: Option<DateTime<Utc>>,
    /// The token of a lease that ran out, while nobody has claimed since.
    #[serde_as(as = "Option<Id>")]
    pub lost_token: Option<Uuid>,
    /// The latest its worker reported.
    pub progress: Option<Progress>,
    /// When its cancellation was asked for.
    #[serde_as(as = "Option<Date>")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What the first request for its cancellation was answered.
    pub cancel_receipt: Option<ReceiptRecord>,
    /// JSON text as sent.
    pub result: Option<String>,
    /// Where the result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why the latest attempt failed.
    pub error: Option<ErrorRecord>,
    /// Summed over the attempts.
    #[serde(default, skip_serializing_if = "is_unused")]
    pub usage: Usage,
    /// When it was created.
    #[serde_as(as = "Date")]
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    #[serde_as(as = "Date")]
    pub updated_at: DateTime<Utc>,
    /// When the latest attempt began.
    #[serde_as(as = "Option<Date>")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it became final.
    #[serde_as(as = "Option<Date>")]
    pub completed_at: Option<DateTime<Utc>>,
    /// When it was deleted: hidden since, kept until `expire_at`.
    #[serde_as(as = "Option<Date>")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// When the database removes it.
    #[serde_as(as = "Option<Date>")]
    pub expire_at: Option<DateTime<Utc>>,
    /// Grows by one with every stored change.
    pub version: i64,
    /// Names the latest write. It guards the next one, and tells what became of one whose answer was lost.
    pub stamp: i64,
    /// Bytes of JSON text in request, template and metadata.
    pub input_bytes: u32,
    /// The attempts so far, oldest first, the latest [`TaskRecord::MAX_HISTORY`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
    /// The claim ids of those attempts, where the claims had one.
    #[serde_as(as = "Vec<Bytes>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claim_ids: Vec<Vec<u8>>,
    /// `execute` asked for the next attempt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executed: bool,
    /// Hash of user and idempotency key.
    #[serde_as(as = "Option<Bytes>")]
    pub idempotency_key: Option<Vec<u8>>,
    /// Hash of the body that came with the key.
    #[serde_as(as = "Option<Bytes>")]
    pub idempotency_body: Option<Vec<u8>>,
    /// The request that came with the key.
    pub idempotency_request: Option<String>,
}

/// A task's payloads: JSON text as sent.
#[derive(Debug, Default)]
pub struct StoredPayload {
    request: Option<String>,
    template: Option<String>,
    metadata: Option<String>,
    result: Option<String>,
}

/// Who works on a task.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// What its holder must show.
    #[serde_as(as = "Id")]
    pub token: Uuid,
    /// The worker's own name for itself.
    pub worker_id: String,
    /// How long a heartbeat renews it, in seconds.
    pub seconds: u32,
    /// Its claim was answered once more: it does not go back with the first answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub repeated: bool,
}

/// One attempt, with the receipt of its settlement.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Names the attempt among those of its task. Tasks that were claimed together have the same.
    #[serde_as(as = "Id")]
    pub id: Uuid,
    /// Which one it was, counted from 1.
    pub number: u32,
    /// The lease's token; absent for self-managed work. Tasks that were claimed together have the same.
    #[serde_as(as = "Option<Id>")]
    pub token: Option<Uuid>,
    /// Hash of the claim's id and caller.
    #[serde_as(as = "Option<Bytes>")]
    pub claim_id: Option<Vec<u8>>,
    /// Who worked; absent for self-managed work.
    pub worker_id: Option<String>,
    /// What started it.
    pub trigger: Trigger,
    /// How it ended.
    pub status: ExecutionStatus,
    /// When it began.
    #[serde_as(as = "Date")]
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde_as(as = "Option<Date>")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Where its result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorRecord>,
    /// What it used.
    pub usage: Option<Usage>,
    /// What its worker was answered.
    pub receipt: Option<ReceiptRecord>,
}

/// Where a task stood after an attempt was settled.
#[serde_as]
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRecord {
    /// Where it went.
    pub status: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// How many attempts had begun that count.
    pub attempt: u32,
    /// Not to be claimed before.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// The version after the move.
    pub version: i64,
}

/// Why an attempt failed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// For people.
    pub message: String,
    /// For programs.
    pub code: Option<String>,
    /// JSON text as sent.
    pub details: Option<String>,
}

impl TaskRecord {
    /// How many attempts are kept.
    pub const MAX_HISTORY: usize = 100;
    /// How long a lease holds where nobody says otherwise, in seconds.
    pub const LEASE_SECONDS: u32 = 60;
    /// How long an attempt may take where the task does not say otherwise, in seconds.
    pub const TIMEOUT_SECONDS: u32 = 300;

    /// Where the task stands, as a receipt.
    pub fn receipt(&self) -> Receipt {
        self.receipt_record().for_task(self.id)
    }

    /// The same in its stored form.
    pub fn receipt_record(&self) -> ReceiptRecord {
        ReceiptRecord {
            status: self.status,
            reason: self.reason,
            attempt: self.attempt,
            run_at: self.run_at,
            version: self.version,
        }
    }

    /// Whether any payload is at hand.
    pub fn has_payload(&self) -> bool {
        [&self.request, &self.template, &self.metadata, &self.result].into_iter().any(Option::is_some)
    }

    /// Takes its payloads out: they may be large, and few verbs need them.
    pub fn take_payload(&mut self) -> StoredPayload {
        StoredPayload {
            request: self.request.take(),
            template: self.template.take(),
            metadata: self.metadata.take(),
            result: self.result.take(),
        }
    }

    /// Puts them back.
    pub fn put_payload(&mut self, payload: StoredPayload) {
        let StoredPayload { request, template, metadata, result } = payload;
        (self.request, self.template, self.metadata, self.result) = (request, template, metadata, result);
    }

    /// Its tags in their stored form.
    pub fn stored_tags(tags: &Tags) -> Vec<String> {
        tags.0.iter().map(|(key, value)| format!("{key}:{value}")).collect()
    }
}

#[cfg(test)]
impl TaskRecord {
    /// One of the type `t` that waits, created now.
    pub(crate) fn pending(id: Uuid) -> Self {
        let now = bson::DateTime::now();
        let stored = bson::doc! {
            "_id": bson::Uuid::from_bytes(id.into_bytes()), "tenant": "default", "task_type": "t",
            "status": "pending", "priority": 50, "ready_at": now, "attempt": 0, "max_attempts": 3,
            "created_at": now, "updated_at": now, "version": 1_i64, "stamp": 0_i64, "input_bytes": 0,
        };
        bson::deserialize_from_document(stored).expect("all that a task must have")
    }
}

impl ReceiptRecord {
    /// The receipt of the task with that id.
    pub fn for_task(self, id: Uuid) -> Receipt {
        Receipt {
            id,
            status: self.status,
            reason: self.reason,
            attempt: self.attempt,
            run_at: self.run_at,
            version: self.version.unsigned_abs(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_unused(usage: &Usage) -> bool {
    *usage == Usage::default()
}
