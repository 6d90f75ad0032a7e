//! The scenarios by name, in their order. A raw limit stands right before the scenarios that are compared with it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::bench::{Bench, Measured};
use crate::{raw, scenario};

type Work = Box<dyn Fn(Arc<Bench>) -> BoxFuture<'static, Result<Measured>> + Send + Sync>;

/// Something to measure.
pub(crate) struct Scenario {
    /// What it is called on the command line, in results and here.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) title: &'static str,
    /// What it is compared with.
    pub(crate) limit: Option<&'static str>,
    /// Left out of quick runs.
    pub(crate) is_long: bool,
    work: Work,
}

impl Scenario {
    /// Measures it.
    pub(crate) async fn run(&self, bench: &Arc<Bench>) -> Result<Measured> {
        (self.work)(Arc::clone(bench)).await
    }

    fn against(self, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..self }
    }

    fn long(self) -> Self {
        Self { is_long: true, ..self }
    }
}

/// `entry!("name", "title", |bench| future)`: a closure that borrows the bench for its own future.
macro_rules! entry {
    ($name:literal, $title:literal, |$bench:ident| $work:expr) => {
        Scenario {
            name: $name,
            title: $title,
            limit: None,
            is_long: false,
            work: Box::new(|bench: Arc<Bench>| {
                async move {
                    let $bench = &*bench;
                    $work.await
                }
                .boxed()
            }),
        }
    };
}

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    [singles(), batches(), whole_lives(), many()].into_iter().flatten().collect()
}

fn singles() -> Vec<Scenario> {
    vec![
        entry!("raw-round-trip", "insertOne, 1 caller", |b| raw::round_trip(b)),
        entry!("http-64", "calls that are answered without any work, 64 callers", |b| scenario::idle_calls(
            b
        )),
        entry!("wake-up", "create until the waiting worker has it", |b| scenario::wake(b)),
        entry!("create-1", "creates, 1 caller", |b| scenario::creates(b, 1)).against("raw-round-trip"),
        entry!("raw-insert-one-64", "insertOne, 64 callers", |b| raw::inserts(b)),
        entry!("create-64", "creates, 64 callers", |b| scenario::creates(b, 64)).against("raw-insert-one-64"),
        entry!("create-256", "creates, 256 callers", |b| scenario::creates(b, 256))
            .against("raw-insert-one-64"),
        entry!("raw-claim-one-64", "sorted findOneAndUpdate, 64 callers", |b| raw::claims(b)),
        entry!("claim-64", "claims, 64 workers", |b| scenario::claims(b)).against("raw-claim-one-64"),
        entry!("claim-64-1000-types", "claims from 1 000 queues, 64 workers", |b| scenario::claims_of_types(
            b
        ))
        .against("raw-claim-one-64"),
        entry!("raw-complete-one-64", "updateOne by id, 64 callers", |b| raw::completions(b)),
        entry!("complete-64", "completions, 64 workers", |b| scenario::completions(b))
            .against("raw-complete-one-64"),
    ]
}

fn batches() -> Vec<Scenario> {
    vec![
        entry!("raw-insert-batch", "insertMany of 500, 2 in flight", |b| raw::insert_batches(b)),
        entry!("create-batch", "creates of 500, 2 in flight", |b| scenario::create_batches(b))
            .against("raw-insert-batch"),
        entry!("raw-claim-batch", "sorted read and updateMany of 500, 2 in flight", |b| raw::claim_batches(
            b
        )),
        entry!("claim-batch-100", "claims of 100, 2 in flight", |b| scenario::claim_batches(b, 100))
            .against("raw-claim-batch")
            .long(),
        entry!("claim-batch-500", "claims of 500, 2 in flight", |b| scenario::claim_batches(b, 500))
            .against("raw-claim-batch"),
        entry!("raw-settle-batch", "update of 200 statements, 2 in flight", |b| raw::settle_batches(b)),
        entry!("raw-drain", "batch claims and settlements at once", |b| raw::drain(b)),
        entry!("drain", "outcomes with claim-next of 250, 4 workers", |b| scenario::drain(b))
            .against("raw-drain"),
    ]
}

