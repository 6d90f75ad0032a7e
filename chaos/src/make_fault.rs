//! Making a fault: it is broken, left so for a while, and mended.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::Utc;
use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::callers::{overload, send_corpus, send_slowly, server_time, vanish};
use crate::cluster::{Cluster, MEMBERS};
use crate::fault::Fault;
use crate::load::Load;
use crate::proxy::FaultRates;
use crate::workload::LEASE;
use crate::world::World;

/// Callers that vanish at once.
const VANISHING: u64 = 200;
/// How long a fault of requests or commands lasts.
const FAULT_DURATION: Duration = Duration::from_secs(4);

/// Breaks it, waits, and mends it as far as it does not mend itself. How often it had an effect, where it knows:
/// others show by calls that fail or take long.
pub(crate) async fn make(
    fault: Fault,
    world: &World,
    load: &Load,
    rng: &mut SmallRng,
) -> Result<Option<u64>> {
    Ok(match fault {
        Fault::ServerKill => {
            world.kill_server(rng.random_range(0..world.servers())).await?;
            None
        }
        Fault::PrimaryKill => {
            let primary = world.cluster.primary().await?;
            world.cluster.kill(primary).await?;
            tokio::time::sleep(Duration::from_secs(15)).await;
            world.cluster.restart(primary).await?;
            None
        }
        Fault::PrimaryFreeze => {
            let primary = world.cluster.primary().await?;
            world.cluster.freeze(primary).await?;
            tokio::time::sleep(Duration::from_secs(20)).await;
            world.cluster.thaw(primary).await?;
            None
        }
        Fault::SecondariesDown => {
            secondaries_down(&world.cluster).await?;
            None
        }
        Fault::AllMongodsKill => {
            for member in 0..MEMBERS {
                world.cluster.kill(member).await?;
            }
            tokio::time::sleep(seconds(0..=3, rng)).await;
            for member in 0..MEMBERS {
                world.cluster.restart(member).await?;
            }
            None
        }
        Fault::DiskFull => {
            full_disks(&world.cluster, seconds(4..=8, rng)).await?;
            None
        }
        Fault::Calm => {
            tokio::time::sleep(FAULT_DURATION).await;
            None
        }
        Fault::CommandsFail => Some(failing_commands(&world.cluster, rng).await?),
        Fault::PoolExhausted => Some(slow_database(world, load, rng.random()).await?),
        Fault::LostAnswers => {
            Some(disturb_requests(world, FaultRates { lost_answer: 0.3, ..FaultRates::default() }).await?)
        }
        Fault::CutOff => {
            Some(disturb_requests(world, FaultRates { cut_off: 0.3, ..FaultRates::default() }).await?)
        }
        Fault::Doubled => {
            Some(disturb_requests(world, FaultRates { doubled: 0.5, ..FaultRates::default() }).await?)
        }
        Fault::VanishingCallers => {
            let port = world.port(rng.random_range(0..world.servers()));
            let callers = (0..VANISHING).map(|_| vanish(port, load.history(), rng.random()));
            Some(count(&join_all(callers).await))
        }
        Fault::WorkersKill => Some(world.kill_workers(seconds(0..=2, rng), rng).await?),
        Fault::WorkersFreeze => Some(world.freeze_workers(LEASE * 2).await?),
        Fault::SlowCallers => {
            let port = world.port(rng.random_range(0..world.servers()));
            Some(count(&join_all((0..30).map(|number| send_slowly(port, number, FAULT_DURATION))).await))
        }
        Fault::ServerClock => {
            let server = rng.random_range(0..world.servers());
            Some(wrong_server_clock(world, server, rng).await?)
        }
        Fault::MemberClock => Some(wrong_primary_clock(&world.cluster, rng).await?),
        Fault::OddPayloads => {
            // A server that does not answer must be one that these payloads have ended.
            world.ready().await?;
            let port = world.port(rng.random_range(0..world.servers()));
            Some(send_corpus(port, load.history(), rng.random()).await)
        }
    })
}

fn seconds(range: std::ops::RangeInclusive<u64>, rng: &mut SmallRng) -> Duration {
    Duration::from_millis(rng.random_range(range.start() * 1000..=range.end() * 1000))
}

fn count(had_effect: &[bool]) -> u64 {
    had_effect.iter().filter(|had_effect| **had_effect).count() as u64
}

