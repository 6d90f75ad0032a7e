//! A server as a process of its own.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use task_repo_client::{RetryBudget, TaskClient};
use tokio::process::{Child, Command};

use crate::machine::{self, Memory};

/// The key of the servers started here.
pub(crate) const API_KEY: &str = "bench_api_key";

/// Longest that a start may take: beyond what a loaded machine needs.
const MAX_START_TIME: Duration = Duration::from_secs(30);

/// A running server. Dropped, it is killed: what it keeps is thrown away anyway.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    port: u16,
    client: TaskClient,
}

impl Server {
    /// Starts `program` on a free port of the loopback address and waits until it takes requests.
    pub(crate) async fn start(program: &Path, mongodb_uri: &str, database: &str, log: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let output = File::options().create(true).append(true).open(log)?;
        let errors = output.try_clone()?;
        let child = Command::new(program)
            .env("MONGODB_URI", mongodb_uri)
            .env("MONGODB_DATABASE", database)
            .env("HOST", Ipv4Addr::LOCALHOST.to_string())
            .env("PORT", port.to_string())
            .env("API_KEY", API_KEY)
            .env("LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the server ended at once")?;
        // An error that a repetition would hide is a result, too.
        let client = TaskClient::builder(format!("http://127.0.0.1:{port}"))
            .api_key(API_KEY)
            .retry(RetryBudget::none())
            .timeout(Duration::from_secs(30))
            .build()?;
        let mut server = Self { child, pid, port, client };
        server.ready(log).await?;
        Ok(server)
    }

    async fn ready(&mut self, log: &Path) -> Result<()> {
        let started = Instant::now();
        while self.client.ready().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}; its log is {}", log.display());
            }
            if started.elapsed() > MAX_START_TIME {
                bail!(
                    "the server is not ready after {} s; its log is {}",
                    MAX_START_TIME.as_secs(),
                    log.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A client of it; all clones share their connections.
    pub(crate) fn client(&self) -> &TaskClient {
        &self.client
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> Option<Memory> {
        machine::memory_mib(self.pid)
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
