//! The form in which tasks are stored. In tests a server may write one that only a later release would: with fields and
//! words that this one does not know. It shows that servers of two releases can share a database.

use bson::RawDocumentBuf;

use crate::task::TaskRecord;

/// Which form a server writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Form {
    /// The made-up form of a later release.
    #[cfg(debug_assertions)]
    pub(in crate::store) is_later: bool,
}

impl Form {
    /// A task's stored form. `None`: BSON cannot hold it.
    pub(in crate::store) fn of(self, record: &TaskRecord) -> Option<RawDocumentBuf> {
        let stored = bson::serialize_to_raw_document_buf(record)
            .inspect_err(|error| tracing::error!(%error, "a task has no stored form"))
            .ok()?;
        #[cfg(debug_assertions)]
        if self.is_later {
            return later::form_of(&stored);
        }
        Some(stored)
    }
}

#[cfg(debug_assertions)]
mod later {
    use bson::{Bson, Document, RawDocumentBuf, doc};

    /// Parts that get a field more, where they are there.
    const PARTS: [&str; 6] = ["lease", "cancel_receipt", "error", "usage", "progress", "retry"];
    /// Parts of an attempt that get one.
    const PARTS_OF_ATTEMPTS: [&str; 3] = ["receipt", "error", "usage"];

    /// The same task as a later release would store it.
    pub(super) fn form_of(stored: &RawDocumentBuf) -> Option<RawDocumentBuf> {
        let mut task = Document::try_from(stored.clone()).ok()?;
        // Another value with every write, so that every write has this field in it.
        let stamp = task.get("stamp").cloned()?;
        task.insert("later", doc! { "stamp": stamp });
        rename(&mut task, "reason", "retry", "retry_in_a_while");
        for part in PARTS {
            add(&mut task, part);
        }
        for attempt in task.get_array_mut("attempts").into_iter().flatten().filter_map(Bson::as_document_mut)
        {
            attempt.insert("later", true);
            rename(attempt, "trigger", "claim", "auction");
            for part in PARTS_OF_ATTEMPTS {
                add(attempt, part);
            }
        }
        RawDocumentBuf::try_from(&task).ok()
    }

    fn add(document: &mut Document, part: &str) {
        if let Ok(part) = document.get_document_mut(part) {
            part.insert("later", doc! { "depth": [1, { "of": "it" }] });
        }
    }

    fn rename(document: &mut Document, field: &str, from: &str, to: &str) {
        if document.get_str(field).is_ok_and(|word| word == from) {
            document.insert(field, to);
        }
    }
}
