//! A task as a plain document, and the updates that move it.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawDocumentBuf, doc, rawdoc};
use task_repo_client::Uuid;

/// The tenant of all tasks.
pub(super) const TENANT: &str = "default";
/// The queue of all tasks.
pub(super) const QUEUE: &str = "bench";
/// The token of all leases: what it is makes no difference to the database.
const TOKEN: [u8; 16] = [7; 16];
/// How long a lease holds, in milliseconds.
const LEASE_MS: i64 = 60_000;
/// As long as the service's.
const REQUEST: &str = concat!(
    r#"{"content":{"text":""#,
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    r#""}}"#
);

fn uuid(bytes: [u8; 16]) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }
}

/// A new id; ids grow with time.
pub(super) fn id() -> Binary {
    uuid(*Uuid::now_v7().as_bytes())
}

/// A ready task.
pub(super) fn pending() -> RawDocumentBuf {
    with_id(id())
}

/// A ready task with that id.
pub(super) fn with_id(id: Binary) -> RawDocumentBuf {
    let now = DateTime::now();
    rawdoc! {
        "_id": id, "tenant": TENANT, "task_type": QUEUE, "status": "pending", "priority": 50, "ready_at": now,
        "request": REQUEST, "template": r#"{"service_type":"GENERATIVE","parameters":{"model":"m"}}"#,
        "attempt": 0, "max_attempts": 3, "retention_seconds": 604_800_i64,
        "created_at": now, "updated_at": now, "version": 1_i64, "stamp": 0_i64, "input_bytes": 160_i64,
    }
}

/// A task under a lease.
pub(super) fn processing(id: Binary) -> RawDocumentBuf {
    let now = DateTime::now();
    let until = DateTime::from_millis(now.timestamp_millis() + LEASE_MS);
    rawdoc! {
        "_id": id, "tenant": TENANT, "task_type": QUEUE, "status": "processing", "priority": 50, "ready_at": now,
        "request": REQUEST, "template": r#"{"service_type":"GENERATIVE","parameters":{"model":"m"}}"#,
        "attempt": 1, "max_attempts": 3, "retention_seconds": 604_800_i64,
        "lease": { "token": uuid(TOKEN), "worker_id": "bench", "seconds": 60 }, "lease_until": until,
        "created_at": now, "updated_at": now, "started_at": now,
        "version": 2_i64, "stamp": 0_i64, "input_bytes": 160_i64,
    }
}

/// Leases a ready task.
pub(super) fn lease() -> Document {
    let now = DateTime::now();
    let until = DateTime::from_millis(now.timestamp_millis() + LEASE_MS);
    doc! {
        "$set": {
            "status": "processing", "started_at": now, "updated_at": now, "lease_until": until,
            "lease": { "token": uuid(TOKEN), "worker_id": "bench", "seconds": 60 },
        },
        "$inc": { "attempt": 1, "version": 1_i64 },
    }
}

/// The filter of a leased task.
pub(super) fn held(id: &Binary) -> Document {
    doc! { "_id": id, "status": "processing", "lease.token": uuid(TOKEN) }
}

/// Completes a leased task.
pub(super) fn completion() -> Document {
    let now = DateTime::now();
    doc! {
        "$set": { "status": "completed", "result": r#"{"text":"done"}"#, "completed_at": now, "updated_at": now },
        "$unset": { "lease": "", "lease_until": "" },
        "$inc": { "version": 1_i64 },
    }
}

/// The id of a task that was read.
pub(super) fn id_of(task: &RawDocumentBuf) -> Option<Binary> {
    let id = task.get_binary("_id").ok()?;
    Some(Binary { subtype: id.subtype, bytes: id.bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_about_450_bytes_long() {
        let length = pending().as_bytes().len();
        assert!((430..=470).contains(&length), "{length}");
        assert_eq!(id_of(&pending()).unwrap().bytes.len(), 16);
    }
}
