//! What the open feed costs: whole lives while a server reads it, and while none does.

use std::time::Duration;

use anyhow::Result;
use mongodb::Database;
use mongodb::bson::{DateTime, Uuid, doc};
use tokio::task::JoinSet;

use crate::bench::RunningServers;

/// The lease of the feed among those of the servers' jobs.
const LEASE: &str = "tasks:feed";
/// How long that lease holds: as long as the servers' own.
const LASTS: Duration = Duration::from_secs(6);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
/// Until when a server has noticed that it does not read the feed any more: it renews its lease every two seconds.
const NOTICED: Duration = Duration::from_secs(3);

/// Whether a server reads the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    /// As always.
    Open,
    /// This program has its lease, so no server does.
    Closed,
}

impl Feed {
    /// Returns once it is so; it stays so until what is returned is dropped.
    pub(crate) async fn set(self, running: &RunningServers) -> Result<JoinSet<()>> {
        let mut renewals = JoinSet::new();
        if self == Self::Open {
            return Ok(renewals);
        }
        let (database, holder) = (running.database.clone(), Uuid::new());
        hold(&database, holder).await?;
        renewals.spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if let Err(error) = hold(&database, holder).await {
                    eprintln!("the feed's lease could not be renewed: {error}");
                }
            }
        });
        tokio::time::sleep(NOTICED).await;
        Ok(renewals)
    }
}

async fn hold(database: &Database, holder: Uuid) -> Result<()> {
    let until = DateTime::from_system_time(std::time::SystemTime::now() + LASTS);
    let leases = database.collection::<mongodb::bson::Document>("job_leases");
    let lease = doc! { "$set": { "holder": holder, "until": until } };
    leases.update_one(doc! { "_id": LEASE }, lease).upsert(true).await?;
    Ok(())
}
