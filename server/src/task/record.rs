//! THE task document, and what can be told of it without the lifecycle.

use bson::serde_helpers::datetime::FromChrono04DateTime as Date;
use bson::serde_helpers::uuid_1::AsBinary as Id;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{Bytes, serde_as, skip_serializing_none};
use task_repo_protocol::{Receipt, Tags, Uuid};

use super::defaults::{
    is_unused, is_usual_lease, is_usual_retry, is_usual_timeout, is_zero, usual_lease, usual_timeout,
};
use super::parts::{
    AttemptRecord, ErrorRecord, LeaseRecord, LimitsRecord, MoveRecord, ProgressRecord, ReceiptRecord,
    RetryRecord, UsageRecord, is_false,
};
use super::words::{MoveVerb, Reason, Status};
use crate::access::Scope;
use crate::kept::Kept;

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
    /// How often in a row it was given back, with no attempt between that ended otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub releases: u32,
    /// When a failed attempt is followed by another. This and the next two are the effective values, chosen when the task
    /// was created. Absent in the stored form is what is usual: always these very values, whatever the defaults are later.
    #[serde(default, skip_serializing_if = "is_usual_retry")]
    pub retry: Kept<RetryRecord>,
    /// How long a lease holds where the claim does not say otherwise, in seconds.
    #[serde(default = "usual_lease", skip_serializing_if = "is_usual_lease")]
    pub lease_seconds: u32,
    /// How long an attempt may take, whatever the heartbeats, in seconds.
    #[serde(default = "usual_timeout", skip_serializing_if = "is_usual_timeout")]
    pub timeout_seconds: u32,
    /// How long it stays once final, in seconds; absent: for ever.
    pub retention_seconds: Option<u32>,
    /// Not to be claimed before.
    #[serde_as(as = "Option<Date>")]
    pub run_at: Option<DateTime<Utc>>,
    /// When it last became `pending`; absent: not since its creation.
    #[serde_as(as = "Option<Date>")]
    pub pending_at: Option<DateTime<Utc>>,
    /// For its owner.
    #[serde_as(as = "Option<Date>")]
    pub due_date: Option<DateTime<Utc>>,
    /// For its owner.
    #[serde_as(as = "Option<Date>")]
    pub reminder_time: Option<DateTime<Utc>>,
    /// The lease, while a worker has the task.
    pub lease: Option<Kept<LeaseRecord>>,
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
    pub progress: Option<Kept<ProgressRecord>>,
    /// The version that brought that.
    pub progress_version: Option<i64>,
    /// Whether a checkpoint lies beside it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_checkpoint: bool,
    /// The checkpoint that the next write of it brings. It is kept beside the task and is no part of the stored form.
    #[serde(skip)]
    pub checkpoint: Option<Checkpoint>,
    /// When its cancellation was asked for.
    #[serde_as(as = "Option<Date>")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// The receipt that the first request for its cancellation was answered.
    pub cancel_receipt: Option<Kept<ReceiptRecord>>,
    /// JSON text as sent.
    pub result: Option<String>,
    /// Where the result is kept, if elsewhere.
    pub result_id: Option<String>,
    /// Why the latest attempt failed.
    pub error: Option<Kept<ErrorRecord>>,
    /// Summed over the attempts.
    #[serde(default, skip_serializing_if = "is_unused")]
    pub usage: Kept<UsageRecord>,
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
    /// When it was deleted: hidden since, kept until `remove_at`.
    #[serde_as(as = "Option<Date>")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// From when on it may be removed.
    #[serde_as(as = "Option<Date>")]
    pub remove_at: Option<DateTime<Utc>>,
    /// Grows by one with every stored change.
    pub version: i64,
    /// What the latest write that raised `version` did: JSON text, a list with a [`MoveRecord`] for each version that it
    /// made. Nothing here reads it.
    pub moved: Option<String>,
    /// Names the latest write. It guards the next one, and tells what became of one whose answer was lost.
    pub stamp: i64,
    /// Bytes of JSON text in request, template and metadata.
    pub input_bytes: u32,
    /// The attempts so far, oldest first, as far as [`TaskRecord::bound_history`] keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Kept<AttemptRecord>>,
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
    /// The limits that the first answer to the key has shown.
    pub idempotency_limits: Option<Kept<LimitsRecord>>,
}

