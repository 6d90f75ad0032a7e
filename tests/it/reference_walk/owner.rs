//! What the owner of a task does to it, and what time does.

use bson::{DateTime, Document, doc};
use proptest::prelude::*;
use serde_json::{Value, json};
use task_repo_tests::eventually;

use super::{Outcome, Walk, is_gone, is_receipt, is_refused, said};
use crate::reference_task::{Edit, HOUR};

impl Walk<'_> {
    pub(super) async fn cancel(&mut self, place: usize) -> Outcome {
        let answer = self.post(place, "cancel", json!({})).await;
        let task = &mut self.tasks[place];
        match &task.cancelled {
            _ if task.is_deleted => return is_gone(&answer),
            Some((status, receipt)) if *status == task.status => {
                prop_assert_eq!(&answer.1, receipt, "the same receipt");
                return Ok(());
            }
            _ if ["completed", "failed"].contains(&task.status) => {
                return is_refused(&answer, "invalid_transition", task);
            }
            _ if task.status == "cancelled" => return is_receipt(&answer, task),
            _ => {}
        }
        task.cancel_requested = true;
        task.stand(if task.holder.is_some() { "processing" } else { "cancelled" }, None);
        is_receipt(&answer, task)?;
        task.cancelled = Some((task.status, answer.1));
        Ok(())
    }

    pub(super) async fn execute(&mut self, place: usize) -> Outcome {
        let answer = self.post(place, "execute", json!({})).await;
        let task = &mut self.tasks[place];
        if task.is_deleted {
            return is_gone(&answer);
        }
        if ["pending", "processing"].contains(&task.status) {
            return is_refused(&answer, "invalid_transition", task);
        }
        task.execute();
        is_receipt(&answer, task)
    }

    pub(super) async fn edit(&mut self, place: usize, edit: Edit) -> Outcome {
        let task = &mut self.tasks[place];
        let is_open = ["pending", "scheduled"].contains(&task.status) && !task.is_deleted;
        let body = if is_open { task.edit(edit) } else { json!({"priority": 1}) };
        let path = format!("/tasks/{}", task.id);
        let answer = said(&self.server().put(&path).json(&body).send().await);
        let task = &self.tasks[place];
        if task.is_deleted {
            return is_gone(&answer);
        }
        if !is_open {
            return is_refused(&answer, "invalid_transition", task);
        }
        prop_assert_eq!(answer.0, 200, "{}", answer.1);
        Ok(())
    }

    /// A task that somebody works on goes only by force.
    pub(super) async fn delete(&mut self, place: usize, force: bool) -> Outcome {
        let path = format!("/tasks/{}", self.tasks[place].id);
        let call = self.server().delete(&path).query(&[("force", if force { "true" } else { "false" })]);
        let answer = said(&call.send().await);
        let task = &mut self.tasks[place];
        if task.is_deleted {
            return is_gone(&answer);
        }
        if task.status == "processing" && !force {
            return is_refused(&answer, "invalid_transition", task);
        }
        prop_assert_eq!(answer, (204, Value::Null));
        task.is_deleted = true;
        Ok(())
    }

    /// The lease ended an hour ago. Where the sweeper may take it, it has when this is over.
    pub(super) async fn run_out(&mut self, place: usize) {
        let id = bson::Uuid::parse_str(&self.tasks[place].id).expect("a UUID");
        let stored = self.server().database().collection::<Document>("tasks");
        let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 1000 * i64::from(HOUR));
        // With another stamp: as if another server had written it.
        let update = doc! { "$set": { "lease_until": past }, "$inc": { "stamp": 1_i64 } };
        let updated = stored.update_one(doc! { "_id": id }, update).await.expect("an answer");
        assert_eq!(updated.modified_count, 1);
        if !self.is_swept {
            self.tasks[place].is_overdue = true;
            return;
        }
        let path = format!("/tasks/{}", self.tasks[place].id);
        eventually("the sweeper takes the lease", async || {
            self.servers[1 - self.at].get(&path).send().await.ok()["lease"].is_null()
        })
        .await;
        self.tasks[place].lose();
    }
}
