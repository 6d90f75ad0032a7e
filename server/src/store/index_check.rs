//! Noticing that indexes are missing, as after a drop or a restore under a running server, and making them again.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::FindOptions;

use super::driver::Store;
use super::error::{ConnectError, StoreError};
use super::ids::read_id;
use super::index_state::IndexState;

/// The code by which MongoDB says that there is no such collection.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// How many idempotency keys with several tasks are parted in one go: they are found one by one.
const MAX_DOUBLES: usize = 100;
/// How long indexes may take to be made again. Nobody waits for it but the job that has them made.
const MAKING: Duration = Duration::from_secs(3600);

impl Store {
    /// Which indexes are missing, as far as is known.
    pub fn indexes(&self) -> &IndexState {
        &self.indexes
    }

    /// Asks the database which indexes there are. Returns those that are missing or not what they must be.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn check_indexes(&self) -> Result<Vec<String>, StoreError> {
        let mut missing = Vec::new();
        for (collection, wanted) in self.wanted_indexes() {
            let there = self.index_specs(&collection).await?;
            let is_unique = |spec: &Document| spec.get_bool("unique").unwrap_or(false);
            for options in wanted.into_iter().filter_map(|index| index.options) {
                let name = options.name.unwrap_or_default();
                let spec = there.iter().find(|spec| spec.get_str("name").is_ok_and(|it| it == name));
                if spec.is_none_or(|spec| options.unique == Some(true) && !is_unique(spec)) {
                    missing.push(format!("{collection}.{name}"));
                }
            }
        }
        self.indexes.found(missing.clone());
        Ok(missing)
    }

    /// Makes the indexes again, and all that a start makes.
    ///
    /// # Errors
    /// When they could not be made: duplicates stand in the way of a unique one, or the database is of a newer version.
    pub async fn make_indexes_again(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let preparation = async move {
            store.check_schema().await?;
            let mut made = store.make_indexes().await;
            for _ in 0..MAX_DOUBLES {
                let Err(error) = &made else { break };
                if !store.part_doubles(error).await {
                    break;
                }
                made = store.make_indexes().await;
            }
            made.map_err(|error| ConnectError::Indexes(error.to_string()))?;
            store.raise_schema().await
        };
        let made =
            self.call("make indexes", Instant::now() + MAKING, async move { Ok(preparation.await) }).await?;
        made.map_err(|error| {
            tracing::error!(%error, "the indexes that are missing could not be made");
            StoreError::Unindexed
        })
    }

    /// Where tasks that have one idempotency key stand in the way of an index, takes it from all but the oldest: that is the
    /// one whose answer a repetition gets from then on. They were created while there was no index. Returns whether it
    /// helped.
    async fn part_doubles(&self, error: &mongodb::error::Error) -> bool {
        let value = |field| {
            let values = error.server_response()?.get_document("keyValue").ok()?;
            Bson::try_from(values.get(field).ok()??).ok()
        };
        let (Some(Bson::String(tenant)), Some(key)) = (value("tenant"), value("idempotency_key")) else {
            return false;
        };
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(doc! { "_id": 1 });
        options.sort = Some(doc! { "_id": 1 });
        let same = doc! { "tenant": &tenant, "idempotency_key": key };
        let found = self.documents("doubles", self.tasks.name(), same, options).await.unwrap_or_default();
        let later: Vec<_> = found.iter().filter_map(|task| read_id(task.get("_id")?)).skip(1).collect();
        tracing::warn!(
            count = later.len(),
            "tasks with the idempotency key of an older one: it is taken from them"
        );
        !later.is_empty() && self.forget_idempotency_keys(&tenant, &later, self.step_deadline()).await.is_ok()
    }

    /// The indexes of a collection that are ready.
    async fn index_specs(&self, collection: &str) -> Result<Vec<Document>, StoreError> {
        let database = self.database.clone();
        // An index that is still being made is then shown otherwise, without a name.
        let list = doc! { "listIndexes": collection, "includeBuildUUIDs": true };
        let reply = self.call("list indexes", self.step_deadline(), async move {
            match database.run_command(list).await {
                Err(error) if is_no_collection(&error) => Ok(Document::new()),
                reply => reply,
            }
        });
        let reply = reply.await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let specs = batch.map(Vec::as_slice).unwrap_or_default();
        Ok(specs.iter().filter_map(|spec| spec.as_document().cloned()).collect())
    }
}

fn is_no_collection(error: &mongodb::error::Error) -> bool {
    matches!(&*error.kind, ErrorKind::Command(command) if command.code == NAMESPACE_NOT_FOUND)
}
