//! What is broken, one thing at a time.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::cluster::MEMBERS;
use crate::load::{API_KEY, LEASE};
use crate::proxy::Weather;
use crate::world::World;

/// Callers that vanish in one go.
const VANISHING: u64 = 200;
/// How long bad weather lasts.
const SPELL: Duration = Duration::from_secs(4);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
pub(crate) enum Fault {
    /// A server is killed and started again at once
    ServerKill,
    /// The database's primary is killed and started again later
    PrimaryKill,
    /// The primary stops where it is, and goes on later
    PrimaryFreeze,
    /// Both secondaries are down: nothing can be made to last
    SecondariesDown,
    /// All members of the database are killed at once and started again
    AllMongodsKill,
    /// Commands of the database fail, hang, or are not known to last
    CommandsFail,
    /// Requests are carried out and their answers lost
    LostAnswers,
    /// Connections end before the request has arrived
    CutOff,
    /// Requests arrive two to five times
    Doubled,
    /// Callers go away while they wait for work
    VanishingCallers,
    /// Half of the worker processes are killed
    WorkersKill,
    /// Worker processes stop for longer than their leases
    WorkersFreeze,
    /// Callers who send slowly, or never read
    SlowCallers,
}

impl Fault {
    /// Breaks it, waits, and mends it as far as it does not mend itself.
    pub(crate) async fn strike(self, world: &World, dice: &mut SmallRng) -> Result<()> {
        let seconds = |range: std::ops::RangeInclusive<u64>, dice: &mut SmallRng| {
            Duration::from_millis(dice.random_range(range.start() * 1000..=range.end() * 1000))
        };
        match self {
            Self::ServerKill => world.kill_server(dice.random_range(0..world.servers())).await,
            Self::PrimaryKill => {
                let primary = world.cluster.primary().await?;
                world.cluster.kill(primary).await?;
                tokio::time::sleep(seconds(5..=15, dice)).await;
                world.cluster.restart(primary).await
            }
            Self::PrimaryFreeze => {
                let primary = world.cluster.primary().await?;
                world.cluster.freeze(primary).await?;
                tokio::time::sleep(seconds(5..=20, dice)).await;
                world.cluster.thaw(primary).await
            }
            Self::SecondariesDown => {
                let primary = world.cluster.primary().await?;
                let others: Vec<_> = (0..MEMBERS).filter(|member| *member != primary).collect();
                for member in &others {
                    world.cluster.kill(*member).await?;
                }
                tokio::time::sleep(seconds(5..=20, dice)).await;
                for member in others {
                    world.cluster.restart(member).await?;
                }
                Ok(())
            }
            Self::AllMongodsKill => {
                for member in 0..MEMBERS {
                    world.cluster.kill(member).await?;
                }
                tokio::time::sleep(seconds(0..=3, dice)).await;
                for member in 0..MEMBERS {
                    world.cluster.restart(member).await?;
                }
                Ok(())
            }
            Self::CommandsFail => {
                let all = ["insert", "update", "find"];
                let count = dice.random_range(1..=all.len());
                let commands: Vec<_> = all.sample(dice, count).copied().collect();
                let mode = doc! { "activationProbability": 0.3 };
                world.cluster.fail_commands(mode, failure(&commands, dice)).await?;
                tokio::time::sleep(SPELL).await;
                world.cluster.heal_commands().await
            }
            Self::LostAnswers => spell(world, Weather { lost_answer: 0.3, ..Weather::default() }).await,
            Self::CutOff => spell(world, Weather { cut_off: 0.3, ..Weather::default() }).await,
            Self::Doubled => spell(world, Weather { doubled: 0.5, ..Weather::default() }).await,
            Self::VanishingCallers => {
                let port = world.port(dice.random_range(0..world.servers()));
                let callers = (0..VANISHING).map(|number| vanish(port, dice.random(), number));
                join_all(callers).await;
                Ok(())
            }
            Self::WorkersKill => world.kill_workers(seconds(0..=2, dice)).await,
            Self::WorkersFreeze => world.freeze_workers(LEASE * 2).await,
            Self::SlowCallers => {
                let port = world.port(dice.random_range(0..world.servers()));
                join_all((0..30).map(|number| dawdle(port, number))).await;
                Ok(())
            }
        }
    }
}

/// One way in which commands fail.
fn failure(commands: &[&str], dice: &mut SmallRng) -> Document {
    let mut data = doc! { "failCommands": commands, "namespace": "chaos.tasks" };
    data.extend(match dice.random_range(0..4) {
        0 => doc! { "closeConnection": true },
        1 => doc! { "errorCode": 91, "errorLabels": ["RetryableWriteError"] },
        2 => doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down", "codeName": "ShutdownInProgress" } },
        _ => doc! { "blockConnection": true, "blockTimeMS": 3000 },
    });
    data
}

async fn spell(world: &World, weather: Weather) -> Result<()> {
    world.set_weather(weather);
    tokio::time::sleep(SPELL).await;
    world.set_weather(Weather::default());
    Ok(())
}

/// Asks for work, waits a moment, and is gone. That it fails is no news.
async fn vanish(port: u16, seed: u64, number: u64) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let body = format!(
        r#"{{"task_types":["chaos.a","chaos.b"],"worker_id":"ghost-{number}","limit":3,"wait_ms":5000}}"#
    );
    let request = format!(
        "POST /api/v1/tasks/claim HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::time::sleep(Duration::from_millis(dice.random_range(0..500))).await;
    if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        let _ = stream.write_all(request.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..=20))).await;
        if dice.random_bool(0.5) {
            // With a reset instead of an orderly end.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Sends a head or a body a few bytes at a time, or asks and never reads.
async fn dawdle(port: u16, number: u32) {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let head = format!("POST /api/v1/tasks HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\n");
    let text = match number % 3 {
        0 => head,
        1 => format!("{head}content-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"),
        _ => format!(
            "GET /api/v1/tasks?status=any&limit=100&include=payload HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\n\r\n"
        ),
    };
    for piece in text.as_bytes().chunks(16) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    tokio::time::sleep(SPELL).await;
}
