//! A MongoDB replica set of three members on the loopback address.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use mongodb::Client;
use mongodb::bson::{DateTime, Document, doc};
use tokio::sync::Mutex;

use crate::disk::{self, Disk};
use crate::net::free_ports;
use crate::process::Process;

/// Members of the set.
pub(crate) const MEMBERS: usize = 3;
const NAME: &str = "chaos";
/// The longest the set may take until it has a primary.
const PATIENCE: Duration = Duration::from_secs(60);

struct Member {
    port: u16,
    data: PathBuf,
    /// The small disk that its data is on, if it is on one.
    _disk: Option<Disk>,
    process: Mutex<Process>,
    client: Client,
}

/// The running set.
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// How often commands had failed when they were last told to.
    met_before: AtomicU64,
}

impl Cluster {
    /// Starts the set below `folder`, on small disks if asked to, and waits for its primary.
    pub(crate) async fn start(mongod: &Path, folder: &Path, on_small_disks: bool) -> Result<Self> {
        let mut members = Vec::new();
        for (number, port) in free_ports(MEMBERS)?.into_iter().enumerate() {
            let data = folder.join(format!("mongod-{number}"));
            std::fs::create_dir_all(&data)?;
            let disk = if on_small_disks { Some(Disk::mount(&data)?) } else { None };
            let mut process = Process::new(mongod.to_owned(), words(port, &data), data.with_extension("log"));
            process.start()?;
            let client = Client::with_uri_str(format!(
                "mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=500&connectTimeoutMS=500"
            ))
            .await?;
            members.push(Member { port, data, _disk: disk, process: Mutex::new(process), client });
        }
        let cluster = Self { members, met_before: AtomicU64::new(0) };
        cluster.initiate().await?;
        cluster.primary().await?;
        Ok(cluster)
    }

