//! Giving work away.

use futures_util::TryFutureExt as _;
use task_repo_protocol::claim::ClaimOne;
use task_repo_protocol::{Claim, Uuid};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::{Caller, Scope};
use crate::dispatch::Delivery;
use crate::lifecycle::Verb;

impl TaskService {
    /// Claims up to the request's limit, waiting as long as it says for the first task.
    ///
    /// # Errors
    /// When the key may not use one of the types; later, when the database does not answer.
    pub fn claim<'a>(
        &'a self,
        caller: &'a Caller,
        claim: Claim,
    ) -> Result<impl Future<Output = Result<Delivery, Failure>> + 'a, Failure> {
        self.may_claim(&caller.scope, &claim)?;
        let claimed = self.dispatch.claim(caller, claim).map_err(Failure::from);
        Ok(claimed.and_then(|delivery| self.with_checkpoints(caller, delivery)))
    }

    /// Refuses a claim of types that the key may not use.
    ///
    /// # Errors
    /// The first such type.
    pub fn may_claim(&self, scope: &Scope, claim: &Claim) -> Result<(), Failure> {
        match claim.task_types.iter().find(|name| !scope.may_use(name)) {
            Some(name) => Err(Failure::TypeForbidden(name.clone())),
            None => Ok(()),
        }
    }

    /// Claims one known task.
    ///
    /// # Errors
    /// When there is no such task or it is not pending.
    pub async fn claim_one(&self, caller: &Caller, id: Uuid, claim: ClaimOne) -> Result<Delivery, Failure> {
        let claimed = self.dispatch.claim_one(caller, id, claim).await;
        let delivery = claimed.map_err(|refused| Failure::of(id, Verb::Claim, &refused))?;
        self.with_checkpoints(caller, delivery).await
    }

    /// Takes along what earlier attempts have left. Where that cannot be read, the tasks go back.
    async fn with_checkpoints(&self, caller: &Caller, mut delivery: Delivery) -> Result<Delivery, Failure> {
        let ids = delivery.with_checkpoint();
        if !ids.is_empty() {
            delivery.add_checkpoints(self.store.checkpoints(&ids, caller.deadline.at()).await?);
        }
        Ok(delivery)
    }
}
