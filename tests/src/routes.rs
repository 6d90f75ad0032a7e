//! Every route of the contract, who may call it, and a body it takes.

use task_repo_protocol::path;

/// One route. A route that asks for different roles with different bodies, or whose body may be left out, stands twice.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with its places in braces.
    pub path: &'static str,
    /// The roles that may call it.
    pub roles: &'static [&'static str],
    /// A body that keeps to all rules; `None` where the route is called without one.
    pub body: Option<&'static str>,
}

impl Route {
    /// The path with `id` in its first place, and 1 in what further places it has.
    pub fn path_for(&self, id: &str) -> String {
        let mut path = String::new();
        for part in self.path.split_inclusive('/') {
            let (name, slash) = part.strip_suffix('/').map_or((part, ""), |name| (name, "/"));
            let is_first = !path.contains(id);
            path.push_str(match name.starts_with('{') {
                true if is_first => id,
                true => "1",
                false => name,
            });
            path.push_str(slash);
        }
        path
    }

    /// Whether it is about one task named in the path by its id.
    pub fn names_a_task(&self) -> bool {
        self.path.contains("{task_id}")
    }
}

const ANY: &[&str] = &["producer", "worker", "viewer", "operator", "admin"];
const PRODUCER: &[&str] = &["producer"];
const WORKER: &[&str] = &["worker"];
const PRODUCER_OR_WORKER: &[&str] = &["producer", "worker"];
const PRODUCER_OR_OPERATOR: &[&str] = &["producer", "operator"];
const OPERATOR: &[&str] = &["operator"];
const ADMIN: &[&str] = &["admin"];

const fn route(
    method: &'static str,
    path: &'static str,
    roles: &'static [&'static str],
    body: Option<&'static str>,
) -> Route {
    Route { method, path, roles, body }
}

/// Every route below `/api/v1`. The ids and tokens in bodies name nothing.
pub const ROUTES: &[Route] = &[
    route("POST", path::TASKS, PRODUCER, Some(r#"{"task_type":"route"}"#)),
    route("GET", path::TASKS, ANY, None),
    route("POST", path::TASKS_BATCH, PRODUCER, Some(r#"{"tasks":[{"task_type":"route"}]}"#)),
    route("POST", path::TASKS_CLAIM, WORKER, Some(r#"{"task_types":["no-such"],"worker_id":"w"}"#)),
    route("POST", path::TASKS_HEARTBEAT, WORKER, Some(r#"{"heartbeats":[{"id":"x","lease_token":"x"}]}"#)),
    route(
        "POST",
        path::TASKS_OUTCOMES,
        WORKER,
        Some(r#"{"outcomes":[{"id":"x","lease_token":"x","outcome":"completed"}]}"#),
    ),
    route("GET", path::TASKS_BY_RESULT, ANY, None),
    route("GET", path::TASK, ANY, None),
    route("PUT", path::TASK, PRODUCER, Some(r#"{"name":"n"}"#)),
    route("DELETE", path::TASK, PRODUCER, None),
    route("GET", path::TASK_STATUS, ANY, None),
    route("PUT", path::TASK_STATUS, PRODUCER_OR_WORKER, Some(r#"{"status":"processing"}"#)),
    route("POST", path::TASK_CLAIM, WORKER, Some(r#"{"worker_id":"w"}"#)),
    route("POST", path::TASK_COMPLETE, WORKER, Some(r#"{"lease_token":"x"}"#)),
    route("POST", path::TASK_FAIL, WORKER, Some(r#"{"lease_token":"x","error":{"message":"m"}}"#)),
    route("POST", path::TASK_RELEASE, WORKER, Some(r#"{"lease_token":"x"}"#)),
    route("POST", path::TASK_HEARTBEAT, WORKER, Some(r#"{"lease_token":"x"}"#)),
    route("POST", path::TASK_CANCEL, PRODUCER_OR_OPERATOR, None),
    route("POST", path::TASK_CANCEL, WORKER, Some(r#"{"lease_token":"x"}"#)),
    route("POST", path::TASK_EXECUTE, PRODUCER_OR_OPERATOR, None),
    route("POST", path::TASK_EXECUTE, PRODUCER_OR_OPERATOR, Some(r#"{"max_attempts":1}"#)),
    route("POST", path::TASK_LOGS, WORKER, Some(r#"{"lease_token":"x","lines":[{"message":"m"}]}"#)),
    route("GET", path::TASK_LOGS, ANY, None),
    route("GET", path::TASK_EXECUTIONS, ANY, None),
    route("GET", path::TASK_TYPES, ANY, None),
    route("GET", path::TASK_TYPE, ANY, None),
    route("PUT", path::TASK_TYPE, OPERATOR, Some(r#"{"lease_seconds":90}"#)),
    route("DELETE", path::TASK_TYPE, OPERATOR, None),
    route("POST", path::TASK_TYPE_PAUSE, OPERATOR, None),
    route("POST", path::TASK_TYPE_PAUSE, OPERATOR, Some(r#"{"reason":"r"}"#)),
    route("POST", path::TASK_TYPE_RESUME, OPERATOR, None),
    route("GET", path::TASK_STREAM, ANY, None),
    route("POST", path::TASK_STREAM_TOKEN, ANY, Some(r#"{"expires_in_seconds":60}"#)),
    route("GET", path::STREAM, ANY, None),
    route("POST", path::STREAM_TOKEN, ANY, Some(r#"{"expires_in_seconds":60}"#)),
    route("GET", path::FAILURES, ANY, None),
    route("GET", path::UNREADABLE_TASKS, OPERATOR, None),
    route("GET", path::UNREADABLE_TASK, OPERATOR, None),
    route("DELETE", path::UNREADABLE_TASK, OPERATOR, None),
    route("POST", path::KEYS, ADMIN, Some(r#"{"name":"n","roles":["viewer"]}"#)),
    route("GET", path::KEYS, ADMIN, None),
    route("DELETE", path::KEY, ADMIN, None),
    route("POST", path::KEY_ROTATE, ADMIN, Some("{}")),
];

/// Every route beside `/api/v1`, all of them `GET`, and whether it needs a key.
pub const SYSTEM_ROUTES: &[(&str, bool)] = &[
    (path::HEALTH, false),
    (path::HEALTH_READY, false),
    (path::HEALTH_DETAILED, true),
    (path::METRICS, true),
    (path::OPENAPI, false),
    (path::DOCS, false),
];
