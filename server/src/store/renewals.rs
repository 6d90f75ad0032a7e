//! Times in which no lease could be renewed, as all servers on one database know them together.

use std::time::Duration;

use bson::{Document, RawBson, doc, rawdoc};
use chrono::{DateTime, TimeDelta, Utc};
use mongodb::options::ReturnDocument;
use task_repo_protocol::Uuid;

use super::driver::Store;
use super::driver::command::Written;
use super::error::StoreError;
use super::ids::stored_id;

/// A time in which no lease could be renewed: the database did not take writes, or no server ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When it was over.
    pub ended_at: DateTime<Utc>,
    /// How long it was.
    pub lasted: TimeDelta,
    /// Longer ones before it for which leases may still have been held when it began.
    earlier: Vec<Earlier>,
}

/// An outage before the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Earlier {
    lasted: TimeDelta,
    /// How long leases could be renewed between its end and the beginning of the last one.
    renewable: TimeDelta,
}

/// What follows the name of the tasks' collection in that of the renewal record. It is part of the stored form.
const RENEWAL_RECORD: &str = "_pulse";
/// How many earlier outages are kept.
const MAX_EARLIER: i32 = 16;

impl Outage {
    /// Until when a lease of that many seconds holds at least. A heartbeat may come late by as long as the outage was, and a
    /// worker that lives sends one within the lease's own length. Time that an earlier outage gave the lease, and that it
    /// could not use yet, is not lost.
    pub fn holds_until(&self, lease_seconds: u32) -> DateTime<Utc> {
        let length = TimeDelta::seconds(lease_seconds.into());
        let owed = self.earlier.iter().map(|it| it.lasted.min(length) - it.renewable);
        self.ended_at + owed.fold(self.lasted.min(length), TimeDelta::max)
    }
}

impl Store {
    /// Records that leases can be renewed now. Returns the last gap longer than `stall`, seen by any server or, as `silent`,
    /// by this one.
    ///
    /// # Errors
    /// When the write is not known to last.
    pub async fn record_renewal(
        &self,
        silent: Duration,
        stall: Duration,
    ) -> Result<Option<Outage>, StoreError> {
        self.renew_nothing().await?;
        let now = bson::DateTime::from_chrono(self.clock().now());
        let away = doc! { "$max": [{ "$subtract": [now, "$seen_at"] }, millis(silent)] };
        let began = doc! { "$subtract": [now, "$away"] };
        let renewable = doc! { "$max": [0_i64, { "$subtract": [began, "$outage.ended_at"] }] };
        // Servers of 0.1.0 know nothing of earlier ones. They read as its length what is left of the one before, if more.
        let left = doc! { "$subtract": [{ "$add": ["$outage.ended_at", "$outage.lasted_ms"] }, now] };
        let outage = doc! {
            "ended_at": now, "lasted_ms": { "$max": ["$away", left] }, "own_ms": "$away", "earlier": earlier(),
        };
        let is_outage = doc! { "$gt": ["$away", millis(stall)] };
        let update = vec![
            doc! { "$set": { "away": away } },
            doc! { "$set": { "renewable": renewable } },
            doc! { "$set": {
                "seen_at": { "$max": ["$seen_at", now] },
                "outage": { "$cond": [is_outage, outage, "$outage"] },
            } },
            doc! { "$unset": ["away", "renewable"] },
        ];
        let records = self.database.collection::<Document>(&format!("{}{RENEWAL_RECORD}", self.tasks.name()));
        let found = self
            .call("the renewal record", self.step_deadline(), async move {
                records
                    .find_one_and_update(doc! { "_id": "leases" }, update)
                    .upsert(true)
                    .return_document(ReturnDocument::After)
                    .await
            })
            .await?;
        Ok(found.as_ref().and_then(read))
    }

    /// A heartbeat of no task. The renewal record lies in another collection, which may take writes while that of the tasks
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

/// The outages before a new one, by the fields `away` and `renewable`: those of which something is left for some lease,
/// and for which the new one does not give at least as much.
fn earlier() -> Document {
    let with_last = doc! { "$cond": [
        { "$eq": [{ "$type": "$outage.ended_at" }, "date"] },
        [{ "lasted_ms": { "$ifNull": ["$outage.own_ms", "$outage.lasted_ms"] }, "renewable_ms": 0_i64 }],
        [],
    ] };
    let all = doc! { "$concatArrays": [with_last, { "$ifNull": ["$outage.earlier", []] }] };
    let since = doc! { "$map": { "input": all, "in": {
        "lasted_ms": "$$this.lasted_ms",
        "renewable_ms": { "$add": ["$$this.renewable_ms", "$renewable"] },
    } } };
    let counts = doc! { "$gt": ["$$this.lasted_ms", { "$max": ["$away", "$$this.renewable_ms"] }] };
    doc! { "$slice": [{ "$filter": { "input": since, "cond": counts } }, MAX_EARLIER] }
}

fn read(record: &Document) -> Option<Outage> {
    let outage = record.get_document("outage").ok()?;
    let millis = |document: &Document, field| document.get_i64(field).ok().map(TimeDelta::milliseconds);
    let earlier = outage.get_array("earlier").map(Vec::as_slice).unwrap_or_default();
    let earlier = earlier.iter().filter_map(|it| {
        let it = it.as_document()?;
        Some(Earlier { lasted: millis(it, "lasted_ms")?, renewable: millis(it, "renewable_ms")? })
    });
    Some(Outage {
        ended_at: outage.get_datetime("ended_at").ok()?.to_chrono(),
        lasted: millis(outage, "own_ms").or_else(|| millis(outage, "lasted_ms"))?,
        earlier: earlier.collect(),
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_outage_gives_a_lease_is_never_more_than_its_length_and_is_used_up() {
        let seconds = TimeDelta::seconds;
        let ended_at = DateTime::UNIX_EPOCH;
        let held = |outage: &Outage, lease| (outage.holds_until(lease) - ended_at).num_seconds();
        let earlier = vec![Earlier { lasted: seconds(3060), renewable: seconds(300) }];
        let flap = Outage { ended_at, lasted: seconds(4), earlier };
        assert_eq!(held(&flap, 20), 4, "20 s were given, and over long ago");
        assert_eq!(held(&flap, 302), 4);
        assert_eq!(held(&flap, 600), 300, "half of it was left");
        let long = Outage { ended_at, lasted: seconds(3060), earlier: Vec::new() };
        assert_eq!((held(&long, 20), held(&long, 86_400)), (20, 3060));
    }
}
