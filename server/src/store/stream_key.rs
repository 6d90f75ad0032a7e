//! The key by which stream tokens are signed: one for the installation, so that a token is good at every server.

use std::time::Instant;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use mongodb::options::ReturnDocument;
use rand::RngExt as _;

use super::driver::Store;
use super::error::StoreError;
use super::schema::INSTALLATION;

/// The document that has it.
const STREAM_TOKENS: &str = "stream_tokens";

impl Store {
    /// The key. The first server that asks for it draws it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stream_key(&self, until: Instant) -> Result<Vec<u8>, StoreError> {
        let documents = self.database.collection::<Document>(INSTALLATION);
        let drawn: [u8; 32] = rand::rng().random();
        let drawn = Binary { subtype: BinarySubtype::Generic, bytes: drawn.to_vec() };
        let find = async move {
            let draw = doc! { "$setOnInsert": { "key": drawn } };
            let options = documents.find_one_and_update(doc! { "_id": STREAM_TOKENS }, draw).upsert(true);
            options.return_document(ReturnDocument::After).await
        };
        let found = self.call("the key of stream tokens", until, find).await?.unwrap_or_default();
        match found.get_binary_generic("key") {
            Ok(key) if key.len() >= 32 => Ok(key.clone()),
            _ => {
                tracing::error!("the installation's key of stream tokens cannot be read");
                Err(StoreError::Unavailable)
            }
        }
    }
}
