//! What may be given out now. Claim rounds, hand-offs and the look-ups for callers that wait all ask here.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::Clock;
use crate::store::Selection;
use crate::task_types::KnownTypes;

/// Says what may be given out now. It is asked anew at each step, because what holds changes at any time.
pub(super) struct Gate {
    types: Arc<KnownTypes>,
    clock: Arc<Clock>,
}

impl Gate {
    pub(super) fn new(types: Arc<KnownTypes>, clock: Arc<Clock>) -> Self {
        Self { types, clock }
    }

    /// Of what a selection takes, the part that may be given out now: without paused types. It may be none.
    pub(super) fn open<'a>(&self, selection: &'a Selection) -> Cow<'a, Selection> {
        let tenant = &selection.scope.tenant;
        match self.types.open(tenant, &selection.task_types, self.clock.now()) {
            None => Cow::Borrowed(selection),
            Some(task_types) => Cow::Owned(Selection { task_types, ..selection.clone() }),
        }
    }

    /// Whether nothing of that type may be given out now.
    pub(super) fn is_closed(&self, tenant: &str, task_type: &str) -> bool {
        self.types.is_paused(tenant, task_type, self.clock.now())
    }
}
