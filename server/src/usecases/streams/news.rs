//! What happened to watched tasks, brought in order to those who watch them: what this server did as soon as it is durable,
//! what others did as the event log tells it.

use std::collections::HashMap;
use std::sync::Arc;

use task_repo_protocol::Uuid;
use tokio::sync::mpsc;

use super::message::{Audience, messages};
use super::registry::TaskWatchers;
use super::watcher::{Told, ToldVersion};
use crate::background::Background;
use crate::store::{Store, StoreError};
use crate::task::{AttemptStatus, Status, TaskMove, TaskRecord};

/// How many pieces of news are brought together at most.
const TOGETHER: usize = 256;
/// How many results one read brings: each may have 1 MiB.
const RESULTS_TOGETHER: usize = 64;

/// What happened.
#[derive(Debug)]
pub(super) enum News {
    /// A write of this server has become durable.
    Here(Vec<TaskMove>, Arc<TaskRecord>),
    /// The event log has told of these moves of watched tasks.
    There(Vec<TaskMove>),
}

/// Where news are left.
pub(super) type NewsSender = mpsc::UnboundedSender<News>;

/// Brings news until the server stops. One task of the runtime does so, so that each watcher hears of its task in order.
pub(super) fn bring(store: &Store, watchers: &Arc<TaskWatchers>, background: &Background) -> NewsSender {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let bringer = Bringer { store: store.clone(), watchers: Arc::clone(watchers) };
    let stopping = background.clone();
    background.spawn(async move {
        let mut news = Vec::new();
        loop {
            let count = tokio::select! {
                count = receiver.recv_many(&mut news, TOGETHER) => count,
                () = stopping.stopping() => 0,
            };
            if count == 0 {
                return;
            }
            bringer.bring(std::mem::take(&mut news)).await;
        }
    });
    sender
}

struct Bringer {
    store: Store,
    watchers: Arc<TaskWatchers>,
}

impl Bringer {
    async fn bring(&self, news: Vec<News>) {
        let mut wanted: Vec<_> = news.iter().flat_map(|it| self.wanted(it)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let results = self.results(&wanted).await;
        if results.is_err() {
            // They come again and read their tasks, as soon as the database answers.
            for id in &wanted {
                self.watchers.cut_off(*id);
            }
        }
        let results = results.unwrap_or_default();
        for it in news {
            match it {
                News::Here(moves, task) => {
                    let known = task.result.as_deref().or(results.get(&task.id).map(String::as_str));
                    let versions = moves.iter().map(|it| told(it, known)).collect();
                    let id = task.id;
                    self.watchers.tell(id, &Arc::new(Told { versions, task: Some(task) }));
                }
                News::There(moves) => {
                    for it in moves {
                        let versions = vec![told(&it, results.get(&it.task).map(String::as_str))];
                        self.watchers.tell(it.task, &Arc::new(Told { versions, task: None }));
                    }
                }
            }
        }
    }

    /// The tasks whose result must be read.
    fn wanted(&self, news: &News) -> Vec<Uuid> {
        let is_wanted = |it: &&TaskMove| is_completion(it) && self.watchers.wants(it.task, it.version);
        let ids = |moves: &[TaskMove]| moves.iter().filter(is_wanted).map(|it| it.task).collect();
        match news {
            News::Here(moves, task) if task.result.is_none() && has_completed_before(task) => ids(moves),
            // What was completed without a result has none.
            News::Here(..) => Vec::new(),
            News::There(moves) => ids(moves),
        }
    }

    async fn results(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, String>, StoreError> {
        let mut results = HashMap::new();
        for ids in ids.chunks(RESULTS_TOGETHER) {
            results.extend(self.store.results(ids, self.store.step_deadline()).await?);
        }
        Ok(results)
    }
}

fn is_completion(it: &TaskMove) -> bool {
    it.end.is_some() && it.to == Status::Completed
}

/// Whether there may be a result of an earlier attempt, which stays until another takes its place.
fn has_completed_before(task: &TaskRecord) -> bool {
    task.attempts.iter().filter(|attempt| attempt.status == AttemptStatus::Completed).count() > 1
}

fn told(it: &TaskMove, result: Option<&str>) -> ToldVersion {
    let messages = messages(it, Audience::OfTask(result));
    ToldVersion { version: it.version, to: it.to, messages }
}
