//! Waits until all files are done and writes what came out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use task_repo_client::{Execution, ExecutionStatus, Json, ListTasks, Status, Task, TaskClient};

use crate::files::{self, Files};
use crate::{Digest, FileRequest, RUN_TAG, TASK_TYPE, progress_bar};

/// Time between two requests for the unfinished tasks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How many tasks are checked at once.
const CHECKS_AT_ONCE: usize = 16;

/// True: every file was done, and each exactly once.
pub(crate) async fn collect(
    client: &TaskClient,
    directory: &Path,
    run: Option<String>,
    output: Option<&Path>,
) -> anyhow::Result<bool> {
    let files = files::find(directory)?;
    let run = files.run(run);
    let of_run = ListTasks::new().task_type(TASK_TYPE).tag(RUN_TAG, &run).limit(100);
    wait(client, &files, &of_run).await?;

    let tasks: Vec<Task> = client.task_stream(of_run.any_status().with_payload()).try_collect().await?;
    let mut complaints = again_and_again(client, &tasks).await?;
    let digests = digests(tasks, &mut complaints);
    for path in files.paths.iter().filter(|path| !digests.contains_key(*path)) {
        complaints.push(format!("missing: {path}"));
    }
    let out: Box<dyn Write> = match output {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(io::stdout()),
    };
    let mut out = BufWriter::new(out);
    for (path, digest) in &digests {
        let path = directory.join(path);
        writeln!(
            out,
            "{}",
            line(&digest.sha256, path.to_str().context("the directory's path is not UTF-8")?)
        )?;
    }
    out.flush()?;

    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    let bytes: u64 = digests.values().map(|digest| digest.size).sum();
    let lines: u64 = digests.values().map(|digest| digest.lines).sum();
    eprintln!(
        "run {run}: {} of {} files done, {bytes} bytes, {lines} lines, {} complaints, {} skipped",
        digests.len(),
        files.paths.len(),
        complaints.len(),
        files.skipped,
    );
    Ok(complaints.is_empty())
}

/// Waits until nothing of the run is unfinished.
async fn wait(client: &TaskClient, files: &Files, of_run: &ListTasks) -> anyhow::Result<()> {
    let bar = progress_bar(files.paths.len(), "waiting");
    let unfinished =
        of_run.clone().status(Status::Pending).status(Status::Scheduled).status(Status::Processing);
    loop {
        let left =
            client.task_stream(unfinished.clone()).try_fold(0_u64, async |count, _| Ok(count + 1)).await?;
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(left));
        if left == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Complains of tasks that were completed by more than one execution.
async fn again_and_again(client: &TaskClient, tasks: &[Task]) -> anyhow::Result<Vec<String>> {
    let bar = progress_bar(tasks.len(), "checking");
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let complaints: Vec<Option<String>> = stream::iter(ids)
        .map(async |id| {
            let executions = client.get_executions(id).await?;
            let is_completed =
                |execution: &&Execution| matches!(execution.status, ExecutionStatus::Completed);
            let completed = executions.iter().filter(is_completed).count();
            bar.inc(1);
            anyhow::Ok((completed > 1).then(|| format!("completed {completed} times: task {id}")))
        })
        .buffer_unordered(CHECKS_AT_ONCE)
        .try_collect()
        .await?;
    bar.finish_and_clear();
    Ok(complaints.into_iter().flatten().collect())
}

/// What came out of each file.
fn digests(tasks: Vec<Task>, complaints: &mut Vec<String>) -> BTreeMap<String, Digest> {
    let mut digests = BTreeMap::new();
    for task in tasks {
        let Some(Ok(request)) = task.request.json().map(Json::to::<FileRequest>) else {
            complaints.push(format!("not a file: task {}", task.id));
            continue;
        };
        let path = request.path;
        match task.result.json().map(Json::to::<Digest>) {
            Some(Ok(digest)) if task.status == Status::Completed => {
                if digests.insert(path.clone(), digest).is_some() {
                    complaints.push(format!("two tasks: {path}"));
                }
            }
            _ => {
                let why = task.error.map(|error| error.message).unwrap_or_default();
                complaints.push(format!("{}: {path}: {why}", task.status));
            }
        }
    }
    digests
}

/// A line as `sha256sum` writes it: a name that would break the line is escaped, and the line begins with `\`.
fn line(sha256: &str, path: &str) -> String {
    if path.contains(['\\', '\n', '\r']) {
        let escaped = path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        format!("\\{sha256}  {escaped}")
    } else {
        format!("{sha256}  {path}")
    }
}
