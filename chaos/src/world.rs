//! All that is broken and mended: the replica set, the servers, the proxies before them, and workers of their own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use task_repo_client::{NewKey, Role, TaskClient};
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::fault::Fault;
use crate::history::History;
use crate::measure::{self, Size};
use crate::net::free_ports;
use crate::process::Process;
use crate::proxy::{FaultRates, Proxy};
use crate::workload::{API_KEY, clients};

/// Servers on the one database.
const SERVERS: usize = 2;
/// Worker processes that may be killed and frozen.
const WORKERS: usize = 4;
/// The longest a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections to the database of a server whose pool is to be exhausted.
const FEW_CONNECTIONS: u32 = 4;
/// What a server exits with that cannot start, which it may while its database is away: `main` returns no other errors.
const CANNOT_START: Option<i32> = Some(1);

/// What runs.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    servers: Vec<Server>,
    workers: Vec<Mutex<Process>>,
    /// The key of all callers.
    key: String,
    /// Servers that ended by themselves.
    crashes: Lock<Vec<String>>,
}

struct Server {
    port: u16,
    process: Mutex<Process>,
    proxy: Proxy,
}

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) mongod: PathBuf,
    pub(crate) server: PathBuf,
    /// The fault that is injected into the servers, if they are built with fault injection.
    pub(crate) injected_fault: Option<&'static str>,
}

impl World {
    /// Starts all of it below `folder`, as these faults need it.
    pub(crate) async fn start(
        programs: &Programs,
        folder: &Path,
        seed: u64,
        faults: &[Fault],
        history: &Arc<History>,
    ) -> Result<Self> {
        let on_small_disks = faults.contains(&Fault::DiskFull);
        let cluster = Cluster::start(&programs.mongod, folder, on_small_disks).await?;
        let mut servers = Vec::new();
        let ports: Arc<[u16]> = free_ports(SERVERS)?.into();
        for (number, port) in ports.iter().copied().enumerate() {
            let log = folder.join(format!("server-{number}.log"));
            let mut environment = vec![
                ("MONGODB_URI", cluster.uri()),
                ("MONGODB_DATABASE", "chaos".to_owned()),
                ("HOST", "127.0.0.1".to_owned()),
                ("PORT", port.to_string()),
                ("API_KEY", API_KEY.to_owned()),
                ("LOG_LEVEL", "warn".to_owned()),
            ];
            if faults.contains(&Fault::PoolExhausted) {
                environment.push(("MONGODB_MAX_CONNECTIONS", FEW_CONNECTIONS.to_string()));
            }
            let injected = programs.injected_fault;
            environment.extend(injected.map(|fault| ("TASK_REPO_INJECTED_FAULT", fault.to_owned())));
            let mut process = Process::new(programs.server.clone(), Vec::new(), log).with(environment);
            process.start()?;
            let seed = seed.wrapping_add(number as u64);
            let proxy = Proxy::start(port, Arc::clone(&ports), seed, Arc::clone(history)).await?;
            servers.push(Server { port, process: Mutex::new(process), proxy });
        }
        let (workers, key) = (Vec::new(), String::new());
        let mut world = Self { cluster, servers, workers, key, crashes: Lock::default() };
        world.ready().await?;
        world.key = issue_key(&world.direct(0)?).await?;
        for number in 0..WORKERS {
            let mut words = vec!["work".to_owned(), format!("--seed={}", seed.wrapping_add(number as u64))];
            words.push(format!("--notes={}", folder.display()));
            words.push(format!("--key={}", world.key));
            words.extend(world.urls().into_iter().map(|url| format!("--url={url}")));
            let log = folder.join(format!("worker-{number}.log"));
            let mut process = Process::new(std::env::current_exe()?, words, log);
            process.start()?;
            world.workers.push(Mutex::new(process));
        }
        Ok(world)
    }

