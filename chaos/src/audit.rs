//! Readers who ask all the time, at any server, for tasks that callers were told of. Whatever is broken meanwhile, they
//! must read at least as much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use task_repo_client::{ClientError, ErrorCode, Status, Task, TaskClient, Uuid};
use tokio::sync::watch;

use crate::history::{Event, History, Said, Verb};
use crate::load::Phase;

/// How long a reader may be told less. A database that was frozen as the primary does not know at once that it no longer
/// is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least that anybody may read of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    version: u64,
    /// The token of the lease that completed it, which is its result.
    completed_by: Option<String>,
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
    fn is_in(&self, task: &Task) -> bool {
        let result: Option<String> = task.result.json().and_then(|json| json.to().ok());
        self.is_in_what_is(task.version, task.status, result.as_deref())
    }

    fn is_in_what_is(&self, version: u64, status: Status, result: Option<&str>) -> bool {
        let is_completed_by = |token: &String| status == Status::Completed && result == Some(token);
        version >= self.version && self.completed_by.as_ref().is_none_or(is_completed_by)
    }
}

/// Reads one task after the other until all is over.
pub(crate) async fn audit(
    servers: Vec<TaskClient>,
    seed: u64,
    history: Arc<History>,
    phase: watch::Receiver<Phase>,
) {
    let mut dice = SmallRng::seed_from_u64(seed);
    while *phase.borrow() != Phase::Over {
        if let Some((id, told)) = history.told(&mut dice) {
            let (mut behind, began) = (0, Instant::now());
            // Until it is there, or too late, or no answer comes, which says nothing.
            let mut shows = read(&servers, id, &told, &history, &mut dice).await;
            let is_answered = shows.is_some();
            while shows == Some(false) && began.elapsed() < PATIENCE {
                behind += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                shows = read(&servers, id, &told, &history, &mut dice).await;
            }
            if is_answered {
                history.note(Event::Read { id, behind, is_forgotten: shows == Some(false) });
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..100))).await;
    }
}

/// Whether any server shows what was told, if it answers.
async fn read(
    servers: &[TaskClient],
    id: Uuid,
    told: &Told,
    history: &History,
    dice: &mut SmallRng,
) -> Option<bool> {
    let server = servers.choose(dice)?;
    let reading = async {
        match server.get_task(id).await {
            Ok(task) => Ok(Some(task)),
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::TaskNotFound => Ok(None),
            Err(error) => {
                if let ClientError::Transport(error) = &error {
                    history.note(Event::Broken { error: format!("{error:?}") });
                }
                Err(error)
            }
        }
    };
    let task = history.call::<_, ClientError>("read", Duration::ZERO, reading).await.ok()?;
    let shows = task.as_ref().is_some_and(|task| told.is_in(task));
    if let Some(task) = task {
        // What one reader was told, the others must be told too.
        history.tell(id, Told { version: task.version, completed_by: None });
    }
    Some(shows)
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
