//! Who calls, and by when the call is answered.

use std::time::{Duration, Instant};

use super::scope::Scope;

/// Who calls, and by when the call is answered. It is made where a request's role and tenant are checked, and passed whole
/// to the use cases and to dispatch.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the caller can see.
    pub scope: Scope,
    /// By when the call is answered.
    pub deadline: Deadline,
}

/// By when a call is answered. All steps of a call have one deadline together.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    /// How much time the call has from when it begins, or begins again.
    allowed: Duration,
}

impl Deadline {
    /// That of a call that begins now.
    pub fn within(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }

    /// When it is.
    pub fn at(self) -> Instant {
        self.at
    }

    /// The call's time begins again: it waited, and not for the database.
    #[must_use]
    pub fn renewed(self) -> Self {
        Self::within(self.allowed)
    }

    /// The same, and it ends by `until` all the same.
    #[must_use]
    pub fn renewed_until(self, until: Instant) -> Self {
        Self { at: self.renewed().at.min(until), ..self }
    }
}
