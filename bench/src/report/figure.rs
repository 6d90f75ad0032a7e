//! What one scenario found.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::bench::Measured;
use crate::meter::Usage;
use crate::plan::Scenario;

/// Steps of the histogram in which a time grows by ten.
const STEPS_PER_DECADE: f64 = 10.0;

/// What one scenario found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The scenario's name.
    pub(crate) name: String,
    /// What it measures.
    pub(crate) title: String,
    /// Tasks per second; absent where there is no rate.
    pub(crate) per_second: Option<f64>,
    /// Tasks.
    pub(crate) tasks: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Of the calls.
    pub(crate) latency: Option<Latency>,
    /// What it is compared with.
    pub(crate) limit: Option<Limit>,
    /// Most resident memory of a server at the end, in MiB.
    pub(crate) server_mib: Option<u64>,
    /// Processor time, in seconds.
    pub(crate) usage: Usage,
    /// What else there is to know, by name.
    pub(crate) notes: BTreeMap<String, f64>,
}

/// Of the calls, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half of them were faster.
    pub(crate) p50: f64,
    /// 90 in 100.
    pub(crate) p90: f64,
    /// 99 in 100.
    pub(crate) p99: f64,
    /// 999 in 1 000.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
    /// Up to that many milliseconds, so many calls; empty steps are left out.
    pub(crate) histogram: Vec<(f64, u64)>,
}

/// What a figure is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    /// Its name.
    pub(crate) name: String,
    /// Its tasks per second.
    pub(crate) per_second: f64,
    /// The figure's share of it.
    pub(crate) ratio: f64,
}

impl Figure {
    /// What `scenario` found, compared with `limit`.
    pub(crate) fn of(scenario: &Scenario, measured: Measured, limit: Option<&Self>) -> Self {
        let sample = measured.sample.as_ref();
        let per_second = sample.filter(|sample| sample.items > 0).map(crate::load::Sample::per_second);
        let other = limit.and_then(|limit| Some((limit.name.as_str(), limit.per_second?)));
        let limit = measured.limit.or(other).zip(per_second).map(|((name, limit), found)| Limit {
            name: name.to_owned(),
            per_second: limit,
            ratio: found / limit.max(f64::MIN_POSITIVE),
        });
        Self {
            name: scenario.name.to_owned(),
            title: scenario.title.to_owned(),
            per_second,
            tasks: sample.map_or(0, |sample| sample.items),
            seconds: sample.map_or(0.0, |sample| sample.elapsed.as_secs_f64()),
            latency: sample.map(|sample| Latency::of(&sample.latencies)),
            limit,
            server_mib: measured.server_mib,
            usage: sample.map_or_else(Usage::default, |sample| sample.usage),
            notes: measured.notes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// Processor time for each task in microseconds: client, server, database.
    #[expect(clippy::cast_precision_loss, reason = "nobody does 2⁵² things here")]
    pub(crate) fn micros_per_task(&self) -> Option<[f64; 3]> {
        let Usage { client, server, mongod, .. } = self.usage;
        let each = |seconds: f64| seconds * 1e6 / self.tasks as f64;
        (self.tasks > 0).then(|| [client, server, mongod].map(each))
    }

    /// The share of the machine that programs had which have nothing to do with it, 0–1.
    #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
    pub(crate) fn disturbance(&self, cores: usize) -> f64 {
        let time = self.seconds * cores as f64;
        if time > 0.0 { self.usage.others / time } else { 0.0 }
    }

    /// A note's value.
    pub(crate) fn note(&self, name: &str) -> Option<f64> {
        self.notes.get(name).copied()
    }
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| millis(micros.value_at_quantile(quantile));
        let mut histogram: Vec<(f64, u64)> = Vec::new();
        for step in micros.iter_recorded() {
            let upper = upper(millis(step.value_iterated_to()));
            match histogram.last_mut() {
                Some((last, count)) if *last >= upper => *count += step.count_at_value(),
                _ => histogram.push((upper, step.count_at_value())),
            }
        }
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(micros.max()),
            histogram,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a minute at most")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The end of the histogram's step that a time falls into.
fn upper(millis: f64) -> f64 {
    let step = (millis.max(0.001).log10() * STEPS_PER_DECADE).ceil();
    (10_f64.powf(step / STEPS_PER_DECADE) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_milliseconds_in_growing_steps() {
        let mut micros = crate::load::histogram().unwrap();
        for value in [1_000, 1_000, 1_001, 20_000] {
            micros.record(value).unwrap();
        }
        let latency = Latency::of(&micros);
        assert!((latency.p50 - 1.0).abs() < 0.01, "{latency:?}");
        assert!((latency.max - 20.0).abs() < 0.1, "{latency:?}");
        assert_eq!(latency.histogram.iter().map(|step| step.1).sum::<u64>(), 4);
        assert!(latency.histogram.is_sorted_by(|a, b| a.0 < b.0), "{latency:?}");
    }

    #[test]
    fn steps_end_where_the_next_begin() {
        assert!((upper(1.0) - 1.0).abs() < 1e-9);
        assert!((upper(1.01) - 1.2589).abs() < 1e-9);
    }
}
