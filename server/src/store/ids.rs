//! Ids and hashes in their stored form.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocument, doc};
use task_repo_protocol::Uuid;

/// An id in its stored form.
pub(in crate::store) fn stored_id(id: Uuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() }
}

/// The id of a document as it is stored, whatever that is: somebody else may have written it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredId(pub(in crate::store) Bson);

impl StoredId {
    /// The id of a task.
    pub fn of(id: Uuid) -> Self {
        Self(Bson::Binary(stored_id(id)))
    }

    /// The id of a document, as far as it has one.
    pub(in crate::store) fn in_document(document: &RawDocument) -> Self {
        let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
        Self(id.unwrap_or(Bson::Null))
    }

    /// The same as an id of a task, if it is one.
    pub fn uuid(&self) -> Option<Uuid> {
        read_id(&self.0).filter(|id| *self == Self::of(*id))
    }

    /// All of it, type included.
    pub fn to_bytes(&self) -> Vec<u8> {
        bson::serialize_to_vec(&doc! { "_id": &self.0 }).unwrap_or_default()
    }

    /// The other way round. `None`: they are of no id.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut document: Document = bson::deserialize_from_slice(bytes).ok()?;
        document.remove("_id").map(Self)
    }

    /// One of another kind.
    #[cfg(test)]
    pub(crate) fn strange(number: i32) -> Self {
        Self(Bson::Int32(number))
    }
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