    /// What clients connect with.
    pub(crate) fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("mongodb://{}/?replicaSet={NAME}", hosts.join(","))
    }

    async fn initiate(&self) -> Result<()> {
        let hosts: Vec<_> = (0_i32..)
            .zip(&self.members)
            .map(|(id, member)| doc! { "_id": id, "host": format!("127.0.0.1:{}", member.port) })
            .collect();
        // Elections soon after a loss, so that a run sees many of them.
        let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 };
        let set = doc! { "_id": NAME, "members": hosts, "settings": settings };
        let started = Instant::now();
        loop {
            match self.members[0].client.database("admin").run_command(doc! { "replSetInitiate": &set }).await
            {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// The member that takes writes now, once there is one.
    pub(crate) async fn primary(&self) -> Result<usize> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let asked = self.members.iter().map(|member| async {
                let admin = member.client.database("admin");
                let hello = admin.run_command(doc! { "hello": 1 });
                let answer = tokio::time::timeout(Duration::from_secs(1), hello).await.ok()?.ok()?;
                answer.get_bool("isWritablePrimary").ok()
            });
            let answers = join_all(asked).await;
            if let Some(place) = answers.iter().position(|answer| *answer == Some(true)) {
                return Ok(place);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the replica set has no primary after {} s", PATIENCE.as_secs())
    }

    /// Ends a member as a power cut would.
    pub(crate) async fn kill(&self, member: usize) -> Result<()> {
        self.members[member].process.lock().await.kill().await
    }

    /// Starts a member that was killed.
    pub(crate) async fn restart(&self, member: usize) -> Result<()> {
        let mut process = self.members[member].process.lock().await;
        if process.is_running() {
            return Ok(());
        }
        process.start().with_context(|| format!("see {}", process.log().display()))
    }

    /// Stops a member where it is.
    pub(crate) async fn freeze(&self, member: usize) -> Result<()> {
        self.members[member].process.lock().await.freeze().await
    }

    /// Lets a frozen member go on.
    pub(crate) async fn thaw(&self, member: usize) -> Result<()> {
        self.members[member].process.lock().await.thaw().await
    }

    /// Sets a member's clock: it is killed and started again.
    pub(crate) async fn set_clock(&self, member: usize, ahead: i64) -> Result<()> {
        let mut process = self.members[member].process.lock().await;
        process.kill().await?;
        process.set_clock(ahead);
        process.start()
    }

    /// How far a member's clock is from ours, in seconds.
    pub(crate) async fn clock_error(&self, member: usize) -> Result<i64> {
        let admin = self.members[member].client.database("admin");
        let time =
            admin.run_command(doc! { "hello": 1 }).await?.get_datetime("localTime")?.timestamp_millis();
        Ok((time - DateTime::now().timestamp_millis()) / 1000)
    }

    /// Has a member become the primary, if the others let it.
    pub(crate) async fn promote(&self, member: usize) -> Result<()> {
        let admin = self.members[member].client.database("admin");
        let started = Instant::now();
        // One that has just been started must catch up before it can be elected.
        while started.elapsed() < Duration::from_secs(15) {
            if admin.run_command(doc! { "replSetStepUp": 1 }).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        bail!("member {member} has not become the primary")
    }

    /// Leaves no byte free on the disks of all members, until [`Cluster::free_disks`].
    pub(crate) fn fill_disks(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| disk::fill(&member.data))
    }

    /// Has all members write what they have in memory. Those that cannot, end.
    pub(crate) async fn make_checkpoints(&self) {
        let asked = self.members.iter().map(|member| async {
            let admin = member.client.database("admin");
            let checkpoint = admin.run_command(doc! { "fsync": 1 });
            let _ = tokio::time::timeout(Duration::from_secs(1), checkpoint).await;
        });
        join_all(asked).await;
    }

    /// Gives the room back.
    pub(crate) fn free_disks(&self) -> Result<()> {
        self.members.iter().try_for_each(|member| disk::free(&member.data))
    }

    /// Bytes of all indexes of the tasks, how many tasks there are, and how many of them are not final, while a member
    /// answers.
    pub(crate) async fn sizes(&self) -> Option<(i64, i64, i64)> {
        let number = |stats: &Document, key: &str| {
            stats.get_i64(key).or_else(|_| stats.get_i32(key).map(i64::from)).unwrap_or(0)
        };
        for member in &self.members {
            let database = member.client.database("chaos");
            let tasks = database.collection::<Document>("tasks");
            let open =
                doc! { "tenant": "default", "status": { "$in": ["pending", "processing", "scheduled"] } };
            let asked = async {
                let stats = database.run_command(doc! { "collStats": "tasks" }).await?;
                anyhow::Ok((stats, tasks.count_documents(open).await?))
            };
            if let Ok(Ok((stats, open))) = tokio::time::timeout(Duration::from_secs(1), asked).await {
                let open = i64::try_from(open).unwrap_or(i64::MAX);
                return Some((number(&stats, "totalIndexSize"), number(&stats, "count"), open));
            }
        }
        None
    }

    /// Lets commands fail as `data` says and as often as `mode` does, on all members.
    pub(crate) async fn fail_commands(&self, mode: Document, data: Document) -> Result<()> {
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        let met = self.set_fail_point(command).await?;
        self.met_before.store(met, Ordering::Relaxed);
        Ok(())
    }

    /// Lets commands succeed again, and says how many have failed.
    pub(crate) async fn heal_commands(&self) -> Result<u64> {
        let met = self.set_fail_point(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
        Ok(met.saturating_sub(self.met_before.load(Ordering::Relaxed)))
    }

    /// How often the point has been met, since each member started.
    async fn set_fail_point(&self, command: Document) -> Result<u64> {
        let mut met = 0;
        for member in &self.members {
            let started = Instant::now();
            loop {
                match member.client.database("admin").run_command(command.clone()).await {
                    Ok(answer) => {
                        met += answer.get_i32("count").unwrap_or(0).unsigned_abs();
                        break;
                    }
                    Err(error) if started.elapsed() > PATIENCE => return Err(error.into()),
                    // A member that has just been started takes a moment.
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        }
        Ok(met.into())
    }
}

fn words(port: u16, data: &Path) -> Vec<String> {
    let port = port.to_string();
    let data = data.display().to_string();
    [
        "--replSet",
        NAME,
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
        "--port",
        &port,
        "--dbpath",
        &data,
        "--quiet",
        "--oplogSize",
        "64",
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--networkMessageCompressors",
        "snappy,zstd",
        "--setParameter",
        "enableTestCommands=1",
    ]
    .map(str::to_owned)
    .to_vec()
}
