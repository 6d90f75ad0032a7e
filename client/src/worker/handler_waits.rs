//! Handlers that wait for other tasks, and may thereby keep the slots that those tasks need.

use std::sync::Arc;

use task_repo_protocol::{Status, Task};

use super::event::WorkerEvent;
use super::settings::Settings;
use crate::waits::WaitWatcher;

/// Watches what one handler waits for.
#[derive(Debug)]
pub(crate) struct HandlerWaits {
    pub(crate) settings: Arc<Settings>,
    /// The handler's type, by its index in the registrations.
    pub(crate) type_index: usize,
    pub(crate) task: Arc<Task>,
}

impl HandlerWaits {
    /// Whether this worker would have to do the task and cannot, because handlers that wait hold all slots it could have.
    fn is_in_the_way_of(&self, awaited: &Task) -> bool {
        let Some(type_index) = self.settings.type_index_of(&awaited.task_type) else { return false };
        let has_tag = |(key, value)| awaited.tags.0.get(key) == Some(value);
        if !self.settings.tags.iter().flat_map(|tags| &tags.0).all(has_tag) {
            return false;
        }
        let waiting = self.settings.waits.by_type();
        let of_type = waiting.get(type_index).copied().unwrap_or_default();
        let has_no_slot = of_type >= self.settings.concurrency_of(type_index)
            || waiting.iter().sum::<usize>() >= self.settings.concurrency;
        has_no_slot && matches!(awaited.status, Status::Pending | Status::Scheduled)
    }

    fn count(&self, change: fn(&mut usize)) {
        if let Some(count) = self.settings.waits.by_type().get_mut(self.type_index) {
            change(count);
        }
    }
}

impl WaitWatcher for HandlerWaits {
    fn begins(&self) {
        self.count(|count| *count += 1);
    }

    fn goes_on(&self, awaited: &Task) {
        if self.is_in_the_way_of(awaited) {
            self.settings.events.emit(WorkerEvent::WaitsForItself { task: &self.task, awaited });
        }
    }

    fn ends(&self) {
        self.count(|count| *count -= 1);
    }
}
