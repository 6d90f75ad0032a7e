//! Creating tasks.

use anyhow::Result;

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, CallOutcome, Load, closed_loop};
use crate::work::{BATCH, QUEUE, TEXT_CHARS, create_all, task};

/// Batches on their way at once.
const IN_FLIGHT: usize = 2;

/// Calls that are answered without reading a body or the database: what client, HTTP and server cost by themselves.
pub(crate) async fn idle_calls(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let client = running.client().clone();
    let sample = closed_loop(&running.processes, Load::of(CALLERS, bench.duration()), move |_| {
        let client = client.clone();
        async move {
            client.health().await?;
            Ok(CallOutcome::Did(1))
        }
    })
    .await?;
    running.close(sample).await
}

/// One task a call.
pub(crate) async fn singles(bench: &Bench, callers: usize) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let (client, task) = (running.client().clone(), task(QUEUE, TEXT_CHARS)?);
    let sample = closed_loop(&running.processes, Load::of(callers, bench.duration()), move |_| {
        let (client, task) = (client.clone(), task.clone());
        async move {
            client.create_task(&task).await?;
            Ok(CallOutcome::Did(1))
        }
    })
    .await?;
    running.close(sample).await
}

/// 500 tasks a call.
pub(crate) async fn batches(bench: &Bench) -> Result<Measured> {
    let running = bench.start_servers(1).await?;
    let (client, tasks) = (running.client().clone(), vec![task(QUEUE, TEXT_CHARS)?; BATCH]);
    let sample = closed_loop(&running.processes, Load::of(IN_FLIGHT, bench.duration()), move |_| {
        let (client, tasks) = (client.clone(), tasks.clone());
        async move {
            create_all(&client, &tasks).await?;
            Ok(CallOutcome::counted(BATCH))
        }
    })
    .await?;
    running.close(sample).await
}
