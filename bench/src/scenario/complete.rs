//! Completing claimed tasks.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::bench::{Bench, Measured};
use crate::load::{CALLERS, CallOutcome, Load, closed_loop};
use crate::work::{QUEUE, claim_all, complete, fill_queue};

/// One task a call.
pub(crate) async fn singles(bench: &Bench) -> Result<Measured> {
    let count = bench.pick(6_000, 60_000);
    let running = bench.start_servers(1).await?;
    fill_queue(running.client(), QUEUE, count).await?;
    let held = Arc::new(Mutex::new(claim_all(running.client(), count).await?));
    let sample = closed_loop(&running.processes, Load::of(CALLERS, bench.duration()), move |_| {
        let claimed = held.lock().unwrap_or_else(PoisonError::into_inner).pop();
        async move {
            let Some(claimed) = claimed else { return Ok(CallOutcome::NothingLeft) };
            complete(claimed).await?;
            Ok(CallOutcome::Did(1))
        }
    })
    .await?;
    running.close(sample).await
}
