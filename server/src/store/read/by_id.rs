//! Reading tasks by id before they are changed or called missing, together for all who ask.
//!
//! A majority read may be behind just after a change of the primary. A certain one is linearizable: the primary makes sure
//! that it still is one, at the cost of a write of nothing. Only a refusal needs that.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bson::doc;
use mongodb::options::{FindOptions, ReadConcern};
use task_repo_protocol::Uuid;
use task_repo_protocol::task::MAX_TASK_BYTES;

use super::projection::without_payload;
use crate::store::carried::{ReadKind, ReadOutcome, ReadRequest};
use crate::store::driver::{GroupCommit, MAX_READ_BYTES, Store};
use crate::store::error::StoreError;
use crate::store::ids::stored_id;

impl Store {
    /// Each of these tasks as a majority has it.
    pub(in crate::store) async fn read_for_change(
        &self,
        wanted: Vec<ReadRequest>,
        until: Instant,
    ) -> Result<Vec<(Uuid, ReadOutcome)>, StoreError> {
        // Certain reads take longer: nobody else waits for them.
        let (certain, plain): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|it| it.kind.certain);
        let (certain, plain) = tokio::join!(
            self.read_together(&self.groups.certain_reads, certain, until),
            self.read_together(&self.groups.reads, plain, until)
        );
        let mut read = certain?;
        read.extend(plain?);
        Ok(read)
    }

    /// Each of these tasks as it is now, for certain.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(in crate::store) async fn read_certainly(
        &self,
        ids: &[Uuid],
        payload: bool,
        until: Instant,
    ) -> Result<Vec<(Uuid, ReadOutcome)>, StoreError> {
        let kind = ReadKind { payload, certain: true };
        let wanted = ids.iter().map(|id| ReadRequest { id: *id, kind }).collect();
        self.read_together(&self.groups.certain_reads, wanted, until).await
    }

    async fn read_together(
        &self,
        group: &GroupCommit<ReadRequest, Result<ReadOutcome, StoreError>>,
        wanted: Vec<ReadRequest>,
        until: Instant,
    ) -> Result<Vec<(Uuid, ReadOutcome)>, StoreError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = wanted.iter().map(|it| it.id).collect();
        let store = self.clone();
        let run = move |wanted| {
            let store = store.clone();
            async move { store.read_now(wanted).await }
        };
        // Its input, and a result from before.
        let bytes = wanted.iter().filter(|it| it.kind.payload).count() * 2 * MAX_TASK_BYTES;
        let read = group.submit(wanted, bytes, until, &self.runtime, run).await?;
        ids.into_iter().zip(read).map(|(id, record)| Ok((id, record?))).collect()
    }

    /// All of them are certain reads, or none is.
    async fn read_now(&self, wanted: Vec<ReadRequest>) -> Vec<Result<ReadOutcome, StoreError>> {
        let certain = wanted.first().is_some_and(|it| it.kind.certain);
        let read = |payload| {
            let of_kind = wanted.iter().filter(move |it| it.kind.payload == payload);
            self.read_kind(ReadKind { payload, certain }, of_kind.map(|it| it.id).collect())
        };
        let (bare, whole) = tokio::join!(read(false), read(true));
        let answer = |it: &ReadRequest| {
            let found = if it.kind.payload { &whole } else { &bare };
            found
                .as_ref()
                .map_err(|error| *error)
                .map(|found| found.get(&it.id).cloned().unwrap_or(ReadOutcome::Missing))
        };
        wanted.iter().map(answer).collect()
    }

    /// These tasks, read in that way.
    async fn read_kind(
        &self,
        kind: ReadKind,
        mut ids: HashSet<Uuid>,
    ) -> Result<HashMap<Uuid, ReadOutcome>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut options = FindOptions::builder().max_time(self.timeout).build();
        options.projection = Some(if kind.payload {
            doc! { "moved": 0 }
        } else {
            without_payload()
        });
        options.read_concern = kind.certain.then(ReadConcern::linearizable);
        // As many at once as may arrive together, whatever their histories.
        let mut is_cut = !ids.is_empty();
        while is_cut {
            let stored: Vec<_> = ids.iter().map(|id| stored_id(*id)).collect();
            let filter = doc! { "_id": { "$in": stored } };
            let reading = self
                .find_within("for a change", filter, options.clone(), MAX_READ_BYTES, self.step_deadline())
                .await?;
            is_cut = reading.is_cut;
            let unreadable =
                reading.unreadable.into_iter().map(|(id, tenant)| (id, ReadOutcome::Unreadable(tenant)));
            let read = reading.found.into_iter().map(|task| (task.id, ReadOutcome::Task(Box::new(task))));
            for (id, read) in unreadable.chain(read) {
                ids.remove(&id);
                found.insert(id, read);
            }
        }
        Ok(found)
    }
}
