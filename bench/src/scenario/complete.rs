//! Completing claimed tasks.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, Load, Step, closed_loop};
use crate::work::{QUEUE, complete, fill_queue, take};

/// One task a call.
pub(crate) async fn singles(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(6_000, 60_000);
    let stage = bench.stage(1).await?;
    fill_queue(stage.client(), QUEUE, count).await?;
    let held = Arc::new(Mutex::new(take(stage.client(), count).await?));
    let sample = closed_loop(&stage.processes, Load::of(CALLERS, bench.time()), move |_| {
        let claimed = held.lock().unwrap_or_else(PoisonError::into_inner).pop();
        async move {
            let Some(claimed) = claimed else { return Ok(Step::Done) };
            complete(claimed).await?;
            Ok(Step::Did(1))
        }
    })
    .await?;
    stage.close(sample).await
}
