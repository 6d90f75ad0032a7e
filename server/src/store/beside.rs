//! The collections beside the tasks.

use super::driver::Store;

/// The collections beside the tasks, by what follows the name of theirs. Each of their documents names its task in `task`.
pub(super) const BESIDE: [&str; 2] = ["checkpoints", "logs"];

impl Store {
    /// The name of a collection beside the tasks.
    pub(super) fn beside(&self, name: &str) -> String {
        format!("{}_{name}", self.tasks.name())
    }
}
