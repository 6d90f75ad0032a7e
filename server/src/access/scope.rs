//! What a caller can see: its tenant, and within it perhaps one user's tasks, or some task types.

use std::sync::Arc;

/// What a caller can see. Everything outside is to the caller as if it did not exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The tenant; part of every filter.
    pub tenant: Arc<str>,
    /// Only tasks of that end user.
    pub user: Option<Arc<str>>,
    /// Only these task types, sorted.
    pub task_types: Option<Arc<[String]>>,
}

impl Scope {
    /// Everything of a tenant.
    pub fn tenant(tenant: &str) -> Self {
        Self { tenant: tenant.into(), user: None, task_types: None }
    }

    /// Whether the caller may create, claim and see tasks of that type.
    pub fn may_use(&self, task_type: &str) -> bool {
        self.task_types.as_ref().is_none_or(|allowed| allowed.iter().any(|name| name == task_type))
    }
}
