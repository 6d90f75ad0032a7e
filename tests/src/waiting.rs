//! Waiting for something that another party does.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits before it calls the test failed: far beyond anything the contract promises, so that
/// a slow machine fails nothing.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Asks again and again until `check` says yes; panics with `what` when it never does.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !check().await {
        assert!(started.elapsed() < MAX_WAIT, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs `work` to its end on a thread and runtime of its own, because `Drop` cannot await.
pub(crate) fn run_elsewhere<F, W>(work: F)
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = ()>,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
    });
    // A panic there has printed its message, and panicking while a failed test unwinds would hide the test's own.
    let _ = thread.join();
}
