//! Giving work away.

use futures_util::TryFutureExt as _;
use task_repo_protocol::claim::ClaimOne;
use task_repo_protocol::{Claim, Uuid};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::{Caller, Scope};
use crate::dispatch::Delivery;
use crate::lifecycle::Verb;
use crate::task::Status;

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
    /// When there is no such task, it is not pending, or its type is paused.
    pub async fn claim_one(&self, caller: &Caller, id: Uuid, claim: ClaimOne) -> Result<Delivery, Failure> {
        self.is_not_paused(caller, id, Verb::Claim).await?;
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

    /// Refuses to take up a task that waits and whose type is paused. The task is read only where the tenant has pauses.
    ///
    /// # Errors
    /// When it is such a task, or there is none.
    pub(super) async fn is_not_paused(&self, caller: &Caller, id: Uuid, verb: Verb) -> Result<(), Failure> {
        let (tenant, now) = (&*caller.scope.tenant, self.store.clock().now());
        if !self.types.has_pauses(tenant) {
            return Ok(());
        }
        // Boxed: else the future of each claim is as large as this look-up (docs/decisions/0009).
        let task = Box::pin(self.peek(caller, id)).await?;
        if task.status == Status::Pending && self.types.is_paused(tenant, &task.task_type, now) {
            return Err(Failure::Paused { id, task_type: task.task_type, verb });
        }
        Ok(())
    }
}
