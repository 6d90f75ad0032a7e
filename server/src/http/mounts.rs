//! Where routes are mounted: below the base path, and some at the root as well.

use task_repo_protocol::path;

/// Probes, metrics and documentation also stand outside the base path, where tools look for them.
pub(super) fn is_at_root(path: &str) -> bool {
    [path::HEALTH, path::METRICS, path::OPENAPI, path::DOCS].iter().any(|root| path.starts_with(root))
}
