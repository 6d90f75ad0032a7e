//! Ids and hashes in their stored form.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson};
use task_repo_protocol::Uuid;

/// An id in its stored form.
pub(in crate::store) fn stored_id(id: Uuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() }
}

/// The other way round.
pub(in crate::store) fn read_id(stored: &Bson) -> Option<Uuid> {
    match stored {
        Bson::Binary(binary) => Uuid::from_slice(&binary.bytes).ok(),
        _ => None,
    }
}

/// A hash in its stored form.
pub(in crate::store) fn stored_bytes(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}