    /// The key of all callers, which was issued by a server.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The servers, behind their proxies.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.proxy.url()).collect()
    }

    /// How many servers there are.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The servers, without their proxies.
    pub(crate) fn direct_urls(&self) -> Vec<String> {
        (0..self.servers()).map(|server| format!("http://127.0.0.1:{}", self.port(server))).collect()
    }

    /// Where a server listens, without the proxy.
    pub(crate) fn port(&self, server: usize) -> u16 {
        self.servers[server].port
    }

    /// A client of a server, without the proxy.
    pub(crate) fn direct(&self, server: usize) -> Result<TaskClient> {
        Ok(clients(&self.direct_urls(), API_KEY)?.swap_remove(server))
    }

    /// Ends a server as a power cut would, and starts it again at once.
    pub(crate) async fn kill_server(&self, server: usize) -> Result<()> {
        let mut process = self.servers[server].process.lock().await;
        self.note_end(&mut process);
        process.kill().await?;
        process.start()
    }

    /// Sets a server's clock: it is killed and started again.
    pub(crate) async fn set_server_clock(&self, server: usize, ahead: i64) -> Result<()> {
        let mut process = self.servers[server].process.lock().await;
        self.note_end(&mut process);
        process.kill().await?;
        process.set_clock(ahead);
        process.start()
    }

    /// How large everything is now; what does not answer is left out.
    pub(crate) async fn measure(&self) -> Size {
        let mut size = Size::default();
        for server in &self.servers {
            if let Some(pid) = server.process.lock().await.pid() {
                let (memory, files) = measure::of_process(pid);
                size.memory_kib = size.memory_kib.max(memory);
                size.open_files = size.open_files.max(files);
            }
        }
        (size.index_bytes, size.tasks, size.open) = self.cluster.sizes().await.unwrap_or_default();
        size
    }

    /// Callers that wait for work at any server, by the servers' own metrics.
    pub(crate) async fn waiting(&self) -> Result<u64> {
        let mut waiting = 0;
        for number in 0..self.servers() {
            let metrics = self.direct(number)?.metrics().await?;
            let value = metrics.lines().find_map(|line| line.strip_prefix("task_repo_waiting_claims "));
            waiting += value.context("a metric of waiting claims")?.trim().parse::<u64>()?;
        }
        Ok(waiting)
    }

    /// Connections that callers have to any server.
    pub(crate) fn connections(&self) -> Result<usize> {
        self.servers.iter().map(|server| measure::connections(server.port)).sum()
    }

    /// How many requests had a fault at a proxy, so far.
    pub(crate) fn faulty_requests(&self) -> u64 {
        self.servers.iter().map(|server| server.proxy.faulty_requests()).sum()
    }

    /// Sets how likely faults are at all proxies from now on.
    pub(crate) fn set_fault_rates(&self, rates: FaultRates) {
        self.servers.iter().for_each(|server| server.proxy.set_fault_rates(rates));
    }

    /// Ends half of the workers as a power cut would, and starts them again later. How many ran.
    pub(crate) async fn kill_workers(&self, away: Duration, rng: &mut SmallRng) -> Result<u64> {
        // Those that a task has ended.
        self.start_workers().await?;
        let mut killed = 0;
        for worker in self.workers.sample(rng, WORKERS / 2) {
            let mut worker = worker.lock().await;
            killed += u64::from(worker.is_running());
            worker.kill().await?;
        }
        tokio::time::sleep(away).await;
        self.start_workers().await?;
        Ok(killed)
    }

    /// Stops all workers where they are, for that long. How many ran.
    pub(crate) async fn freeze_workers(&self, away: Duration) -> Result<u64> {
        self.start_workers().await?;
        let mut frozen = 0;
        for worker in &self.workers {
            let mut worker = worker.lock().await;
            frozen += u64::from(worker.is_running());
            worker.freeze().await?;
        }
        tokio::time::sleep(away).await;
        for worker in &self.workers {
            worker.lock().await.thaw().await?;
        }
        Ok(frozen)
    }

    /// Starts worker processes again that a task has ended.
    pub(crate) async fn replace_dead_workers(&self) -> Result<()> {
        for worker in &self.workers {
            let mut worker = worker.lock().await;
            if worker.ended().is_some() {
                worker.start()?;
            }
        }
        Ok(())
    }

    async fn start_workers(&self) -> Result<()> {
        for worker in &self.workers {
            let mut worker = worker.lock().await;
            if !worker.is_running() {
                worker.start()?;
            }
        }
        Ok(())
    }

    /// Mends all there is to mend, and waits until every server takes requests.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.set_fault_rates(FaultRates::default());
        for member in 0..crate::cluster::MEMBERS {
            self.cluster.thaw(member).await?;
            self.cluster.restart(member).await?;
        }
        self.cluster.primary().await?;
        self.cluster.heal_commands().await?;
        for server in &self.servers {
            self.revive(&mut *server.process.lock().await)?;
        }
        self.start_workers().await?;
        self.ready().await
    }

    /// Starts a server again that has ended, as an operator's supervisor would.
    fn revive(&self, process: &mut Process) -> Result<()> {
        if process.is_running() {
            return Ok(());
        }
        self.note_end(process);
        process.start()
    }

    /// Remembers when a server has ended by itself, other than because it could not start.
    fn note_end(&self, process: &mut Process) {
        if let Some(status) = process.ended().filter(|status| status.code() != CANNOT_START) {
            let crash = format!("a server ended by itself, {status}: see {}", process.log().display());
            self.crashes.lock().unwrap_or_else(PoisonError::into_inner).push(crash);
        }
    }

    /// Servers that ended by themselves so far, and panics in their logs.
    pub(crate) async fn crashes(&self) -> Result<Vec<String>> {
        let mut panics = Vec::new();
        for server in &self.servers {
            let mut process = server.process.lock().await;
            self.note_end(&mut process);
            let log = String::from_utf8_lossy(&std::fs::read(process.log())?).into_owned();
            panics.extend(log.lines().find(|line| line.contains("panicked")).map(str::to_owned));
        }
        let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        crashes.append(&mut panics);
        Ok(crashes)
    }

    /// Waits until every server takes requests.
    pub(crate) async fn ready(&self) -> Result<()> {
        let started = Instant::now();
        for (number, server) in self.servers.iter().enumerate() {
            let client = self.direct(number)?;
            while client.ready().await.is_err() {
                let mut process = server.process.lock().await;
                self.revive(&mut process)?;
                if started.elapsed() > PATIENCE {
                    bail!("a server is not ready: see {}", process.log().display());
                }
                drop(process);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Ends the workers for good.
    pub(crate) async fn stop_workers(&self) -> Result<()> {
        for worker in &self.workers {
            worker.lock().await.kill().await?;
        }
        Ok(())
    }
}

async fn issue_key(server: &TaskClient) -> Result<String> {
    let key = NewKey {
        name: "callers".to_owned(),
        roles: vec![Role::Producer, Role::Worker],
        tenant_id: None,
        task_types: None,
        expires_at: None,
    };
    Ok(server.create_key(&key).await?.key)
}