/// What an attempt leaves for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The version of the task with which the attempt began. It grows from attempt to attempt, also where `execute` counts
    /// them anew.
    pub fence: i64,
    /// JSON text as sent.
    pub text: String,
}

/// A task's payloads: JSON text as sent.
#[derive(Debug, Default)]
pub struct StoredPayload {
    request: Option<String>,
    template: Option<String>,
    metadata: Option<String>,
    result: Option<String>,
}

impl TaskRecord {
    /// One that is ready, has just been created, and of which nothing else is known.
    pub fn new(
        id: Uuid,
        tenant: String,
        task_type: String,
        now: DateTime<Utc>,
        limits: LimitsRecord,
    ) -> Self {
        let LimitsRecord { max_attempts, retry, lease_seconds, timeout_seconds, retention_seconds } = limits;
        Self {
            id,
            tenant,
            user_id: None,
            task_type,
            name: None,
            description: None,
            status: Status::Pending,
            reason: None,
            priority: 50,
            ready_at: now,
            request: None,
            template: None,
            metadata: None,
            tags: Vec::new(),
            attempt: 0,
            max_attempts,
            losses: 0,
            releases: 0,
            retry,
            lease_seconds,
            timeout_seconds,
            retention_seconds,
            run_at: None,
            pending_at: None,
            due_date: None,
            reminder_time: None,
            lease: None,
            lease_until: None,
            timeout_at: None,
            lost_token: None,
            progress: None,
            progress_version: None,
            has_checkpoint: false,
            checkpoint: None,
            cancel_requested_at: None,
            cancel_receipt: None,
            result: None,
            result_id: None,
            error: None,
            usage: Kept::default(),
            created_at: now,
            updated_at: now,
            started_at: None,
            completed_at: None,
            deleted_at: None,
            remove_at: None,
            version: 1,
            moved: None,
            stamp: 0,
            input_bytes: 0,
            attempts: Vec::new(),
            claim_ids: Vec::new(),
            executed: false,
            idempotency_key: None,
            idempotency_body: None,
            idempotency_request: None,
            idempotency_limits: None,
        }
    }

    /// Its limits as they are now.
    pub fn limits(&self) -> LimitsRecord {
        LimitsRecord {
            max_attempts: self.max_attempts,
            retry: self.retry.clone(),
            lease_seconds: self.lease_seconds,
            timeout_seconds: self.timeout_seconds,
            retention_seconds: self.retention_seconds,
        }
    }

    /// Whether it never was a task: it was created as deleted, to hold an idempotency key.
    pub(crate) fn only_holds_a_key(&self) -> bool {
        self.version == 1 && self.deleted_at.is_some()
    }

    /// Notes that the next write creates it.
    pub(crate) fn note_creation(&mut self) {
        self.note(&[self.creation()]);
    }

    /// Its creation, as a move.
    pub(crate) fn creation(&self) -> MoveRecord {
        MoveRecord {
            version: self.version,
            at: self.updated_at,
            verb: MoveVerb::Create,
            from: None,
            fields: Vec::new(),
        }
    }

    /// Notes what the next write does.
    pub(crate) fn note(&mut self, moves: &[MoveRecord]) {
        if !moves.is_empty() && !self.is_reserved() {
            self.moved = Some(MoveRecord::text(moves));
        }
    }

    /// Whether it belongs to the service itself: its moves are told to nobody.
    pub fn is_reserved(&self) -> bool {
        self.tenant.starts_with('_')
    }

    /// Whether the task exists for a caller with that scope.
    pub fn is_in(&self, scope: &Scope) -> bool {
        self.deleted_at.is_none()
            && *self.tenant == *scope.tenant
            && scope.user.as_deref().is_none_or(|user| self.user_id.as_deref() == Some(user))
            && scope.may_use(&self.task_type)
    }

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
