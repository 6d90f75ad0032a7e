//! Readers ask any server, all the time, for tasks that callers were told of. Also while something is broken, a reader
//! must see at least what callers were told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use task_repo_client::{ClientError, ErrorCode, TaskClient, Uuid};
use tokio::sync::watch;

use crate::event::Event;
use crate::history::History;
use crate::told::Told;
use crate::workload::Phase;

/// How long a reader may be told less. A database that was frozen as the primary does not know at once that it no longer
/// is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads one task after the other until all is over.
pub(crate) async fn audit(
    servers: Vec<TaskClient>,
    seed: u64,
    history: Arc<History>,
    phase: watch::Receiver<Phase>,
) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while *phase.borrow() != Phase::Over {
        if let Some((id, told)) = history.told(&mut rng) {
            let (mut behind, began) = (0, Instant::now());
            // Until it is there, or too late, or no answer comes, which says nothing.
            let mut shows = read(&servers, id, &told, &history, &mut rng).await;
            let is_answered = shows.is_some();
            while shows == Some(false) && began.elapsed() < PATIENCE {
                behind += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                shows = read(&servers, id, &told, &history, &mut rng).await;
            }
            if is_answered {
                history.note(Event::Read { id, behind, is_forgotten: shows == Some(false) });
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..100))).await;
    }
}

/// Whether any server shows what was told, if it answers.
async fn read(
    servers: &[TaskClient],
    id: Uuid,
    told: &Told,
    history: &History,
    rng: &mut SmallRng,
) -> Option<bool> {
    let server = servers.choose(rng)?;
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
