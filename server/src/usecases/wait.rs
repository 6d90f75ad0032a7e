//! Waiting for the end of a task.

use std::pin::pin;
use std::time::Duration;

use task_repo_protocol::Uuid;

use super::failure::Failure;
use super::service::TaskService;
use crate::access::Caller;
use crate::task::TaskRecord;

impl TaskService {
    /// Reads a task as soon as it is final, or at the end of the wait.
    ///
    /// # Errors
    /// When there is no such task, or no more.
    pub async fn wait(&self, caller: &Caller, id: Uuid, wait: Duration) -> Result<TaskRecord, Failure> {
        let end_wait = self.end_waits.wait_for(id);
        let until = caller.deadline.at() + wait;
        let mut caller = caller.clone();
        let mut end = pin!(tokio::time::sleep(wait));
        loop {
            let mut finished = pin!(end_wait.finished());
            // Polled once before the read, so that no end between read and wait is missed.
            let _ = futures_util::poll!(&mut finished);
            let task = self.get(&caller, id).await?;
            if task.status.is_final()
                || self.background.is_draining()
                || end.deadline() <= tokio::time::Instant::now()
            {
                return Ok(task);
            }
            let _idle = self.end_waits.count_idle();
            tokio::select! {
                () = finished => {}
                () = &mut end => {}
                () = self.background.draining() => {}
            }
            caller.deadline = caller.deadline.renewed_until(until);
        }
    }
}
