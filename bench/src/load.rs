//! Callers in a closed loop: each sends its next call when the last one is answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::meter::{Meter, Processes, Usage};

/// Callers of most scenarios and of the raw limits of single calls: the same, so that the two can be compared.
pub(crate) const CALLERS: usize = 64;

/// How many call, and until when. Whatever limit is met first ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Callers at once.
    pub(crate) callers: usize,
    /// Calls of each before the clock starts: connections are made and caches filled by then.
    pub(crate) warm_up: u32,
    /// Calls of all together.
    pub(crate) calls: u64,
    /// Time.
    pub(crate) time: Duration,
}

impl Load {
    /// That many callers for that long.
    pub(crate) fn of(callers: usize, time: Duration) -> Self {
        Self { callers, warm_up: 3, calls: u64::MAX, time }
    }

    /// Ends after that many calls, if time has not run out by then.
    pub(crate) fn up_to(self, calls: u64) -> Self {
        Self { calls, ..self }
    }

    /// Every call counts, from the first on.
    pub(crate) fn without_warm_up(self) -> Self {
        Self { warm_up: 0, ..self }
    }
}

/// What a call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// So many things were done.
    Did(u64),
    /// Something was done that is not counted.
    Uncounted,
    /// There is nothing left to do.
    NothingLeft,
}

impl CallOutcome {
    /// So many things were done; none: there is nothing left to do.
    pub(crate) fn counted(things: usize) -> Self {
        if things == 0 { Self::NothingLeft } else { Self::Did(things as u64) }
    }
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Things done.
    pub(crate) items: u64,
    /// From the first call to the last answer.
    pub(crate) elapsed: Duration,
    /// Of the calls that did things, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Processor time used meanwhile.
    pub(crate) usage: Usage,
}

impl Sample {
    /// Things done in a second.
    #[expect(clippy::cast_precision_loss, reason = "nobody does 2⁵² things here")]
    pub(crate) fn per_second(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Several runs of the same as one.
    pub(crate) fn of_all(samples: Vec<Self>) -> Result<Self> {
        let none =
            Self { items: 0, elapsed: Duration::ZERO, latencies: histogram()?, usage: Usage::default() };
        samples.into_iter().try_fold(none, |mut all, sample| {
            all.items += sample.items;
            all.elapsed += sample.elapsed;
            all.latencies.add(&sample.latencies)?;
            all.usage += sample.usage;
            Ok(all)
        })
    }
}

/// A histogram of microseconds, up to a minute, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// A time in whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Runs `call` with each caller's number again and again. The first error ends it.
pub(crate) async fn closed_loop<F, R>(processes: &Processes, load: Load, call: F) -> Result<Sample>
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<CallOutcome>> + Send,
{
    let begin = Arc::new(Barrier::new(load.callers + 1));
    let budget = Arc::new(AtomicU64::new(load.calls));
    let mut callers = JoinSet::new();
    for number in 0..load.callers {
        let (begin, budget, call) = (Arc::clone(&begin), Arc::clone(&budget), call.clone());
        callers.spawn(async move {
            for _ in 0..load.warm_up {
                call(number).await?;
            }
            begin.wait().await;
            repeat(load.time, &budget, || call(number)).await
        });
    }
    tokio::select! {
        biased;
        _ = begin.wait() => {}
        // Nobody ends before all have begun, unless something went wrong.
        Some(ended) = callers.join_next() => { ended??; }
    }
    let meter = Meter::start(processes);
    let (mut items, mut latencies) = (0, histogram()?);
    while let Some(ended) = callers.join_next().await {
        let (done, times) = ended??;
        items += done;
        for time in times {
            latencies.saturating_record(u64::from(time));
        }
    }
    let (elapsed, usage) = meter.stop();
    Ok(Sample { items, elapsed, latencies, usage })
}

/// One caller: things done, and how long each call took in microseconds.
async fn repeat<R>(time: Duration, budget: &AtomicU64, call: impl Fn() -> R) -> Result<(u64, Vec<u32>)>
where
    R: Future<Output = Result<CallOutcome>>,
{
    let until = Instant::now() + time;
    let (mut items, mut times) = (0, Vec::new());
    let spend = |left: u64| left.checked_sub(1);
    while Instant::now() < until && budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok() {
        let sent = Instant::now();
        match call().await? {
            CallOutcome::Did(done) => {
                items += done;
                times.push(u32::try_from(micros(sent.elapsed())).unwrap_or(u32::MAX));
            }
            CallOutcome::Uncounted => {}
            CallOutcome::NothingLeft => break,
        }
    }
    Ok((items, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_loop_ends_with_its_calls_and_counts_what_they_did() {
        let load = Load::of(4, LONG).up_to(10);
        let sample =
            closed_loop(&Processes::default(), load, |_| async { Ok(CallOutcome::Did(5)) }).await.unwrap();
        assert_eq!((sample.items, sample.latencies.len()), (50, 10));
    }

    #[tokio::test]
    async fn a_loop_ends_when_nothing_is_left_and_sets_asides_apart() {
        let left = Arc::new(AtomicU64::new(7));
        let call = move |_| {
            let left = Arc::clone(&left);
            async move {
                Ok(match left.fetch_sub(1, Ordering::Relaxed) {
                    7 => CallOutcome::Uncounted,
                    1 => CallOutcome::NothingLeft,
                    _ => CallOutcome::Did(1),
                })
            }
        };
        let sample =
            closed_loop(&Processes::default(), Load::of(1, LONG).without_warm_up(), call).await.unwrap();
        assert_eq!((sample.items, sample.latencies.len()), (5, 5));
    }

    #[tokio::test]
    async fn an_error_ends_the_loop_also_in_the_warm_up() {
        let fail = |number| async move {
            anyhow::ensure!(number != 2, "broken");
            Ok(CallOutcome::Did(1))
        };
        let error = closed_loop(&Processes::default(), Load::of(4, LONG), fail).await.unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
