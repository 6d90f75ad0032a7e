//! Tasks, claims and keys in one line.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::id_of;
use crate::server::TestServer;

/// A task type that no other test uses.
pub fn unique_type() -> String {
    format!("type-{}", Uuid::now_v7().simple())
}

/// The time so many seconds from now, as the service writes times.
pub fn in_seconds(seconds: i64) -> String {
    let time: DateTime<Utc> = Utc::now() + Duration::seconds(seconds);
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A task as any other answer shows it, of the answer to its creation, which alone has the URL of its stream.
pub fn as_shown_later(mut task: Value) -> Value {
    task.as_object_mut().map(|task| task.remove("stream_url"));
    task
}

impl TestServer {
    /// A task of those fields; of a type of its own if they name none.
    pub async fn create(&self, mut fields: Value) -> Value {
        if fields.get("task_type").is_none() {
            fields["task_type"] = unique_type().into();
        }
        as_shown_later(self.post("/tasks").json(&fields).send().await.ok())
    }

    /// The task as it is now.
    pub async fn task(&self, id: &str) -> Value {
        self.get(&format!("/tasks/{id}")).send().await.ok()
    }

    /// The next task of that type, with its lease. Panics when none is ready.
    pub async fn claim(&self, task_type: &str) -> Value {
        let body = json!({"task_types": [task_type], "worker_id": "test-worker"});
        let mut answer = self.post("/tasks/claim").json(&body).send().await.ok();
        let task = answer["tasks"][0].take();
        assert!(task.is_object(), "no task of type {task_type} is ready");
        task
    }

    /// Completes a claimed task with its token; returns the receipt.
    pub async fn complete(&self, claimed: &Value, result: Value) -> Value {
        let body = json!({"lease_token": claimed["lease"]["token"], "result": result});
        self.post(&format!("/tasks/{}/complete", id_of(claimed))).json(&body).send().await.ok()
    }

    /// A task of those fields in that status, and how it answers to `GET`.
    pub async fn create_in(&self, status: &str, mut fields: Value) -> Value {
        if status == "scheduled" {
            fields["delay_seconds"] = 3600.into();
        }
        let task = self.create(fields).await;
        let id = id_of(&task);
        match status {
            "pending" | "scheduled" => {}
            "processing" | "completed" | "failed" => {
                let claim =
                    self.post(&format!("/tasks/{id}/claim")).json(&json!({"worker_id": "test-worker"}));
                let claimed = claim.send().await.ok();
                let mut body = json!({"lease_token": claimed["lease"]["token"]});
                if status == "completed" {
                    self.complete(&claimed, Value::Null).await;
                } else if status == "failed" {
                    body["error"] = json!({"message": "broken"});
                    body["retry"] = "never".into();
                    self.post(&format!("/tasks/{id}/fail")).json(&body).send().await.ok();
                }
            }
            "cancelled" => {
                self.post(&format!("/tasks/{id}/cancel")).send().await.ok();
            }
            other => panic!("no such status: {other}"),
        }
        let task = self.task(id).await;
        assert_eq!(task["status"], status, "{task:#}");
        task
    }

    /// A key with those roles and whatever else `extra` says of it; returns the secret.
    pub async fn issue_key(&self, roles: &[&str], extra: Value) -> String {
        self.issue(roles, extra).await["key"].as_str().unwrap().to_owned()
    }

    /// The same; returns the whole answer.
    pub async fn issue(&self, roles: &[&str], extra: Value) -> Value {
        let mut body = json!({"name": "a key for a test", "roles": roles});
        if let Value::Object(extra) = extra {
            body.as_object_mut().unwrap().extend(extra);
        }
        self.post("/keys").json(&body).send().await.ok()
    }
}
