//! Creating tasks.

use anyhow::Result;

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, Load, Step, closed_loop};
use crate::work::{BATCH, QUEUE, TEXT, create_all, task};

/// Batches on their way at once.
const IN_FLIGHT: usize = 2;

/// Calls that are answered without a look at the body or the database: what client, HTTP and server cost by themselves.
pub(crate) async fn idle_calls(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let client = stage.client().clone();
    let sample = closed_loop(&stage.processes, Load::of(CALLERS, bench.time()), move |_| {
        let client = client.clone();
        async move {
            client.health().await?;
            Ok(Step::Did(1))
        }
    })
    .await?;
    stage.close(sample).await
}

/// One task a call.
pub(crate) async fn singles(bench: &Bench, callers: usize) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let (client, task) = (stage.client().clone(), task(QUEUE, TEXT)?);
    let sample = closed_loop(&stage.processes, Load::of(callers, bench.time()), move |_| {
        let (client, task) = (client.clone(), task.clone());
        async move {
            client.create_task(&task).await?;
            Ok(Step::Did(1))
        }
    })
    .await?;
    stage.close(sample).await
}

/// 500 tasks a call.
pub(crate) async fn batches(bench: &Bench) -> Result<Measured> {
    let stage = bench.stage(1).await?;
    let (client, tasks) = (stage.client().clone(), vec![task(QUEUE, TEXT)?; BATCH]);
    let sample = closed_loop(&stage.processes, Load::of(IN_FLIGHT, bench.time()), move |_| {
        let (client, tasks) = (client.clone(), tasks.clone());
        async move {
            create_all(&client, &tasks).await?;
            Ok(Step::counted(BATCH))
        }
    })
    .await?;
    stage.close(sample).await
}