async fn secondaries_down(cluster: &Cluster) -> Result<()> {
    let primary = cluster.primary().await?;
    let others: Vec<_> = (0..MEMBERS).filter(|member| *member != primary).collect();
    for member in &others {
        cluster.kill(*member).await?;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    // What only the primary has must not come back with it: whoever was told of it has lost it then.
    cluster.kill(primary).await?;
    for member in others {
        cluster.restart(member).await?;
    }
    cluster.primary().await?;
    cluster.restart(primary).await
}

/// The number of commands that failed.
async fn failing_commands(cluster: &Cluster, rng: &mut SmallRng) -> Result<u64> {
    cluster.fail_commands(doc! { "activationProbability": 0.3 }, failure(rng)).await?;
    tokio::time::sleep(FAULT_DURATION).await;
    cluster.heal_commands().await
}

/// A server's clock is an hour fast or slow for a while.
async fn wrong_server_clock(world: &World, server: usize, rng: &mut SmallRng) -> Result<u64> {
    let ahead = if rng.random() { 3600 } else { -3600 };
    world.set_server_clock(server, ahead).await?;
    tokio::time::sleep(seconds(4..=8, rng)).await;
    // One that found no database when it started has ended, and is started again.
    world.ready().await?;
    let error = server_time(world.port(server)).await?.signed_duration_since(Utc::now()).num_seconds();
    ensure!(error.abs_diff(ahead) < 60, "the server's clock is {error} s ahead instead of {ahead}");
    world.set_server_clock(server, 0).await?;
    Ok(1)
}

/// A member with a wrong clock becomes the primary.
async fn wrong_primary_clock(cluster: &Cluster, rng: &mut SmallRng) -> Result<u64> {
    let primary = cluster.primary().await?;
    let wrong = (primary + rng.random_range(1..MEMBERS)) % MEMBERS;
    let ahead = if rng.random() { 300 } else { -300 };
    cluster.set_clock(wrong, ahead).await?;
    cluster.promote(wrong).await?;
    let error = cluster.clock_error(wrong).await?;
    ensure!(error.abs_diff(ahead) < 60, "the member's clock is {error} s ahead instead of {ahead}");
    tokio::time::sleep(seconds(6..=10, rng)).await;
    cluster.set_clock(wrong, 0).await?;
    Ok(1)
}

async fn full_disks(cluster: &Cluster, how_long: Duration) -> Result<()> {
    cluster.fill_disks()?;
    // By itself one comes once a minute, and until then the database has room.
    cluster.make_checkpoints().await;
    tokio::time::sleep(how_long).await;
    cluster.free_disks()?;
    for member in 0..MEMBERS {
        // A database that cannot write its journal ends.
        cluster.restart(member).await?;
    }
    Ok(())
}

/// The number of commands that were slow.
async fn slow_database(world: &World, load: &Load, seed: u32) -> Result<u64> {
    let slow = doc! {
        "failCommands": ["insert", "update", "find"], "namespace": "chaos.tasks",
        "blockConnection": true, "blockTimeMS": 500,
    };
    world.cluster.fail_commands(doc! { "activationProbability": 1.0 }, slow).await?;
    overload(world, load, seed, Instant::now() + FAULT_DURATION).await?;
    world.cluster.heal_commands().await
}

/// One way in which commands fail: one of those that are always on their way, and any others.
fn failure(rng: &mut SmallRng) -> Document {
    let mut is_of_writes = false;
    let mut data = match rng.random_range(0..4) {
        0 => doc! { "closeConnection": true },
        1 => doc! { "errorCode": 91, "errorLabels": ["RetryableWriteError"] },
        2 => {
            is_of_writes = true;
            doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down", "codeName": "ShutdownInProgress" } }
        }
        _ => doc! { "blockConnection": true, "blockTimeMS": 3000 },
    };
    let mut commands = vec![if is_of_writes || rng.random() { "update" } else { "find" }];
    commands.extend(["insert", "update", "find", "distinct"].iter().filter(|_| rng.random::<bool>()));
    data.insert("failCommands", commands);
    data
}

/// The number of requests that did not just pass.
async fn disturb_requests(world: &World, rates: FaultRates) -> Result<u64> {
    let before = world.faulty_requests();
    world.set_fault_rates(rates);
    tokio::time::sleep(FAULT_DURATION).await;
    world.set_fault_rates(FaultRates::default());
    Ok(world.faulty_requests() - before)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn what_fails_is_always_a_command_that_can_fail_so() {
        for seed in 0..1000 {
            let failure = failure(&mut SmallRng::seed_from_u64(seed));
            let commands = failure.get_array("failCommands").expect("commands");
            // A read has no write concern.
            let has_one = |name: &str| commands.iter().any(|command| command.as_str() == Some(name));
            assert!(has_one("update") || (has_one("find") && !failure.contains_key("writeConcernError")));
        }
    }
}
