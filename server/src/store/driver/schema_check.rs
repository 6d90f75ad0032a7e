//! Refuses a database that a newer major version has changed, and writes down what this server adds.

use bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;

use super::store::Store;
use crate::store::error::ConnectError;
use crate::store::schema::{INSTALLATION, SCHEMA, SchemaVersion};

impl Store {
    /// Refuses a database whose schema has a newer major version than this server knows.
    pub(in crate::store) async fn check_schema(&self) -> Result<(), ConnectError> {
        let documents = self.database.collection::<Document>(INSTALLATION);
        let found = documents.find_one(doc! { "_id": "schema" }).await;
        refuse_newer(found.map_err(|error| ConnectError::Unreachable(error.to_string()))?.as_ref())
    }

    /// Writes down that this server's additions are there. Servers of several versions may start at once: the newest one's
    /// version stays, and a newer major version that came first is refused.
    pub(in crate::store) async fn raise_schema(&self) -> Result<(), ConnectError> {
        let documents = self.database.collection::<Document>(INSTALLATION);
        let SchemaVersion { major, minor } = SCHEMA;
        let known = doc! { "$ifNull": ["$major", major] };
        let is_older = doc! { "$lt": [&known, major] };
        let same = doc! { "$eq": [&known, major] };
        let highest = doc! { "$max": [{ "$ifNull": ["$minor", minor] }, minor] };
        let update = vec![doc! { "$set": {
            "major": { "$max": [&known, major] },
            "minor": { "$cond": [is_older, minor, { "$cond": [same, highest, "$minor"] }] },
        } }];
        let raised = documents
            .find_one_and_update(doc! { "_id": "schema" }, update)
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await;
        refuse_newer(raised.map_err(|error| ConnectError::Unreachable(error.to_string()))?.as_ref())
    }
}

fn refuse_newer(found: Option<&Document>) -> Result<(), ConnectError> {
    let Some(found) = found else { return Ok(()) };
    let text = |field: &str| found.get(field).map_or_else(|| "0".to_owned(), ToString::to_string);
    let is_known = match found.get("major") {
        None => true,
        Some(Bson::Int32(major)) => *major <= SCHEMA.major,
        Some(Bson::Int64(major)) => *major <= SCHEMA.major.into(),
        Some(Bson::Double(major)) => *major <= SCHEMA.major.into(),
        Some(_) => false,
    };
    if is_known {
        return Ok(());
    }
    Err(ConnectError::NewerSchema(format!("{}.{}", text("major"), text("minor"))))
}
