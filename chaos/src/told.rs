//! What callers were told of a task, which is the least that readers must see of it.

use task_repo_client::{Status, Task, Uuid};

use crate::event::{Event, Said, Verb};

/// The least that anybody may read of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) version: u64,
    /// The token of the lease that completed it, which is its result.
    pub(crate) completed_by: Option<String>,
}

impl Told {
    /// What an event tells a caller, and of which task.
    pub(crate) fn by(event: &Event) -> Option<(Uuid, Self)> {
        match event {
            Event::Created { said: Said::Accepted, id: Some(id), .. } => Some((*id, Self::default())),
            Event::Claimed { id, version, .. } => Some((*id, Self { version: *version, completed_by: None })),
            Event::Settled { id, token, verb, said: Said::Accepted, version: Some(version) } => {
                let completed_by = (*verb == Verb::Complete).then(|| token.clone());
                Some((*id, Self { version: *version, completed_by }))
            }
            _ => None,
        }
    }

    /// More was told of it.
    pub(crate) fn add(&mut self, told: Self) {
        self.version = self.version.max(told.version);
        self.completed_by = told.completed_by.or(self.completed_by.take());
    }

    /// Whether a task shows all of it.
    pub(crate) fn is_in(&self, task: &Task) -> bool {
        let result: Option<String> = task.result.json().and_then(|json| json.to().ok());
        self.is_in_what_is(task.version, task.status, result.as_deref())
    }

    fn is_in_what_is(&self, version: u64, status: Status, result: Option<&str>) -> bool {
        let is_completed_by = |token: &String| status == Status::Completed && result == Some(token);
        version >= self.version && self.completed_by.as_ref().is_none_or(is_completed_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_must_be_told_what_callers_were_told() {
        let settled = |verb| Event::Settled {
            id: Uuid::nil(),
            token: "t1".to_owned(),
            verb,
            said: Said::Accepted,
            version: Some(3),
        };
        let mut told = Told::default();
        assert!(told.is_in_what_is(1, Status::Pending, None));
        told.add(Told::by(&settled(Verb::Release)).unwrap().1);
        assert!(told.is_in_what_is(3, Status::Pending, None));
        assert!(!told.is_in_what_is(2, Status::Pending, None));
        told.add(Told::by(&settled(Verb::Complete)).unwrap().1);
        told.add(Told { version: 2, completed_by: None });
        assert!(told.is_in_what_is(3, Status::Completed, Some("t1")));
        assert!(!told.is_in_what_is(3, Status::Processing, Some("t1")));
        assert!(!told.is_in_what_is(3, Status::Completed, Some("t2")));
        assert!(!told.is_in_what_is(2, Status::Completed, Some("t1")));
    }
}
