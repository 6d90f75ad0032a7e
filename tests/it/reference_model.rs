//! Random calls, and what the contract says of each: a small model of the lifecycle goes along with two servers on one
//! database, and after every call all three must say the same. What fails is made as short as it can be and printed.
//!
//! Time passes only where a call says so: leases are long, and what is put off is put off for an hour. A lease runs out
//! because the database is told so. Some sequences have a sweeper that takes it back at once; in the others an outage of
//! a day has just ended, so that leases hold on although they ran out.

use bson::{DateTime, Document, doc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use task_repo_tests::TestServer;

use crate::reference_task::{Edit, Verb};
use crate::reference_walk::{Call, Walk};

/// How many sequences of calls are tried: about ten seconds.
const SEQUENCES: u32 = 32;
/// Calls of one sequence, at most.
const CALLS: usize = 60;
/// In milliseconds.
const DAY: i64 = 86_400_000;

fn verbs() -> impl Strategy<Value = Verb> {
    prop_oneof![
        2 => Just(Verb::Complete),
        3 => any::<bool>().prop_map(|never| Verb::Fail { never }),
        3 => any::<bool>().prop_map(|delayed| Verb::Release { delayed }),
        1 => Just(Verb::Acknowledge),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    let edits =
        prop_oneof![Just(Edit::Priority), Just(Edit::MaxAttempts), Just(Edit::Later), Just(Edit::Now)];
    // Few tasks, so that much happens to each.
    prop_oneof![
        4 => (0..=2_u8, prop::bool::weighted(0.2), 1..=5_u8)
            .prop_map(|(priority, delayed, max_attempts)| Call::Create { priority, delayed, max_attempts }),
        4 => Just(Call::ClaimNext { limit: 1, has_id: false }),
        4 => (1..4_usize).prop_map(|limit| Call::ClaimNext { limit, has_id: true }),
        3 => (0..4_usize).prop_map(Call::ClaimAgain),
        4 => (0..8_usize).prop_map(Call::Claim),
        12 => (0..16_usize, verbs()).prop_map(|(token, verb)| Call::Settle(token, verb)),
        3 => prop::array::uniform3((0..16_usize, verbs())).prop_map(Call::SettleMany),
        4 => (0..16_usize, prop::option::of(0..=2_u8))
            .prop_map(|(token, progress)| Call::Heartbeat { token, progress }),
        2 => (0..8_usize, verbs()).prop_map(|(task, verb)| Call::StrangeToken { task, verb }),
        4 => (0..8_usize).prop_map(Call::Cancel),
        6 => (0..8_usize).prop_map(Call::Execute),
        6 => (0..8_usize, edits).prop_map(|(task, edit)| Call::Edit(task, edit)),
        1 => (0..8_usize, any::<bool>()).prop_map(|(task, force)| Call::Delete { task, force }),
        8 => (0..4_usize).prop_map(Call::ClaimAndDrop),
        4 => (0..8_usize).prop_map(Call::RunOut),
        3 => (0..8_usize).prop_map(Call::CompleteLate),
    ]
}

/// Two servers on one database.
async fn pair() -> [TestServer; 2] {
    let one = TestServer::start_with(|settings| settings.tasks.sweep_interval_ms = 50).await;
    let other = one.sibling().await;
    [one, other]
}

/// The same, and every lease holds on for as long as it is, although it ran out.
async fn pair_after_an_outage() -> [TestServer; 2] {
    let server = TestServer::start().await;
    let records = server.database().collection::<Document>("tasks_pulse");
    let one = server
        .restart_after(async {
            let outage = doc! { "ended_at": DateTime::now(), "lasted_ms": DAY };
            let update = doc! { "$set": { "outage": outage } };
            records.update_one(doc! { "_id": "leases" }, update).upsert(true).await.expect("an answer");
        })
        .await;
    let other = one.sibling().await;
    [one, other]
}

#[test]
fn random_calls_do_what_the_contract_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (swept, held) = runtime.block_on(async { (pair().await, pair_after_an_outage().await) });
    let config =
        Config { cases: SEQUENCES, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let sequences = (any::<bool>(), any::<bool>(), vec((0..2_usize, calls()), 1..CALLS));
    let outcome = TestRunner::new(config).run(&sequences, |(is_swept, is_one, calls)| {
        let servers = if is_swept { &swept } else { &held };
        runtime.block_on(async {
            let mut walk = Walk::new(servers, is_swept, is_one && !is_swept);
            for (server, call) in calls {
                walk.step(if is_one { 0 } else { server }, call).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
