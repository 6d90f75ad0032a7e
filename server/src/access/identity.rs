//! Who calls.

use std::sync::Arc;

use task_repo_protocol::Role;

use super::key::KeyRecord;

/// Who calls.
#[derive(Debug, Clone)]
pub enum Identity {
    /// No key was shown, on a route that needs none.
    Anonymous,
    /// A bootstrap key, by the hash of its secret: all tenants, all roles.
    Bootstrap([u8; 32]),
    /// An issued key, and the hash of its secret that the caller has.
    Issued(Arc<KeyRecord>, [u8; 32]),
}

impl Identity {
    /// Whether the caller has one of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Bootstrap(_) => true,
            Self::Issued(key, _) => key.roles.iter().any(|role| roles.contains(&(*role).into())),
        }
    }

    /// Whether the caller may name any tenant.
    pub fn reaches_all_tenants(&self) -> bool {
        self.has_any(&[Role::Admin])
    }
}
