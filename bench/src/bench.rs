//! What scenarios share: the database, and servers on a database of their own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mongodb::bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Database};
use task_repo_client::TaskClient;

use crate::load::Sample;
use crate::machine;
use crate::meter::Processes;
use crate::server::Server;

/// Connections of the raw measurements: more than any of them has callers.
const CONNECTIONS: u32 = 80;

/// The setting of all scenarios of a run.
pub(crate) struct Bench {
    /// Less of everything.
    pub(crate) quick: bool,
    /// The driver, past all servers.
    pub(crate) driver: Client,
    mongodb_uri: String,
    program: PathBuf,
    log: PathBuf,
    mongod: Option<u32>,
    prefix: String,
    databases: AtomicU32,
}

/// What a scenario found.
pub(crate) struct Measured {
    /// What its callers saw; none where only the notes matter.
    pub(crate) sample: Option<Sample>,
    /// Most resident memory of a server, in MiB.
    pub(crate) server_mib: Option<u64>,
    /// The limit and what it does in a second, where the scenario measured it itself.
    pub(crate) limit: Option<(&'static str, f64)>,
    /// What else is worth knowing, by name.
    pub(crate) notes: Vec<(&'static str, f64)>,
}

impl From<Sample> for Measured {
    fn from(sample: Sample) -> Self {
        Self { sample: Some(sample), server_mib: None, limit: None, notes: Vec::new() }
    }
}

impl Bench {
    /// Connects to the database.
    pub(crate) async fn new(mongodb_uri: &str, program: PathBuf, log: PathBuf, quick: bool) -> Result<Self> {
        let mut options = ClientOptions::parse(mongodb_uri).await?;
        options.write_concern =
            Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
        options.retry_writes = Some(false);
        options.max_pool_size = Some(CONNECTIONS);
        options.min_pool_size = Some(8);
        options.max_connecting = Some(8);
        options.server_selection_timeout = Some(Duration::from_secs(5));
        let driver = Client::with_options(options)?;
        let mut bench = Self {
            quick,
            driver,
            mongodb_uri: mongodb_uri.to_owned(),
            program,
            log,
            mongod: None,
            prefix: format!("bench_{}_", std::process::id()),
            databases: AtomicU32::new(0),
        };
        let status = bench.server_status().await.context("the database does not answer")?;
        let pid = status.get_i64("pid").ok().and_then(|pid| u32::try_from(pid).ok());
        bench.mongod = pid.filter(|pid| machine::is_running(*pid, "mongod"));
        Ok(bench)
    }

    /// One of two values: of a quick run, or of a full one.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long most scenarios go on.
    pub(crate) fn duration(&self) -> Duration {
        self.pick(Duration::from_millis(900), Duration::from_secs(6))
    }

    /// The database's own account of itself.
    pub(crate) async fn server_status(&self) -> Result<Document> {
        Ok(self.driver.database("admin").run_command(doc! { "serverStatus": 1 }).await?)
    }

    /// How often the database has begun a write anew, since another was faster with the same document.
    pub(crate) async fn write_conflicts(&self) -> Result<i64> {
        let status = self.server_status().await?;
        let operation = status.get_document("metrics")?.get_document("operation")?;
        Ok(operation.get_i64("writeConflicts")?)
    }

    /// Has the database write to disk what it still holds back: what filling costs is not to be paid by what follows.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.driver.database("admin").run_command(doc! { "fsync": 1 }).await?;
        Ok(())
    }

    /// The processes of a raw measurement.
    pub(crate) fn without_servers(&self) -> Processes {
        Processes { servers: Vec::new(), mongod: self.mongod }
    }

    /// A database that is not used yet.
    pub(crate) fn fresh_database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        self.driver.database(&format!("{}{number}", self.prefix))
    }

    /// Starts that many servers side by side on a fresh database.
    pub(crate) async fn start_servers(&self, count: usize) -> Result<RunningServers> {
        let database = self.fresh_database();
        let mut servers = Vec::with_capacity(count);
        for _ in 0..count {
            servers.push(Server::start(&self.program, &self.mongodb_uri, database.name(), &self.log).await?);
        }
        let pids = servers.iter().map(Server::pid).collect();
        let processes = Processes { servers: pids, mongod: self.mongod };
        ensure!(!servers.is_empty(), "a scenario without servers");
        Ok(RunningServers { servers, processes, database })
    }

    /// Removes all databases of this run.
    pub(crate) async fn clean(&self) -> Result<()> {
        for name in self.driver.list_database_names().await? {
            if name.starts_with(&self.prefix) {
                self.driver.database(&name).drop().await?;
            }
        }
        Ok(())
    }
}

/// Servers of one scenario.
pub(crate) struct RunningServers {
    /// All of them, on one database.
    pub(crate) servers: Vec<Server>,
    /// To be watched.
    pub(crate) processes: Processes,
    /// Where their tasks are.
    pub(crate) database: Database,
}

impl RunningServers {
    /// A client of the first server.
    pub(crate) fn client(&self) -> &TaskClient {
        self.servers[0].client()
    }

    /// The clients of all servers.
    pub(crate) fn clients(&self) -> Vec<TaskClient> {
        self.servers.iter().map(|server| server.client().clone()).collect()
    }

    /// Ends the scenario, with the memory that its servers have by then.
    pub(crate) async fn close(self, measured: impl Into<Measured>) -> Result<Measured> {
        let mut measured: Measured = measured.into();
        let memories: Vec<_> = self.servers.iter().filter_map(Server::memory).collect();
        measured.server_mib = memories.iter().map(|memory| memory.now).max();
        if let Some(peak) = memories.iter().map(|memory| memory.peak).max() {
            #[expect(clippy::cast_precision_loss, reason = "a number of MiB")]
            measured.notes.push(("server_peak_mib", peak as f64));
        }
        for server in self.servers {
            server.stop().await?;
        }
        Ok(measured)
    }
}
