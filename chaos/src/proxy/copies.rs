//! What the answers to copies of one request have in common, whichever server they reached.

use std::collections::BTreeMap;

use serde_json::Value;

/// How the answers to two copies of a request differ although they must not. Only successes of the calls that are safe
/// to repeat are compared: a create with its key, a claim with its id, a settlement with its token.
pub(super) fn difference(request: &[u8], one: &[u8], other: &[u8], is_one_server: bool) -> Option<String> {
    let path = call(request)?;
    let (one, other) = (success(one)?, success(other)?);
    let (one, other) = match path.as_str() {
        "/tasks/claim" => leases_apart(&one, &other, is_one_server)?,
        // A create is answered as the first time, and a settlement with the same receipt.
        path if ["/tasks", "/complete", "/fail", "/release"].iter().any(|end| path.ends_with(end)) => {
            (one != other).then(|| (one.to_string(), other.to_string()))?
        }
        _ => return None,
    };
    Some(format!("{path} was answered with {one:.400} and with {other:.400}"))
}

/// What is asked for, if it is a POST.
fn call(request: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(request);
    Some(head.strip_prefix("POST /api/v1")?.split([' ', '?']).next()?.to_owned())
}

/// The body of an answer, if it is a success.
fn success(answer: &[u8]) -> Option<Value> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let is_success = answer.starts_with(b"HTTP/1.1 2");
    is_success.then(|| serde_json::from_slice(&answer[head..]).unwrap_or(Value::Null))
}

/// The leases of two answers to one claim, if the answers contradict each other.
///
/// A task that is in both answers has the same lease. The later answer may have fewer tasks, because tasks were settled
/// between the two, and an empty answer at the end of a wait is not remembered. So one answer's tasks are always among the
/// other's, if both come from one server. Two servers that are asked at the same moment may both take work
/// (docs/operations.md). Then a worker may give a task back that the other server takes: the task has another lease, in a
/// later version.
fn leases_apart(one: &Value, other: &Value, is_one_server: bool) -> Option<(String, String)> {
    let (one, other) = (leases(one), leases(other));
    let (few, many) = if one.len() <= other.len() { (&one, &other) } else { (&other, &one) };
    let fits = few.iter().all(|(id, lease)| match many.get(id) {
        Some(same) if is_one_server => same == lease,
        Some(same) => same == lease || same.version != lease.version,
        None => !is_one_server,
    });
    (!fits).then(|| (format!("{one:?}"), format!("{other:?}")))
}

/// A lease, and the version of its task when it was given.
#[derive(Debug, PartialEq)]
struct Lease {
    attempt: Value,
    token: Value,
    version: Value,
}

fn leases(answer: &Value) -> BTreeMap<String, Lease> {
    let tasks = answer["tasks"].as_array().into_iter().flatten();
    let lease = |task: &Value| Lease {
        attempt: task["attempt"].clone(),
        token: task["lease"]["token"].clone(),
        version: task["version"].clone(),
    };
    tasks.map(|task| (task["id"].to_string(), lease(task))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn differ(path: &str, one: &str, other: &str, is_one_server: bool) -> bool {
        let request = format!("POST /api/v1{path} HTTP/1.1\r\n\r\n");
        difference(request.as_bytes(), &answer(200, one), &answer(200, other), is_one_server).is_some()
    }

    #[test]
    fn creates_and_settlements_are_answered_alike() {
        for path in ["/tasks", "/tasks/x/complete", "/tasks/x/fail", "/tasks/x/release"] {
            assert!(differ(path, r#"{"version":3}"#, r#"{"version":4}"#, false), "{path}");
            assert!(!differ(path, r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, false), "{path}");
        }
        assert!(!differ("/tasks/heartbeat", "1", "2", true));
        let (one, other, refused) = (answer(201, "1"), answer(200, "2"), answer(503, "{}"));
        assert_eq!(difference(b"POST /api/v1/tasks HTTP/1.1", &one, &refused, true), None);
        assert_eq!(difference(b"GET /api/v1/tasks HTTP/1.1", &one, &other, true), None);
    }

    #[test]
    fn at_another_server_a_claim_may_take_what_was_given_back_meanwhile() {
        let claimed = |token: &str, version: u64| {
            format!(
                r#"{{"tasks":[{{"id":"a","attempt":2,"version":{version},"lease":{{"token":"{token}"}}}}]}}"#
            )
        };
        let differs = |token, version, is_one_server| {
            differ("/tasks/claim", &claimed("1", 5), &claimed(token, version), is_one_server)
        };
        assert!(!differs("2", 7, false) && differs("2", 7, true));
        assert!(differs("2", 5, false), "one version is never given twice");
    }

    #[test]
    fn one_claim_has_the_same_leases() {
        let tasks = |leases: &[(&str, &str)]| {
            let task = |(id, token): &(&str, &str)| {
                format!(r#"{{"id":"{id}","attempt":1,"lease":{{"token":"{token}"}}}}"#)
            };
            format!(r#"{{"tasks":[{}]}}"#, leases.iter().map(task).collect::<Vec<_>>().join(","))
        };
        let both = tasks(&[("a", "1"), ("b", "2")]);
        let differs = |other: &[(&str, &str)]| differ("/tasks/claim", &both, &tasks(other), true);
        assert!(!differs(&[("b", "2"), ("a", "1")]) && !differs(&[("b", "2")]) && !differs(&[]));
        assert!(differs(&[("b", "3")]) && differs(&[("c", "1")]) && differs(&[("b", "2"), ("c", "1")]));
        let differs = |other: &[(&str, &str)]| differ("/tasks/claim", &both, &tasks(other), false);
        assert!(!differs(&[("b", "2"), ("c", "1")]) && differs(&[("b", "3"), ("c", "1")]));
    }
}
