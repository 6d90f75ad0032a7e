//! What a claim has taken, by its claim id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bson::doc;

use super::projection::without_payload;
use crate::access::Scope;
use crate::store::carried::ClaimId;
use crate::store::driver::Store;
use crate::store::error::StoreError;
use crate::store::ids::stored_bytes;
use crate::store::indexes::CLAIMS;
use crate::task::TaskRecord;

impl Store {
    /// The tasks that a claim with this id (hash) has ever taken, without payloads. Questions of callers that arrive
    /// together are one.
    ///
    /// # Errors
    /// When the database does not answer by `until`.
    pub async fn claimed_by(
        &self,
        scope: &Scope,
        claim_id: &[u8],
        until: Instant,
    ) -> Result<Vec<TaskRecord>, StoreError> {
        let question = (Arc::clone(&scope.tenant), claim_id.to_vec());
        let store = self.clone();
        let run = move |questions| {
            let store = store.clone();
            async move { store.claimed_by_now(questions).await }
        };
        let asked = self.groups.claim_ids.submit(vec![question], 0, until, &self.runtime, run).await;
        // Nothing can be in doubt of a question.
        let mut answers = asked.map_err(|error| match error {
            StoreError::OutcomeUnknown => StoreError::Unavailable,
            other => other,
        })?;
        answers.pop().unwrap_or(Err(StoreError::Unavailable))
    }

    async fn claimed_by_now(&self, questions: Vec<ClaimId>) -> Vec<Result<Vec<TaskRecord>, StoreError>> {
        let mut by_tenant: HashMap<&str, Vec<_>> = HashMap::new();
        for (tenant, claim_id) in &questions {
            by_tenant.entry(tenant).or_default().push(stored_bytes(claim_id));
        }
        let mut found = HashMap::with_capacity(by_tenant.len());
        for (tenant, claim_ids) in by_tenant {
            // Not `$exists` as well: on an array MongoDB bounds the index by one condition only, and may take that.
            let filter = doc! { "tenant": tenant, "claim_ids": { "$in": claim_ids } };
            let mut options = self.by_index(CLAIMS);
            options.projection = Some(without_payload());
            found.insert(tenant, self.find("claimed by id", filter, options, self.step_deadline()).await);
        }
        let answer = |(tenant, claim_id): &ClaimId| {
            let reading =
                found.get(&**tenant).ok_or(StoreError::Unavailable)?.as_ref().map_err(|error| *error)?;
            Ok(reading.found.iter().filter(|task| task.claim_ids.contains(claim_id)).cloned().collect())
        };
        questions.iter().map(answer).collect()
    }
}
