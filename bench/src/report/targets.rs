//! What was aimed at, as ratios within one run. Shown, never asserted.

use serde::{Deserialize, Serialize};

use super::figure::Figure;

/// Something aimed at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// What is looked at.
    pub(crate) what: String,
    /// What it should be.
    pub(crate) wanted: String,
    /// What it is; absent: it was not measured in this run.
    pub(crate) found: Option<String>,
    /// Whether that is good enough.
    pub(crate) reached: Option<bool>,
}

/// Scenarios with the ratio to their limit that they should have.
const RATIOS: [(&str, &str, f64); 8] = [
    ("create-64", "single creates, 64 callers, to insertOne", 3.5),
    ("claim-64", "single claims, 64 workers, to findOneAndUpdate", 8.0),
    ("complete-64", "single completions, 64 workers, to updateOne", 2.5),
    ("life-batch", "whole lives in batches, to the raw pipeline", 0.6),
    ("life-64", "whole lives one by one, to the raw pipeline", 0.35),
    ("drain", "draining in batches, to raw claims and settlements", 0.7),
    ("backlog-1m", "claims at 1 000 000 ready, to those at 10 000", 0.8),
    ("scheduled-1m", "claims beside 1 000 000 due later, to those at 10 000", 0.9),
];

/// Two servers may be this much slower than the better of one.
const TWO_SERVERS: f64 = 0.9;

/// Compares the figures with what was aimed at.
pub(crate) fn judge(figures: &[Figure]) -> Vec<Target> {
    let figure = |name: &str| figures.iter().find(|figure| figure.name == name);
    let ratio = |name: &str| figure(name)?.limit.as_ref().map(|limit| limit.ratio);
    let mut targets: Vec<_> =
        RATIOS.iter().map(|(name, what, wanted)| at_least(what, *wanted, ratio(name))).collect();
    let round_trip = figure("raw-round-trip").and_then(|raw| raw.latency.as_ref()).map(|raw| raw.p50);
    let wake = figure("wake-up").and_then(|figure| figure.latency.as_ref()).zip(round_trip);
    targets.push(below(
        "wake-up, p50, in journaled round trips",
        "≤ 3",
        3.0,
        wake.map(|(wake, round_trip)| wake.p50 / round_trip),
    ));
    targets.push(below(
        "wake-up, p99, in journaled round trips",
        "≤ 10",
        10.0,
        wake.map(|(wake, round_trip)| wake.p99 / round_trip),
    ));
    let waiting =
        figure("waiting").filter(|figure| figure.note("waiting").is_some_and(|count| count >= 9_000.0));
    let note = |name| waiting.and_then(|figure| figure.note(name));
    targets.push(below("10 000 waiting, percent of a core", "< 5", 5.0, note("server_core_percent")));
    let operations = note("database_operations_per_second");
    targets.push(below("10 000 waiting, database operations per second", "< 20", 20.0, operations));
    let two = ["two-servers-claim-64", "two-servers-drain"].map(ratio);
    let worse = two.into_iter().flatten().reduce(f64::min);
    targets.push(at_least("two servers, to the better of one", TWO_SERVERS, worse));
    let memory = figures.iter().filter_map(|figure| figure.note("server_peak_mib")).reduce(f64::max);
    targets.push(below("memory of a server at most, MiB", "< 256", 256.0, memory));
    targets
}

fn at_least(what: &str, wanted: f64, found: Option<f64>) -> Target {
    target(what, format!("≥ {wanted}"), found, |found| found >= wanted)
}

fn below(what: &str, words: &str, limit: f64, found: Option<f64>) -> Target {
    target(what, words.to_owned(), found, |found| found < limit)
}

fn target(what: &str, wanted: String, found: Option<f64>, reached: impl Fn(f64) -> bool) -> Target {
    Target {
        what: what.to_owned(),
        wanted,
        found: found.map(|found| format!("{found:.2}")),
        reached: found.map(reached),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Limit;

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        assert!(judge(&[]).iter().all(|target| target.reached.is_none() && target.found.is_none()));
    }

    #[test]
    fn a_ratio_is_held_against_its_target() {
        let limit = Limit { name: "raw".into(), per_second: 100.0, ratio: 3.6 };
        let figure = Figure { name: "create-64".into(), limit: Some(limit), ..Figure::default() };
        let targets = judge(&[figure]);
        assert_eq!(targets[0].reached, Some(true));
        assert_eq!(targets[0].found.as_deref(), Some("3.60"));
        assert_eq!(targets[1].reached, None);
    }
}
