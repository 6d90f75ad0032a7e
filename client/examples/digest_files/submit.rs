//! Creates a task for each file that has none yet.

use std::collections::HashSet;
use std::path::Path;

use futures_util::TryStreamExt as _;
use indicatif::ProgressBar;
use task_repo_client::{Json, ListTasks, NewTask, Tags, TaskClient};

use crate::files::{self, Files};
use crate::{FileRequest, RUN_TAG, TASK_TYPE, progress_bar};

/// Most tasks in one batch.
const BATCH: usize = 1000;
/// How often tasks that the service could not take just then are sent again.
const ROUNDS: usize = 5;

/// True: every file below the directory has its task.
pub(crate) async fn submit(
    client: &TaskClient,
    directory: &Path,
    run: Option<String>,
) -> anyhow::Result<bool> {
    let files = files::find(directory)?;
    let run = files.run(run);
    let there = submitted(client, &run).await?;
    let bar = progress_bar(files.paths.len(), "submitting");
    let mut submission = Submission { client, files: &files, run: &run, bar: &bar, created: 0, refused: 0 };
    // Cut before those that are there are taken out: the same files make the same batches, and so the same idempotency
    // keys, wherever an earlier submission was interrupted, or even while it is still under way.
    for batch in files.paths.chunks(BATCH) {
        let missing: Vec<&str> =
            batch.iter().map(String::as_str).filter(|path| !there.contains(*path)).collect();
        bar.inc(u64::try_from(batch.len() - missing.len()).unwrap_or(0));
        submission.send(missing).await?;
    }
    bar.finish_and_clear();
    let Submission { created, refused, .. } = submission;
    eprintln!(
        "run {run}: {} files, {created} submitted, {} there before, {refused} refused, {} skipped",
        files.paths.len(),
        files.paths.len() - created - refused,
        files.skipped,
    );
    Ok(refused == 0)
}

/// The files that have a task already.
async fn submitted(client: &TaskClient, run: &str) -> anyhow::Result<HashSet<String>> {
    let query =
        ListTasks::new().any_status().task_type(TASK_TYPE).tag(RUN_TAG, run).limit(100).with_payload();
    let mut tasks = client.task_stream(query);
    let mut paths = HashSet::new();
    while let Some(task) = tasks.try_next().await? {
        if let Some(Ok(request)) = task.request.json().map(Json::to::<FileRequest>) {
            paths.insert(request.path);
        }
    }
    Ok(paths)
}

struct Submission<'a> {
    client: &'a TaskClient,
    files: &'a Files,
    run: &'a str,
    bar: &'a ProgressBar,
    created: usize,
    refused: usize,
}

impl Submission<'_> {
    /// Creates the tasks of a batch. What the service could not take just then goes into another round.
    async fn send(&mut self, mut paths: Vec<&str>) -> anyhow::Result<()> {
        for round in 1..=ROUNDS {
            if paths.is_empty() {
                return Ok(());
            }
            let tasks = paths.iter().map(|path| self.task(path)).collect::<Result<Vec<_>, _>>()?;
            let key = self.idempotency_key(round, &paths);
            let results = self.client.create_tasks_with_key(&tasks, &key).await?.value;
            let mut again = Vec::new();
            for (path, result) in paths.into_iter().zip(results) {
                match result {
                    Ok(_) => {
                        self.created += 1;
                        self.bar.inc(1);
                    }
                    Err(problem) if problem.retryable && round < ROUNDS => again.push(path),
                    Err(problem) => {
                        self.bar.suspend(|| eprintln!("refused {path}: {}", problem.detail));
                        self.refused += 1;
                    }
                }
            }
            paths = again;
        }
        Ok(())
    }

    fn task(&self, path: &str) -> Result<NewTask, serde_json::Error> {
        let request = FileRequest { root: self.files.root.clone(), path: path.to_owned() };
        Ok(NewTask {
            request: Some(Json::of(&request)?),
            tags: Some(Tags::from([(RUN_TAG, self.run)])),
            // Even a very large file is done in an hour.
            timeout_seconds: Some(3600),
            ..NewTask::new(TASK_TYPE)
        })
    }

    /// The same for the same files of the same run; another one for what is left of them in another round.
    fn idempotency_key(&self, round: usize, paths: &[&str]) -> String {
        let round = round.to_string();
        let parts = [self.run, &self.files.root, &round].into_iter().chain(paths.iter().copied());
        format!("digest-files-{}", files::hash(parts))
    }
}
