//! Task types: settings and pauses.
//!
//! Every write is one update of one document, made by the database of what the document holds then, so that two of them
//! never undo each other. It leaves the time of the change by the database's clock; servers read anew what has changed
//! since they read last.

use std::time::Instant;

use bson::{Document, doc};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::options::{FindOptions, ReturnDocument};

use super::driver::Store;
use super::error::StoreError;
use crate::task_types::{PauseRecord, SettingsRecord, TypeRecord};

/// Types by name.
pub(super) const TYPES_BY_NAME: &str = "name";
/// Types by when they were changed.
pub(super) const TYPES_BY_CHANGE: &str = "changed_at";
/// How long the document of a type is kept after its settings and its pause were removed. Until then its version goes on.
const REMOVED_KEPT: TimeDelta = TimeDelta::days(1);
/// How much of the past is read again when something has changed. A write may become visible later than one that was made
/// after it, and after a change of the primary the clock may go back.
const READ_AGAIN: TimeDelta = TimeDelta::minutes(1);

/// What a change of settings expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedSettings {
    /// Anything, or nothing.
    Any,
    /// Some settings.
    Some,
    /// Settings of one of these versions.
    Version(Vec<i64>),
}

fn id(tenant: &str, task_type: &str) -> Document {
    doc! { "tenant": tenant, "task_type": task_type }
}

impl Store {
    /// The name of the collection of task types.
    pub(super) fn types_name(&self) -> String {
        self.beside("types")
    }

    /// Gives a type these settings in place of what it has. `None`: it does not have what was expected.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn set_type_settings(
        &self,
        tenant: &str,
        task_type: &str,
        settings: &SettingsRecord,
        expected: &ExpectedSettings,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let settings = bson::serialize_to_document(settings).map_err(|_| StoreError::Unavailable)?;
        // A literal, because what was given may hold what reads like the name of a field.
        let set = doc! { "settings": { "$literal": settings }, "version": grown("version") };
        let mut filter = doc! { "_id": id(tenant, task_type) };
        match expected {
            ExpectedSettings::Any => {}
            ExpectedSettings::Some => drop(filter.insert("settings", doc! { "$exists": true })),
            ExpectedSettings::Version(versions) => {
                filter.insert("settings", doc! { "$exists": true });
                filter.insert("version", doc! { "$in": versions.clone() });
            }
        }
        let is_new = *expected == ExpectedSettings::Any;
        self.write_type("set a type's settings", (tenant, task_type), filter, set, is_new, until).await
    }

    /// Removes the settings of a type. `None`: it has none.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn remove_type_settings(
        &self,
        tenant: &str,
        task_type: &str,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let filter = doc! { "_id": id(tenant, task_type), "settings": { "$exists": true } };
        let set = doc! { "settings": "$$REMOVE" };
        self.write_type("remove a type's settings", (tenant, task_type), filter, set, false, until).await
    }

    /// Pauses a type, whether it is known or not.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn pause_type(
        &self,
        tenant: &str,
        task_type: &str,
        pause: &PauseRecord,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let pause = bson::serialize_to_document(pause).map_err(|_| StoreError::Unavailable)?;
        let set = doc! { "pause": { "$literal": pause } };
        let filter = doc! { "_id": id(tenant, task_type) };
        self.write_type("pause a type", (tenant, task_type), filter, set, true, until).await
    }

    /// Ends the pause of a type. `None`: it has no document.
    ///
    /// # Errors
    /// When it is not known whether it was done.
    pub async fn resume_type(
        &self,
        tenant: &str,
        task_type: &str,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let filter = doc! { "_id": id(tenant, task_type) };
        let set = doc! { "pause": "$$REMOVE" };
        self.write_type("resume a type", (tenant, task_type), filter, set, false, until).await
    }

    async fn write_type(
        &self,
        what: &'static str,
        (tenant, task_type): (&str, &str),
        filter: Document,
        mut set: Document,
        is_new: bool,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let types = self.database.collection::<TypeRecord>(&self.types_name());
        set.extend(doc! {
            "tenant": { "$literal": tenant },
            "task_type": { "$literal": task_type },
            "revision": grown("revision"),
            "changed_at": "$$NOW",
        });
        let update = vec![doc! { "$set": set }];
        let write = async move {
            let update = types.find_one_and_update(filter, update).upsert(is_new);
            update.return_document(ReturnDocument::After).await
        };
        self.call(what, until, write).await.map_err(|error| match error {
            StoreError::Overloaded => error,
            _ => StoreError::OutcomeUnknown,
        })
    }

    /// A type with settings or a pause.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn task_type(
        &self,
        tenant: &str,
        task_type: &str,
        until: Instant,
    ) -> Result<Option<TypeRecord>, StoreError> {
        let types = self.database.collection(&self.types_name());
        let filter = doc! { "_id": id(tenant, task_type) };
        let found = self.find_readable("a type", &types, filter, FindOptions::default(), until).await?;
        Ok(found.found.into_iter().next())
    }

    /// The types of a tenant that have settings or a pause, by name: up to `limit` of those behind `after`, perhaps of
    /// `names` only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn task_types(
        &self,
        tenant: &str,
        names: Option<&[String]>,
        after: &str,
        limit: usize,
        until: Instant,
    ) -> Result<Vec<TypeRecord>, StoreError> {
        let mut name = doc! { "$gt": after };
        if let Some(names) = names {
            name.insert("$in", names.to_vec());
        }
        let is_something = [doc! { "settings": { "$exists": true } }, doc! { "pause": { "$exists": true } }];
        let filter = doc! { "tenant": tenant, "task_type": name, "$or": is_something.to_vec() };
        let mut options = self.by_index(TYPES_BY_NAME);
        options.sort = Some(doc! { "tenant": 1, "task_type": 1 });
        options.limit = i64::try_from(limit).ok();
        let types = self.database.collection(&self.types_name());
        Ok(self.find_readable("types by name", &types, filter, options, until).await?.found)
    }

    /// The types of all tenants that were changed since a little before `since`, without the text in which their settings
    /// were given; all of them without one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn changed_types(&self, since: Option<DateTime<Utc>>) -> Result<Vec<TypeRecord>, StoreError> {
        let from = since.map_or(bson::DateTime::MIN, |since| bson::DateTime::from_chrono(since - READ_AGAIN));
        let mut options = self.by_index(TYPES_BY_CHANGE);
        options.projection = Some(doc! { "settings.given": 0 });
        let filter = doc! { "changed_at": { "$gte": from } };
        let types = self.database.collection(&self.types_name());
        let until = self.step_deadline();
        Ok(self.find_readable("changed types", &types, filter, options, until).await?.found)
    }

    /// Removes the documents of types that have had neither settings nor a pause for a day.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_removed_types(&self) -> Result<(), StoreError> {
        let types = self.database.collection::<Document>(&self.types_name());
        let before = bson::DateTime::from_chrono(self.clock().now() - REMOVED_KEPT);
        let filter = doc! {
            "changed_at": { "$lt": before },
            "settings": { "$exists": false },
            "pause": { "$exists": false },
        };
        self.call("forget removed types", self.step_deadline(), async move {
            types.delete_many(filter).await.map(|_| ())
        })
        .await
    }
}

/// One more than the field holds.
fn grown(field: &str) -> Document {
    doc! { "$add": [{ "$ifNull": [format!("${field}"), 0_i64] }, 1_i64] }
}
