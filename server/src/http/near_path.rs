//! The path that was probably meant by one that is none.

use actix_web::http::Method;
use task_repo_protocol::{Uuid, path};

use super::mounts::is_at_root;
use super::request::expected::distance;

/// Longest path that is looked at, in bytes.
const MAX_PATH: usize = 256;

/// All routes of the contract.
pub(super) struct NearPaths {
    routes: Vec<(Method, &'static str)>,
    /// Their paths as they are called, with their parts.
    paths: Vec<(String, Vec<&'static str>)>,
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

impl NearPaths {
    pub(super) fn of(routes: impl Iterator<Item = (Method, &'static str)>) -> Self {
        let routes: Vec<_> = routes.collect();
        let mut paths: Vec<_> = routes.iter().map(|(_, path)| *path).collect();
        paths.sort_unstable();
        paths.dedup();
        let called =
            |path: &str| if is_at_root(path) { path.to_owned() } else { format!("{}{path}", path::BASE) };
        let paths = paths.into_iter().map(|path| (called(path), parts(path).collect())).collect();
        Self { routes, paths }
    }

    /// The path of a route that differs from this one by its base, its slashes or a few letters. It is the route's own
    /// text, with its places in braces.
    pub(super) fn meant(&self, path: &str) -> Option<&str> {
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
        let near = self.paths.iter().filter_map(|(called, route)| Some((cost(route)?, called)));
        // Of two that are equally near the shorter one has less that was not asked for.
        near.min_by_key(|(cost, called)| (*cost, called.len())).map(|(_, called)| called.as_str())
    }

    /// The call on one task that ends in `name`, such as `POST /api/v1/tasks/{task_id}/cancel`.
    pub(super) fn call_on_a_task(&self, name: &str) -> Option<String> {
        let (method, path) = self.routes.iter().find(|(_, path)| {
            let verb = path.strip_prefix(path::TASK).and_then(|rest| rest.strip_prefix('/'));
            verb.is_some_and(|verb| verb.eq_ignore_ascii_case(name))
        })?;
        Some(format!("{method} {}{path}", path::BASE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::routes;

    #[test]
    fn only_what_is_near_is_meant() {
        let paths = NearPaths::of(routes().into_iter().map(|route| (route.method, route.path)));
        let meant = |path| paths.meant(path);
        assert_eq!(meant("/tasks"), Some("/api/v1/tasks"));
        assert_eq!(meant("/api/v1/tasks/42/canceled"), Some("/api/v1/tasks/{task_id}/cancel"));
        assert_eq!(meant("/api/v1/key"), Some("/api/v1/keys"));
        assert_eq!(meant("/task"), Some("/api/v1/tasks"));
        assert_eq!(meant("/metric"), Some("/metrics"));
        for path in ["", "/", "/api/v1", "/nonsense", "/api/v1/tasks/1/2/3", &"/tasks".repeat(1000)] {
            assert_eq!(meant(path), None, "{path}");
        }
    }
}
