//! Which fields of a task a read leaves out.

use bson::{Document, doc};

/// Without the fields that only a repeated create needs, or that nothing reads.
pub(in crate::store) fn without_idempotency() -> Document {
    doc! {
        "idempotency_key": 0, "idempotency_body": 0, "idempotency_request": 0, "idempotency_limits": 0, "moved": 0
    }
}

/// The task as it was created: without what came after that.
pub(in crate::store) fn as_created() -> Document {
    doc! { "result": 0, "error": 0, "attempts": 0, "claim_ids": 0, "progress": 0, "cancel_receipt": 0, "moved": 0 }
}

/// With the fields that say which selections a ready task fits.
pub(in crate::store) fn without_past() -> Document {
    let mut left_out = without_payload();
    left_out.extend(doc! { "attempts": 0, "claim_ids": 0, "error": 0, "idempotency_request": 0 });
    left_out
}

pub(in crate::store) fn without_payload() -> Document {
    doc! { "request": 0, "result": 0, "template": 0, "metadata": 0, "moved": 0 }
}
