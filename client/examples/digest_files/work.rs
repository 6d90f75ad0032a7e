//! Works on files until it is told to stop or there is nothing to do.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use task_repo_client::{TaskClient, TaskContext, TaskFailure, Worker, WorkerEvent, stop_signal};

use crate::files::hexadecimal;
use crate::{Digest, FileRequest, RUN_TAG, TASK_TYPE};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Works until Ctrl-C or SIGTERM, or until there was nothing to do for `until_idle`.
pub(crate) async fn work(
    client: &TaskClient,
    concurrency: usize,
    until_idle: Option<Duration>,
    run: Option<String>,
) -> anyhow::Result<()> {
    let activity = Arc::new(Activity::default());
    let mut worker = Worker::builder(client)
        .concurrency(concurrency)
        .register_blocking(TASK_TYPE, |ctx, file| digest(&ctx, &file))
        .on_event({
            let activity = Arc::clone(&activity);
            move |event| activity.note(&event)
        });
    if let Some(run) = run {
        worker = worker.only_tagged(RUN_TAG, run);
    }
    let stop = {
        let activity = Arc::clone(&activity);
        async move {
            tokio::select! {
                () = stop_signal() => {}
                () = activity.idle(until_idle) => {}
            }
        }
    };
    let report = worker.build()?.run_until(stop).await?;
    activity.bar.finish_and_clear();
    eprintln!(
        "{} completed, {} failed, {} given back, {} lost",
        report.completed, report.failed, report.released, report.lost
    );
    Ok(())
}

/// Reading blocks, and a large file for long: hence a blocking handler.
fn digest(ctx: &TaskContext, FileRequest { root, path }: &FileRequest) -> Result<Digest, TaskFailure> {
    if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(TaskFailure::never("the path leads out of its directory").with_code("forbidden_path"));
    }
    let mut file = File::open(Path::new(root).join(path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TaskFailure::never(error.to_string()).with_code("file_not_found"),
        _ => error.into(),
    })?;
    let expected = file.metadata()?.len();
    let (mut hasher, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    let (mut size, mut lines) = (0_u64, 0_u64);
    loop {
        let bytes = match file.read(&mut chunk)? {
            0 => break,
            count => &chunk[..count],
        };
        hasher.update(bytes);
        size += u64::try_from(bytes.len())?;
        lines += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        if size < expected {
            ctx.send_progress(share(size, expected), format!("{size} of {expected} bytes"));
        }
        if ctx.is_cancelled() {
            return Err(TaskFailure::cancelled());
        }
    }
    Ok(Digest { size, lines, sha256: hexadecimal(&hasher.finalize()) })
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What the worker is doing, as far as its events tell.
struct Activity {
    /// How many tasks are worked on, and since when the number stands.
    running: Mutex<(usize, Instant)>,
    bar: ProgressBar,
}

impl Default for Activity {
    fn default() -> Self {
        let bar = ProgressBar::new_spinner().with_message("waiting for files");
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { running: Mutex::new((0, Instant::now())), bar }
    }
}

impl Activity {
    fn note(&self, event: &WorkerEvent<'_>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.0 = match event {
            WorkerEvent::Claimed { .. } => running.0 + 1,
            WorkerEvent::Settled { .. } | WorkerEvent::Lost { .. } | WorkerEvent::Unsettled { .. } => {
                self.bar.inc(1);
                running.0.saturating_sub(1)
            }
            // Nobody is idle who cannot even ask.
            WorkerEvent::ClaimFailed { .. } => running.0,
            _ => return,
        };
        running.1 = Instant::now();
        self.bar.set_message(format!("{} done, {} at work", self.bar.position(), running.0));
    }

    /// Is done when nothing was worked on for `idle`; never without one.
    async fn idle(&self, idle: Option<Duration>) {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let (running, since) = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = idle.saturating_sub(since.elapsed());
            if running == 0 && rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest.max(Duration::from_millis(50))).await;
        }
    }
}
