//! What the changes tell. An update names neither tenant nor type, and nothing of the history: tenant, type and user never
//! change and are remembered; the rest is looked up, all tasks of a batch together.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use task_repo_protocol::Uuid;

use crate::store::{Changed, ClusterTime, Store, StoreError, TaskChange, UpdatedFields};
use crate::task::{AttemptStart, MoveVerb, Status, Step, TaskMove, TaskRecord};

/// How many tasks are remembered at least, and half of the most.
const REMEMBERED: usize = 100_000;

/// What never changes about a task.
#[derive(Debug)]
struct Identity {
    tenant: String,
    task_type: String,
    user_id: Option<String>,
}

/// Turns changes into moves.
#[derive(Debug, Default)]
pub(super) struct MovesRead {
    young: HashMap<Uuid, Arc<Identity>>,
    old: HashMap<Uuid, Arc<Identity>>,
}

/// A change with its steps.
struct Told {
    change: TaskChange,
    steps: Vec<Step>,
}

impl MovesRead {
    /// The moves that these changes tell of, in their order, each with the time of its change.
    pub(super) async fn read(
        &mut self,
        changes: Vec<TaskChange>,
        store: &Store,
    ) -> Result<Vec<(ClusterTime, TaskMove)>, StoreError> {
        let told: Vec<_> = changes.into_iter().filter_map(Told::of).collect();
        for it in &told {
            if let Changed::Whole(task) = &it.change.what {
                self.remember(task);
            }
        }
        let mut wanted: Vec<_> = told
            .iter()
            .filter(|it| it.needs_task() || self.identity(it.change.id).is_none())
            .map(|it| it.change.id)
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found: HashMap<_, _> =
            store.tasks_of_feed(&wanted).await?.into_iter().map(|task| (task.id, task)).collect();
        for task in found.values() {
            self.remember(task);
        }
        let mut moves = Vec::with_capacity(told.len());
        for Told { change: TaskChange { id, at, what }, steps } in told {
            for step in steps {
                let it = match (&what, found.get(&id)) {
                    (Changed::Whole(task), _) => Some(TaskMove::of(task, step)),
                    (Changed::Fields(fields), Some(task)) => {
                        let progress = fields.progress.as_ref().filter(|_| step.verb == MoveVerb::Heartbeat);
                        let mut it = TaskMove::of(task, step);
                        it.progress = it.progress.or_else(|| Some(progress?.clone().into_part()));
                        Some(it)
                    }
                    (Changed::Fields(fields), None) => {
                        self.identity(id).map(|identity| bare(id, &identity, fields, step))
                    }
                };
                if it.is_none() {
                    tracing::error!("a task has moved and is gone: the move is in no event and no count");
                    metrics::counter!("task_repo_feed_unreadable_total").increment(1);
                }
                moves.extend(it.map(|it| (at, it)));
            }
        }
        Ok(moves)
    }

    fn identity(&self, id: Uuid) -> Option<Arc<Identity>> {
        self.young.get(&id).or_else(|| self.old.get(&id)).cloned()
    }

    fn remember(&mut self, task: &TaskRecord) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        let TaskRecord { tenant, task_type, user_id, .. } = task;
        let identity =
            Identity { tenant: tenant.clone(), task_type: task_type.clone(), user_id: user_id.clone() };
        self.young.insert(task.id, Arc::new(identity));
    }
}

/// A move of which the change itself tells all, or whose task is gone.
fn bare(id: Uuid, identity: &Identity, fields: &UpdatedFields, step: Step) -> TaskMove {
    let starts = matches!(step.verb, MoveVerb::Claim | MoveVerb::Begin);
    let worker_id = fields.lease.as_ref().map(|lease| lease.worker_id.clone());
    let start = fields.attempt.filter(|_| starts).map(|attempt| AttemptStart { attempt, worker_id });
    let progress = fields.progress.as_ref().filter(|_| step.verb == MoveVerb::Heartbeat);
    let Step { version, at, verb, from, to, reason, run_at, fields } = step;
    TaskMove {
        task: id,
        version,
        at,
        tenant: identity.tenant.clone(),
        task_type: identity.task_type.clone(),
        user_id: identity.user_id.clone(),
        verb,
        from,
        to,
        reason,
        fields,
        created: None,
        start,
        end: None,
        undone: None,
        progress: progress.map(|progress| progress.clone().into_part()),
        run_at: run_at.filter(|_| to == Status::Scheduled),
        result_id: None,
    }
}

