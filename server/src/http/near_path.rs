//! The path that was probably meant by one that is none.

use std::sync::LazyLock;

use task_repo_protocol::{Uuid, path};

use super::request::expected::distance;
use super::routes::{is_at_root, routes};

/// Longest path that is looked at, in bytes.
const MAX_PATH: usize = 256;

/// All paths of the contract as they are called, with their parts.
static PATHS: LazyLock<Vec<(String, Vec<&'static str>)>> = LazyLock::new(|| {
    let mut paths: Vec<_> = routes().into_iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let called =
        |path: &str| if is_at_root(path) { path.to_owned() } else { format!("{}{path}", path::BASE) };
    paths.into_iter().map(|path| (called(path), parts(path).collect())).collect()
});

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// The path of a route that differs from this one by its base, its slashes or a few letters. It is the route's own
/// text, with its places in braces.
pub(super) fn meant(path: &str) -> Option<&'static str> {
    if path.len() > MAX_PATH {
        return None;
    }
    let is_base = |part: &&str| {
        let version = part.strip_prefix(['v', 'V']);
        part.eq_ignore_ascii_case("api")
            || version.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let asked: Vec<_> = parts(path).skip_while(is_base).collect();
    let cost = |route: &[&str]| -> Option<usize> {
        if asked.is_empty() || route.len() != asked.len() {
            return None;
        }
        let costs = route.iter().zip(&asked).map(|(part, asked)| {
            if part.starts_with('{') {
                Some(usize::from(Uuid::try_parse(asked).is_err()))
            } else {
                distance(asked, part)
            }
        });
        costs.sum()
    };
    let near = PATHS.iter().filter_map(|(called, route)| Some((cost(route)?, called)));
    near.min_by_key(|(cost, _)| *cost).map(|(_, called)| called.as_str())
}

/// The call on one task that ends in `name`, such as `POST /api/v1/tasks/{task_id}/cancel`.
pub(super) fn call_on_a_task(name: &str) -> Option<String> {
    let route = routes().into_iter().find(|route| {
        let verb = route.path.strip_prefix(path::TASK).and_then(|rest| rest.strip_prefix('/'));
        verb.is_some_and(|verb| verb.eq_ignore_ascii_case(name))
    })?;
    Some(format!("{} {}{}", route.method, path::BASE, route.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        assert_eq!(meant("/tasks"), Some("/api/v1/tasks"));
        assert_eq!(meant("/api/v1/tasks/42/canceled"), Some("/api/v1/tasks/{task_id}/cancel"));
        assert_eq!(meant("/api/v1/key"), Some("/api/v1/keys"));
        assert_eq!(meant("/metric"), Some("/metrics"));
        for path in ["", "/", "/api/v1", "/nonsense", "/api/v1/tasks/1/2/3", &"/tasks".repeat(1000)] {
            assert_eq!(meant(path), None, "{path}");
        }
    }
}
