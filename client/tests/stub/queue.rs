//! A stub that gives out tasks as the service does, and settles them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use task_repo_client::{ErrorCode, RetryBudget, TaskClient, Uuid, Worker, WorkerBuilder, WorkerEvent};

use super::{Asked, Reply, Stub, problem, receipt, task};

/// What the stub does otherwise than the service would, if anything.
type Instead = Box<dyn FnMut(&Asked) -> Option<Reply> + Send>;

/// A claimed task of type `a` with that number and request, whose lease lasts a minute.
pub(crate) fn leased(number: u128, request: &Value) -> Value {
    let mut task = task("processing", Some(&format!("token-{number}")));
    task["id"] = json!(Uuid::from_u128(number));
    task["request"] = request.clone();
    task["attempt"] = json!(1);
    task
}

/// The same with a lease so short that heartbeats come after a tenth of a second.
pub(crate) fn leased_briefly(number: u128) -> Value {
    let mut task = leased(number, &Value::Null);
    task["started_at"] = json!("2030-01-31T08:00:00.000Z");
    task["lease"]["expires_at"] = json!("2030-01-31T08:00:00.300Z");
    task
}

/// A queue with these tasks.
pub(crate) fn queue(
    tasks: impl IntoIterator<Item = Value>,
    instead: impl FnMut(&Asked) -> Option<Reply> + Send + 'static,
) -> Stub {
    let mut tasks: Vec<Value> = tasks.into_iter().collect();
    tasks.reverse();
    let mut instead: Instead = Box::new(instead);
    Stub::answering(move |request| {
        if let Some(reply) = instead(request) {
            return reply;
        }
        let body = request.json();
        let mut claimed = |claim: &Value| -> Vec<Value> {
            let limit = claim["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
            let rest = tasks.len().saturating_sub(limit);
            tasks.split_off(rest).into_iter().rev().collect()
        };
        match request.path() {
            "/tasks/claim" => Reply::json(200, &json!({ "tasks": claimed(&body) })),
            "/tasks/outcomes" => {
                let outcomes = body["outcomes"].as_array().cloned().unwrap_or_default();
                let settled = |outcome: &Value| {
                    let id = outcome["id"].as_str().expect("a text");
                    json!({ "receipt": receipt(id, outcome["outcome"].as_str().expect("a text")) })
                };
                let results: Vec<Value> = outcomes.iter().map(settled).collect();
                Reply::json(200, &json!({ "results": results, "tasks": claimed(&body["claim"]) }))
            }
            "/tasks/heartbeat" => {
                let count = body["heartbeats"].as_array().map_or(0, Vec::len);
                let result = json!({ "expires_at": "2030-01-31T08:00:00.000Z", "cancel_requested": false });
                Reply::json(200, &json!({ "results": vec![result; count] }))
            }
            path => panic!("nobody should ask for {path}"),
        }
    })
}

/// The answer to heartbeats whose leases are all lost.
pub(crate) fn all_lost(request: &Asked) -> Reply {
    let count = request.json()["heartbeats"].as_array().map_or(0, Vec::len);
    let lost = json!({ "problem": problem(ErrorCode::LeaseLost) });
    Reply::json(200, &json!({ "results": vec![lost; count] }))
}

/// The outcomes that the stub was told of, in order.
pub(crate) fn outcomes(stub: &Stub) -> Vec<Value> {
    let asked = stub.requests_for("/tasks/outcomes");
    asked.iter().flat_map(|asked| asked.json()["outcomes"].as_array().cloned().unwrap_or_default()).collect()
}

/// What a worker tells, by name.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// A worker for the stub that is told of, with little patience.
    pub(crate) fn worker(&self, stub: &Stub) -> WorkerBuilder {
        let client = TaskClient::builder(stub.url()).api_key("key").retry(RetryBudget::none());
        let told = Arc::clone(&self.0);
        Worker::builder(&client.build().expect("a client"))
            .wait(Duration::ZERO)
            .grace(Duration::ZERO)
            .stop_patience(Duration::from_millis(20))
            .on_event(move |event| told.lock().expect("nobody panicked").push(name(&event)))
    }

    /// All that was told so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("nobody panicked").clone()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.all().iter().filter(|told| told.as_str() == name).count()
    }

    /// Waits until `name` was told that many times.
    pub(crate) async fn until(&self, name: &str, times: usize) {
        let told = async {
            while self.count(name) < times {
                tokio::time::sleep(Duration::from_millis(2)).await; // tidy: sleep — looks again
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), told).await;
        in_time.unwrap_or_else(|_| panic!("{name} was not told {times} times: {:?}", self.all()));
    }
}

fn name(event: &WorkerEvent<'_>) -> String {
    let text = format!("{event:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}