fn whole_lives() -> Vec<Scenario> {
    vec![
        entry!("raw-pipeline", "batch inserts, claims and settlements at once", |b| raw::lives(b)),
        entry!("life-batch", "whole lives in batches", |b| scenario::lives_in_batches(b))
            .against("raw-pipeline"),
        entry!("life-64", "whole lives one by one, 64 workers", |b| scenario::lives(b))
            .against("raw-pipeline"),
        entry!("feed-closed-life-batch", "whole lives in batches while no server reads the feed", |b| {
            scenario::lives_in_batches_without_feed(b)
        }),
        entry!("feed-closed-life-64", "whole lives one by one while no server reads the feed", |b| {
            scenario::lives_without_feed(b)
        }),
        entry!("payload-200-b", "whole lives, 200 bytes, 16 workers", |b| scenario::payload(b, 200)),
        entry!("payload-2-kib", "whole lives, 2 KiB, 16 workers", |b| scenario::payload(b, 2 << 10)).long(),
        entry!("payload-20-kib", "whole lives, 20 KiB, 16 workers", |b| scenario::payload(b, 20 << 10))
            .long(),
        entry!("payload-200-kib", "whole lives, 200 KiB, 16 workers", |b| scenario::payload(b, 200 << 10)),
    ]
}

fn many() -> Vec<Scenario> {
    vec![
        entry!(
            "two-servers-claim-64",
            "claims on two servers, 64 workers",
            |b| scenario::two_servers_claims(b)
        ),
        entry!("two-servers-drain", "draining on two servers, 4 workers", |b| scenario::two_servers_drain(b)),
        entry!("two-servers-wake-up", "waking a worker on the other server", |b| scenario::wake_elsewhere(b)),
        entry!("waiting", "10 000 waiting claims, idle server", |b| scenario::waiting(b)),
        entry!("waiting-tags-500", "500 claims that wait with a tag each, waking some", |b| {
            scenario::waiting_with_tags(b, 500)
        }),
        entry!("waiting-tags-1000", "1 000 claims that wait with a tag each, waking some", |b| {
            scenario::waiting_with_tags(b, 1_000)
        }),
        entry!("backlog-10k", "claims, 64 workers, 10 000 ready", |b| scenario::shortest_backlog(b)),
        entry!("backlog-100k", "claims, 64 workers, 100 000 ready", |b| scenario::backlog(b, 100_000)).long(),
        entry!("backlog-1m", "claims, 64 workers, 1 000 000 ready", |b| scenario::backlog(b, 1_000_000))
            .long(),
        entry!("scheduled-1m", "claims, 64 workers, 1 000 000 due later", |b| scenario::scheduled(
            b, 1_000_000
        ))
        .long(),
    ]
}

/// Those of a run: all, or those whose names begin with one of `wanted`, with the limits that they are compared with.
pub(crate) fn choose(quick: bool, wanted: &[String]) -> Result<Vec<Scenario>> {
    let all = all();
    if wanted.is_empty() {
        return Ok(all.into_iter().filter(|scenario| !(quick && scenario.is_long)).collect());
    }
    let is_wanted = |name: &str| wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
    for name in wanted {
        let known: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        let is_known = known.iter().any(|known| known.starts_with(name.as_str()));
        ensure!(is_known, "there is no scenario {name}; there are: {}", known.join(", "));
    }
    let chosen = all.iter().filter(|scenario| is_wanted(scenario.name));
    let limits: Vec<_> =
        chosen.flat_map(|scenario| [Some(scenario.name), scenario.limit]).flatten().collect();
    Ok(all.into_iter().filter(|scenario| limits.contains(&scenario.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(quick: bool, wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        choose(quick, &wanted).unwrap().iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn a_limit_comes_with_its_scenario_and_before_it() {
        assert_eq!(names(true, &["create-6"]), ["raw-insert-one-64", "create-64"]);
        let all = names(false, &[]);
        for scenario in super::all() {
            let place = |name| all.iter().position(|other| *other == name).unwrap();
            assert!(
                scenario.limit.is_none_or(|limit| place(limit) < place(scenario.name)),
                "{}",
                scenario.name
            );
        }
    }

    #[test]
    fn quick_leaves_out_what_is_long_unless_it_is_named() {
        assert!(!names(true, &[]).contains(&"backlog-1m"));
        assert!(names(true, &["backlog-1m"]).contains(&"backlog-1m"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = choose(true, &["nothing".to_owned()]).err().unwrap();
        assert!(error.to_string().contains("raw-pipeline"));
    }
}
