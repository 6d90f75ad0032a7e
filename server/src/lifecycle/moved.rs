//! What a change leaves in the task for whoever reads the database's change stream.

use task_repo_protocol::{Execute, TaskEdit};

use super::Intent;
use crate::task::{MoveRecord, Status, TaskRecord};

/// What `intent` has made of a task that stood at `from` in `version`; `None`: no version of it.
pub(crate) fn move_of(from: Status, version: i64, intent: &Intent, task: &TaskRecord) -> Option<MoveRecord> {
    if task.version == version {
        return None;
    }
    let fields = match intent {
        Intent::Edit { edit, .. } => edited(edit),
        Intent::Execute(with) => set_anew(with),
        _ => Vec::new(),
    };
    let verb = intent.verb().told();
    Some(MoveRecord { version: task.version, at: task.updated_at, verb, from: Some(from), fields })
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
    named(&names)
}

/// The names of the fields that an `execute` sets anew. Its time is no such field: the move itself tells of that.
fn set_anew(with: &Execute) -> Vec<&'static str> {
    named(&[
        ("max_attempts", with.max_attempts.is_some()),
        ("timeout_seconds", with.timeout_seconds.is_some()),
        ("lease_seconds", with.lease_seconds.is_some()),
        ("retry", with.retry.is_some()),
        ("priority", with.priority.is_some()),
    ])
}

fn named(names: &[(&'static str, bool)]) -> Vec<&'static str> {
    names.iter().filter(|(_, is_named)| *is_named).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use task_repo_protocol::{NewRetryPolicy, Priority};

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

    #[test]
    fn an_execute_names_every_field_that_it_may_set_but_the_time() {
        let retry = NewRetryPolicy::default();
        let limits = Execute {
            max_attempts: Some(1),
            timeout_seconds: Some(1),
            lease_seconds: Some(1),
            retry: Some(retry),
            priority: Some(Priority::default()),
            ..Execute::default()
        };
        let written = serde_json::to_value(&limits).expect("a body");
        let mut keys: Vec<_> = written.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut named = set_anew(&limits);
        keys.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, keys);
        assert!(set_anew(&Execute::default()).is_empty());
    }
}
