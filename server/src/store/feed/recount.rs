//! Counting the tasks anew, piece by piece, while the feed goes on.

use bson::{Bson, Document, Timestamp, doc};
use task_repo_protocol::Uuid;

use super::COUNTS;
use super::advance::{add_standing, type_id};
use super::position::{ClusterTime, FeedPosition, Piece};
use crate::events::{Standing, TypeKey};
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::{read_id, stored_id};
use crate::task::Status;

/// How many tasks are read together.
const PIECE: i32 = 2000;

/// What a piece has brought.
struct Counted {
    piece: Piece,
    types: std::collections::BTreeMap<TypeKey, Standing>,
}

impl Store {
    /// Reads one more piece of the count that is under way, and stores what it brings together with the new position;
    /// after the last piece the new counts are the valid ones. `passed` is when the latest change was made that the feed has
    /// read. `None`: another server reads the feed now.
    ///
    /// # Errors
    /// When the database does not answer; the position says what was stored.
    pub async fn count_piece(
        &self,
        before: &FeedPosition,
        passed: ClusterTime,
    ) -> Result<Option<FeedPosition>, StoreError> {
        let Some(recount) = &before.recount else { return Ok(Some(before.clone())) };
        if self.noted_removal().await?.is_some() {
            // Whoever removes is about to finish, or another server does.
            return Ok(Some(before.clone()));
        }
        let mut position = before.clone();
        let counted = self.read_piece(recount.after()).await?;
        let mut statements = Vec::new();
        if let (Some(counted), Some(recount)) = (&counted, &mut position.recount) {
            recount.add(counted.piece, passed);
            for (key, standing) in &counted.types {
                let mut increments = Document::new();
                add_standing(&mut increments, recount.generation, standing);
                let now = bson::DateTime::from_chrono(self.clock().now());
                let change = doc! { "$inc": increments, "$max": { "last_at": now } };
                let id = type_id(&key.tenant, &key.task_type);
                statements.push(doc! { "q": { "_id": id }, "u": change, "upsert": true });
            }
        } else {
            position.counts = recount.generation;
            position.recount = None;
        }
        let stored = self.advance_with(before, &position, vec![(COUNTS, statements)], None).await?;
        if stored && counted.is_none() {
            tracing::info!("the tasks have been counted anew");
            self.forget_counts(before.counts).await?;
        }
        Ok(stored.then_some(position))
    }

    /// How many tasks there are of each type and status among the next ones, at one moment. `None`: there are no more.
    async fn read_piece(&self, after: Option<Uuid>) -> Result<Option<Counted>, StoreError> {
        let after = stored_id(after.unwrap_or(Uuid::nil()));
        let is_counted = doc! { "$and": [
            { "$eq": [{ "$type": "$deleted_at" }, "missing"] },
            { "$ne": [{ "$substrBytes": ["$tenant", 0, 1] }, "_"] },
        ] };
        let command = doc! {
            "aggregate": self.tasks.name(),
            "pipeline": [
                { "$match": { "_id": { "$gt": after } } },
                { "$sort": { "_id": 1 } },
                { "$limit": PIECE },
                { "$project": { "tenant": 1, "task_type": 1, "status": 1, "is_counted": is_counted } },
                { "$group": {
                    "_id": { "tenant": "$tenant", "task_type": "$task_type", "status": "$status", "is_counted": "$is_counted" },
                    "count": { "$sum": 1_i64 }, "last": { "$max": "$_id" },
                } },
            ],
            "hint": "_id_",
            "cursor": { "batchSize": PIECE + 1 },
            "readConcern": { "level": "snapshot" },
        };
        let database = self.database.clone();
        let read = async move { database.run_command(command).await };
        let reply = self.call("count a piece", self.step_deadline(), read).await?;
        let cursor = reply.get_document("cursor").map_err(|_| StoreError::Unavailable)?;
        let Timestamp { time, increment } =
            cursor.get_timestamp("atClusterTime").map_err(|_| StoreError::Unavailable)?;
        let groups = cursor.get_array("firstBatch").map(Vec::as_slice).unwrap_or_default();
        let groups: Vec<_> = groups.iter().filter_map(Bson::as_document).collect();
        let Some(upto) = groups.iter().filter_map(|group| read_id(group.get("last")?)).max() else {
            return Ok(None);
        };
        let mut types = std::collections::BTreeMap::<TypeKey, Standing>::new();
        for group in groups {
            let (Ok(of), Ok(count)) = (group.get_document("_id"), group.get_i64("count")) else { continue };
            let (Ok(tenant), Ok(task_type), Some(status)) =
                (of.get_str("tenant"), of.get_str("task_type"), of.get("status").and_then(status))
            else {
                continue;
            };
            if of.get_bool("is_counted").unwrap_or(false) {
                let key = TypeKey { tenant: tenant.to_owned(), task_type: task_type.to_owned() };
                *types.entry(key).or_default().entry(status).or_default() += count;
            }
        }
        Ok(Some(Counted { piece: Piece { upto, at: ClusterTime::new(time, increment) }, types }))
    }

    /// Removes counts that are valid no more.
    async fn forget_counts(&self, generation: i64) -> Result<(), StoreError> {
        let counts = self.of_feed::<Document>(COUNTS);
        let field = format!("counts.{generation}");
        let there = doc! { &field: { "$exists": true } };
        let forget =
            async move { counts.update_many(there, doc! { "$unset": { field: "" } }).await.map(|_| ()) };
        self.call("forget old counts", self.step_deadline(), forget).await
    }
}

fn status(stored: &Bson) -> Option<Status> {
    bson::deserialize_from_bson(stored.clone()).ok()
}
