//! What a change leaves in the task for whoever reads the database's change stream.

use task_repo_protocol::TaskEdit;

use super::Intent;
use crate::task::{MoveRecord, Status, TaskRecord};

/// The name of a creation among the verbs.
const CREATE: &str = "create";

/// What `intent` has made of a task that stood at `from` in `version`; `None`: no version of it.
pub(crate) fn move_of(from: Status, version: i64, intent: &Intent, task: &TaskRecord) -> Option<MoveRecord> {
    if task.version == version {
        return None;
    }
    let fields = match intent {
        Intent::Edit { edit, .. } => edited(edit),
        _ => Vec::new(),
    };
    let verb = intent.verb().as_str();
    Some(MoveRecord { version: task.version, at: task.updated_at, verb, from: Some(from), fields })
}

impl MoveRecord {
    /// The creation of a task.
    pub(crate) fn creation(task: &TaskRecord) -> Self {
        Self { version: task.version, at: task.updated_at, verb: CREATE, from: None, fields: Vec::new() }
    }
}

/// The names of the fields that an edit names, as they stand on the wire.
fn edited(edit: &TaskEdit) -> Vec<&'static str> {
    let names = [
        ("name", edit.name.is_some()),
        ("description", edit.description.is_some()),
        ("priority", edit.priority.is_some()),
        ("request", edit.request.is_some()),
        ("template", edit.template.is_some()),
        ("metadata", edit.metadata.is_some()),
        ("tags", edit.tags.is_some()),
        ("run_at", edit.run_at.is_some()),
        ("max_attempts", edit.max_attempts.is_some()),
        ("retry", edit.retry.is_some()),
        ("lease_seconds", edit.lease_seconds.is_some()),
        ("timeout_seconds", edit.timeout_seconds.is_some()),
        ("retention_seconds", edit.retention_seconds.is_some()),
        ("due_date", edit.due_date.is_some()),
        ("reminder_time", edit.reminder_time.is_some()),
    ];
    names.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_edit_names_every_field_that_it_may_have() {
        let fields = [
            "name",
            "description",
            "priority",
            "request",
            "template",
            "metadata",
            "tags",
            "run_at",
            "max_attempts",
            "retry",
            "lease_seconds",
            "timeout_seconds",
            "retention_seconds",
            "due_date",
            "reminder_time",
        ];
        let all: serde_json::Map<_, _> =
            fields.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        let edit: TaskEdit = serde_json::from_value(all.into()).expect("every field may be null");
        // Written again, it has all the fields there are.
        let mut written: Vec<_> = serde_json::to_value(&edit)
            .expect("a body")
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        let mut named = edited(&edit);
        written.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, written);
    }
}
