//! What only one server does at a time: a lease for each such job, by the database's clock.
//!
//! A lease keeps two servers from doing the same work; it does not make the work safe. Each step is a guarded write that
//! may be done twice, since a server that stood still may go on after its lease has run out.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use mongodb::error::{ErrorKind, WriteFailure};
use task_repo_protocol::Uuid;

use super::driver::Store;
use super::error::{DUPLICATE_KEY, StoreError};
use super::ids::stored_id;

/// The leases of jobs.
const JOB_LEASES: &str = "job_leases";

impl Store {
    /// Takes or renews the lease of a job; `false` while another server has it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn lease_job(&self, job: &str, server: Uuid, lasts: Duration) -> Result<bool, StoreError> {
        let leases = self.database.collection::<Document>(JOB_LEASES);
        let now = self.clock().now();
        let is_over = doc! { "until": { "$lt": DateTime::from_chrono(now) } };
        // No lease of this kind: a restore, or a member of the database with a wrong clock, has left it. The job would stand
        // still for as long.
        let is_none = doc! { "until": { "$not": { "$lte": DateTime::from_chrono(now + 2 * lasts) } } };
        let filter =
            doc! { "_id": self.job(job), "$or": [{ "holder": stored_id(server) }, is_over, is_none] };
        let until = DateTime::from_chrono(now + lasts);
        let update = doc! { "$set": { "holder": stored_id(server), "until": until } };
        self.call("lease a job", self.step_deadline(), async move {
            match leases.update_one(filter, update).upsert(true).await {
                Ok(_) => Ok(true),
                // Another server holds it: the filter finds nothing, and its document stands in the way of a new one.
                Err(error) if is_duplicate(&error.kind) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Gives the lease of a job back, if this server has it.
    ///
    /// # Errors
    /// When the database does not answer; the lease then runs out.
    pub async fn release_job(&self, job: &str, server: Uuid) -> Result<(), StoreError> {
        let leases = self.database.collection::<Document>(JOB_LEASES);
        let held = doc! { "_id": self.job(job), "holder": stored_id(server) };
        self.call(
            "release a job",
            self.step_deadline(),
            async move { leases.delete_one(held).await.map(|_| ()) },
        )
        .await
    }

    /// A job is about one collection of tasks; another installation may share the database.
    fn job(&self, name: &str) -> String {
        format!("{}:{name}", self.tasks.name())
    }
}

fn is_duplicate(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}
