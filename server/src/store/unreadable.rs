//! Documents that this server has met and could not read: they are left out, counted and named, and stop nobody.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocument};
use chrono::{DateTime, SubsecRound as _, Utc};
use moka::sync::Cache;
use serde::de::DeserializeOwned;
use task_repo_protocol::Uuid;

use super::ids::{StoredId, read_id};
use crate::telemetry::masked;

/// How long an unreadable document is remembered that is not met again.
const UNREADABLE_REMEMBERED: Duration = Duration::from_secs(600);
/// How long reads of ready work pass it by before they try to read it again.
const PASSED_BY: Duration = Duration::from_secs(2);
/// How many are remembered.
const MAX_UNREADABLE: u64 = 1000;

/// Documents that this server could not read.
#[derive(Clone)]
pub struct Unreadable {
    known: Cache<String, Arc<UnreadableDocument>>,
    /// Tasks that were met a moment ago.
    met: Cache<Uuid, ()>,
}

/// A document that this server could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableDocument {
    /// The collection it is in.
    pub collection: String,
    /// Its id, masked.
    pub id: String,
    /// The field that does not fit, as far as it is known. Values are not shown: they may be anybody's.
    pub field: String,
    /// When it was first met.
    pub since: DateTime<Utc>,
}

impl Default for Unreadable {
    fn default() -> Self {
        Self {
            known: Cache::builder().max_capacity(MAX_UNREADABLE).time_to_idle(UNREADABLE_REMEMBERED).build(),
            met: Cache::builder().max_capacity(MAX_UNREADABLE).time_to_live(PASSED_BY).build(),
        }
    }
}

impl Unreadable {
    /// Those that were met in the last ten minutes, the longest known first; 1 000 at most.
    pub fn list(&self) -> Vec<UnreadableDocument> {
        let mut documents: Vec<_> = self.known.iter().map(|(_, document)| (*document).clone()).collect();
        documents.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        documents
    }

    /// Ids that a read of ready work passes by just now, and that no job tries to move.
    pub fn passed_by(&self) -> Vec<Uuid> {
        if self.met.entry_count() == 0 {
            return Vec::new();
        }
        self.met.iter().map(|(id, ())| *id).collect()
    }

    /// What is known of a document that was just noted.
    pub(in crate::store) fn known(&self, id: &Bson) -> Option<Arc<UnreadableDocument>> {
        self.known.get(&name_of(id))
    }

    /// It is not there any more.
    pub(in crate::store) fn forget(&self, id: &Bson) {
        self.known.invalidate(&name_of(id));
    }

    pub(in crate::store) fn note<T: DeserializeOwned>(&self, collection: &str, document: &RawDocument) {
        metrics::counter!("task_repo_unreadable_documents_total", "collection" => collection.to_owned())
            .increment(1);
        let StoredId(id) = StoredId::in_document(document);
        if let Some(id) = read_id(&id) {
            self.met.insert(id, ());
        }
        let id = name_of(&id);
        self.name(collection, id, || field_at_fault::<T>(document));
    }

    /// A document among the tasks whose id is none of ours.
    pub(in crate::store) fn note_strange(&self, collection: &str, id: Option<&Bson>) {
        let id = name_of(id.unwrap_or(&Bson::Null));
        self.name(collection, id, || "_id".to_owned());
    }

    fn name(&self, collection: &str, id: String, field: impl FnOnce() -> String) {
        if self.known.get(&id).is_some() {
            return;
        }
        let unreadable = UnreadableDocument {
            collection: collection.to_owned(),
            id: masked(&id),
            field: field(),
            since: Utc::now().trunc_subsecs(3),
        };
        let UnreadableDocument { collection, id: masked, field, .. } = &unreadable;
        tracing::error!(collection, id = masked, field, "a document cannot be read and is left out");
        self.known.insert(id, Arc::new(unreadable));
    }
}

/// An id as text.
fn name_of(id: &Bson) -> String {
    read_id(id).map_or_else(|| id.to_string(), |id| id.to_string())
}

/// The first field that does not fit `T`.
fn field_at_fault<T: DeserializeOwned>(document: &RawDocument) -> String {
    let Ok(document) = Document::try_from(document) else { return "malformed".to_owned() };
    let deserializer = bson::Deserializer::new(Bson::Document(document));
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        Err(error) if error.path().iter().next().is_some() => error.path().to_string(),
        _ => "missing or malformed".to_owned(),
    }
}
