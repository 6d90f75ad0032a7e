//! What owners do: cancel, execute, edit, delete, run their own work.

use std::sync::Arc;

use task_repo_protocol::{Execute, Json, Receipt, SelfManagedStatus, StatusChange, TaskEdit, Uuid};

use super::failure::Failure;
use super::service::TaskService;
use crate::access::Caller;
use crate::lifecycle::{Intent, Verb};
use crate::task::TaskRecord;

impl TaskService {
    /// Ends a task that nobody works on; asks its worker to stop otherwise.
    ///
    /// # Errors
    /// When there is no such task or it is done.
    pub async fn cancel(&self, caller: &Caller, id: Uuid) -> Result<Receipt, Failure> {
        Ok(self.change(caller, id, Intent::Cancel).await?.receipt)
    }

    /// Makes a task ready now, or again, or at the time that `with` names; its new limits come with the same write.
    ///
    /// # Errors
    /// When there is no such task, or it is ready or under way.
    pub async fn execute(&self, caller: &Caller, id: Uuid, with: Execute) -> Result<Receipt, Failure> {
        Ok(self.change(caller, id, Intent::Execute(Box::new(with))).await?.receipt)
    }

    /// Changes fields of a task that nobody works on.
    ///
    /// # Errors
    /// When there is no such task, its status forbids it, `if_match` does not name its version, its request does not fit its
    /// type's schema, or it would get too large.
    pub async fn edit(
        &self,
        caller: &Caller,
        id: Uuid,
        edit: TaskEdit,
        if_match: Option<Vec<i64>>,
    ) -> Result<TaskRecord, Failure> {
        let task_type = self.type_for(caller, id, &edit).await?;
        if let Some(request) = &edit.request {
            self.fits_schema(caller, &task_type, request.as_ref().map(Json::as_str)).await?;
        }
        let defaults = self.types.limits(&caller.scope.tenant, &task_type);
        let intent = Intent::Edit { edit: Box::new(edit), defaults: Box::new(defaults), if_match };
        Ok(Arc::unwrap_or_clone(self.change(caller, id, intent).await?.task))
    }

    /// The type of the task, which never changes. It is read only where the edit depends on what the type says and the tenant
    /// has types that say something; else it is empty.
    async fn type_for(&self, caller: &Caller, id: Uuid, edit: &TaskEdit) -> Result<String, Failure> {
        let asks = edit.request.is_some()
            || edit.max_attempts == Some(None)
            || edit.retry == Some(None)
            || edit.lease_seconds == Some(None)
            || edit.timeout_seconds == Some(None);
        if asks && self.types.count(&caller.scope.tenant).0 > 0 {
            return Ok(self.peek(caller, id).await?.task_type);
        }
        Ok(String::new())
    }

    /// Hides a task at once; it is kept until its retention ends.
    ///
    /// # Errors
    /// When there is no such task, or a worker has it and `force` is not set.
    pub async fn delete(&self, caller: &Caller, id: Uuid, force: bool) -> Result<(), Failure> {
        self.change(caller, id, Intent::Delete { force }).await.map(|_| ())
    }

    /// Moves a task whose work the calling service runs itself; answers the whole task.
    ///
    /// # Errors
    /// When there is no such task, its status does not allow it, its type is paused, a worker holds it, or `if_match` does
    /// not name its version.
    pub async fn self_managed(
        &self,
        caller: &Caller,
        id: Uuid,
        body: StatusChange,
        if_match: Option<Vec<i64>>,
    ) -> Result<TaskRecord, Failure> {
        if body.status == SelfManagedStatus::Processing {
            self.is_not_paused(caller, id, Verb::Begin).await?;
        }
        let intent = Intent::SelfManaged {
            status: body.status,
            result: body.result.map(task_repo_protocol::Json::into_text),
            result_id: body.result_id,
            error_message: body.error_message,
            execution_id: Uuid::now_v7(),
            if_match,
        };
        Ok(Arc::unwrap_or_clone(self.change(caller, id, intent).await?.task))
    }
}
