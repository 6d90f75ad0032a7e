//! Times in which no lease could be renewed, as all servers on one database know them together.

use std::time::Duration;

use bson::{Document, RawBson, doc, rawdoc};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::options::ReturnDocument;
use task_repo_protocol::Uuid;

use super::command::Written;
use super::{Store, StoreError, stored_id};

/// A time in which no lease could be renewed: the database did not take writes, or no server ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// How long it was.
    pub lasted: TimeDelta,
}

impl Outage {
    /// Until when a lease of that many seconds holds at least. What was to renew it may come late by as long as the
    /// outage was; who lives has renewed it within its own length.
    pub fn holds_until(&self, lease_seconds: u32) -> DateTime<Utc> {
        self.ended_at + self.lasted.min(TimeDelta::seconds(lease_seconds.into()))
    }
}

impl Store {
    /// Writes down that leases can be renewed now, if they can, and says when they could not for the last time: for
    /// longer than `stall`, by what all servers wrote down, or by this one's own account, for `silent`.
    ///
    /// # Errors
    /// When the write is not known to last.
    pub async fn pulse(&self, silent: Duration, stall: Duration) -> Result<Option<Outage>, StoreError> {
        self.renew_nothing().await?;
        let now = bson::DateTime::from_chrono(self.clock().now());
        let away = doc! { "$max": [{ "$subtract": [now, "$seen_at"] }, millis(silent)] };
        // One that follows soon must not cut short what leases are still given for the one before.
        let left = doc! { "$subtract": [{ "$add": ["$outage.ended_at", "$outage.lasted_ms"] }, now] };
        let outage = doc! { "ended_at": now, "lasted_ms": { "$max": ["$away", left] } };
        let is_outage = doc! { "$gt": ["$away", millis(stall)] };
        let update = vec![
            doc! { "$set": { "away": away } },
            doc! { "$set": {
                "seen_at": { "$max": ["$seen_at", now] },
                "outage": { "$cond": [is_outage, outage, "$outage"] },
            } },
            doc! { "$unset": "away" },
        ];
        let pulses = self.database.collection::<Document>(&format!("{}_pulse", self.tasks.name()));
        let found = self
            .call("the pulse", async move {
                pulses
                    .find_one_and_update(doc! { "_id": "leases" }, update)
                    .upsert(true)
                    .return_document(ReturnDocument::After)
                    .await
            })
            .await?;
        Ok(found.as_ref().and_then(read))
    }

    /// A heartbeat of nobody. The pulse lies in another collection, which may take writes while that of the tasks
    /// does not.
    async fn renew_nothing(&self) -> Result<(), StoreError> {
        let nobody = rawdoc! { "_id": stored_id(Uuid::nil()) };
        let statement = rawdoc! { "q": nobody, "u": { "$set": { "lease_until": RawBson::Null } } };
        match self.update_command(&[statement]).await {
            Written::Answered { errors, .. } if errors.is_empty() => Ok(()),
            _ => Err(StoreError::Unavailable),
        }
    }
}

fn read(pulse: &Document) -> Option<Outage> {
    let outage = pulse.get_document("outage").ok()?;
    let lasted = TimeDelta::milliseconds(outage.get_i64("lasted_ms").ok()?);
    Some(Outage { ended_at: outage.get_datetime("ended_at").ok()?.to_chrono(), lasted })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