impl Told {
    /// `None`: it is of no interest to anybody.
    fn of(change: TaskChange) -> Option<Self> {
        let steps = match &change.what {
            Changed::Whole(task) if task.only_holds_a_key() || task.is_reserved() => return None,
            Changed::Whole(task) => {
                let mut steps = steps(task.moved.as_deref().unwrap_or_default(), Some(task.status));
                if steps.last().is_none_or(|last| last.version != task.version) {
                    // Nobody has noted it, as where an operator puts a task in.
                    let it = task.creation();
                    steps = vec![Step {
                        version: it.version,
                        at: it.at,
                        verb: it.verb,
                        from: None,
                        to: task.status,
                        reason: None,
                        run_at: None,
                        fields: Vec::new(),
                    }];
                }
                if let Some(last) = steps.last_mut() {
                    (last.reason, last.run_at) = (task.reason, task.run_at);
                }
                steps
            }
            Changed::Fields(fields) => {
                let mut steps = steps(&fields.moved, fields.status);
                if let Some(last) = steps.last_mut() {
                    (last.reason, last.run_at) = (fields.reason, fields.run_at);
                }
                steps
            }
        };
        Some(Self { change, steps })
    }

    /// Whether what is told of it stands in the task only.
    fn needs_task(&self) -> bool {
        let Changed::Fields(fields) = &self.change.what else { return false };
        self.steps.iter().any(|step| match step.verb {
            MoveVerb::Claim => self.steps.len() > 1 || fields.attempt.is_none() || fields.lease.is_none(),
            MoveVerb::Begin => self.steps.len() > 1 || fields.attempt.is_none(),
            MoveVerb::Heartbeat => self.steps.len() > 1 || fields.progress.is_none(),
            MoveVerb::Cancel | MoveVerb::Delete => {
                step.from == Some(Status::Processing) && step.to != Status::Processing
            }
            MoveVerb::Create | MoveVerb::Repeat | MoveVerb::Promote | MoveVerb::Execute | MoveVerb::Edit => {
                false
            }
            _ => true,
        })
    }
}

/// The steps of a write, by what it has noted. `status` is where the task stands with it; `None`: where it stood before.
fn steps(moved: &str, status: Option<Status>) -> Vec<Step> {
    let noted: Vec<Vec<Value>> = serde_json::from_str(moved).unwrap_or_default();
    let mut steps: Vec<_> = noted.iter().filter_map(|noted| step(noted)).collect();
    for place in 0..steps.len() {
        let next = steps.get(place + 1).and_then(|next| next.from);
        let to = next.or(status).or(steps[place].from).unwrap_or(Status::Pending);
        steps[place].to = to;
    }
    steps
}

fn step(noted: &[Value]) -> Option<Step> {
    let at = DateTime::<Utc>::from_timestamp_millis(noted.get(1)?.as_i64()?)?;
    let word = |place: usize| noted.get(place).cloned();
    let names = |value: &Value| serde_json::from_value(value.clone()).ok();
    Some(Step {
        version: noted.first()?.as_i64()?,
        at,
        verb: serde_json::from_value(word(2)?).ok()?,
        from: word(3).and_then(|from| serde_json::from_value(from).ok()),
        to: Status::Pending,
        reason: None,
        run_at: None,
        fields: noted.get(4).and_then(names).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_write_has_noted_is_read_with_all_its_steps() {
        let moved =
            r#"[[3,1700000000000,"heartbeat","processing"],[4,1700000000500,"complete","processing"]]"#;
        let [report, end] = &steps(moved, Some(Status::Completed))[..] else { panic!("two steps") };
        assert_eq!((report.version, report.verb, report.to), (3, MoveVerb::Heartbeat, Status::Processing));
        assert_eq!((end.version, end.from, end.to), (4, Some(Status::Processing), Status::Completed));
        assert_eq!(end.at.timestamp_millis(), 1_700_000_000_500);
    }

    #[test]
    fn an_edit_that_moves_nothing_leaves_the_task_where_it_was() {
        let steps = steps(r#"[[2,0,"edit","scheduled",["name","tags"]]]"#, None);
        assert_eq!((steps[0].from, steps[0].to), (Some(Status::Scheduled), Status::Scheduled));
        assert_eq!(steps[0].fields, ["name", "tags"]);
    }

    #[test]
    fn what_a_later_release_adds_is_read_past() {
        let steps = steps(r#"[[2,0,"adopt","held",[],{"more":1}]]"#, Some(Status::Pending));
        assert_eq!((steps[0].verb.as_str(), steps[0].to), ("adopt", Status::Pending));
        assert!(super::steps("no list", None).is_empty());
    }
}
