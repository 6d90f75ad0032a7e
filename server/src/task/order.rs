//! The orders in which tasks come, and a task's position in each.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use task_repo_protocol::Uuid;

use super::TaskRecord;

/// In which order tasks come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// THE claim order: by priority, the highest first, then by `ready_at`, the earliest first, then by id. Only for tasks
    /// that are `pending`.
    Claim,
    /// By creation, the newest first.
    Newest,
}

/// A task's position in an [`Order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its priority; counts in claim order.
    pub priority: i32,
    /// `ready_at` in claim order, else `created_at`.
    pub time: DateTime<Utc>,
    /// Its id.
    pub id: Uuid,
}

impl Order {
    /// The position of a task in this order.
    pub fn position(self, task: &TaskRecord) -> Position {
        let time = match self {
            Self::Claim => task.ready_at,
            Self::Newest => task.created_at,
        };
        Position { priority: task.priority, time, id: task.id }
    }

    /// Whether a position comes before another one.
    pub fn is_before(self, one: &Position, other: &Position) -> bool {
        self.compare(one, other) == Ordering::Less
    }

    /// Whether a position comes before, at or behind another one.
    pub fn compare(self, one: &Position, other: &Position) -> Ordering {
        match self {
            Self::Claim => (other.priority, one.time, one.id).cmp(&(one.priority, other.time, other.id)),
            Self::Newest => (other.time, other.id).cmp(&(one.time, one.id)),
        }
    }
}
