//! A started `mongod`: its options, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::process::Command;

use super::replica_set;
use crate::layout;
use crate::process::{Group, died};
use crate::spinner::Spinner;

/// What the database is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The service: data is kept.
    Service,
    /// Tests: failures can be provoked, and data counts for nothing.
    Tests,
    /// Benchmarks: data counts for nothing, and memory is not spared.
    Measurements,
}

/// A running `mongod` that takes writes.
pub(super) struct Mongod {
    group: Group,
    data: PathBuf,
    log: PathBuf,
    purpose: Purpose,
}

impl Mongod {
    /// Starts `program` with its data and log in `folder`, and waits until it is a primary.
    ///
    /// Data of an earlier start is taken over, also when that had another port or was killed: the storage engine
    /// replays its journal, and a lock file without a process behind it is ignored.
    pub(super) async fn start(program: &Path, folder: &Path, port: u16, purpose: Purpose) -> Result<Self> {
        let spinner = Spinner::new("starting mongod");
        let data = folder.join("mongod");
        layout::make_folder(&data)?;
        let log = folder.join("mongod.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let mut command = Command::new(program);
        command.args(options(port, purpose)).arg("--dbpath").arg(&data);
        let group = Group::spawn(command.stdout(output).stderr(errors))?;
        let mut mongod = Self { group, data, log, purpose };
        tokio::select! {
            primary = replica_set::make_primary(port) => primary?,
            status = mongod.group.wait() => return Err(mongod.death(status?)),
        }
        spinner.done();
        Ok(mongod)
    }

    /// An error when it has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.group.exited().map_or(Ok(()), |status| Err(self.death(status)))
    }

    /// Why it ended: its errors where it named any, else the end of its log.
    fn death(&self, status: ExitStatus) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        if log.contains("DBPathInUse") {
            // The one failure that people meet in daily use, said in our words.
            let pid = fs::read_to_string(self.data.join("mongod.lock")).unwrap_or_default();
            let data = self.data.display();
            return anyhow!("another mongod (process {}) has {data} open; stop that one first", pid.trim());
        }
        let is_error =
            |line: &&str| [r#""s":"F""#, r#""s":"E""#].iter().any(|severity| line.contains(severity));
        let errors: Vec<_> = log.lines().filter(is_error).collect();
        let said = if errors.is_empty() { log.as_str() } else { &errors.join("\n") };
        died("mongod", status, said, &self.log)
    }

    /// Ends it: with a checkpoint where the data is kept, at once where it is not.
    pub(super) async fn stop(mut self, grace: Duration) -> Result<()> {
        match self.purpose {
            Purpose::Tests | Purpose::Measurements => self.group.kill().await,
            Purpose::Service => {
                let spinner = Spinner::new("stopping mongod");
                if !self.group.stop(grace).await? {
                    eprintln!(
                        "warning: mongod had to be killed; its journal makes up for that at the next start"
                    );
                }
                spinner.done();
                Ok(())
            }
        }
    }
}

fn options(port: u16, purpose: Purpose) -> Vec<String> {
    let mut options = vec![
        format!("--replSet={}", replica_set::NAME),
        "--bind_ip=127.0.0.1".into(),
        // One that is killed would leave its socket behind.
        "--nounixsocket".into(),
        format!("--port={port}"),
        // Not zlib: 6.0.5, the version that is fetched, predates a fix there.
        "--networkMessageCompressors=snappy,zstd".into(),
        "--quiet".into(),
        // A lone member has no other to hand over to, so it need not wait the default 15 s for that.
        "--setParameter=shutdownTimeoutMillisForSignaledShutdown=100".into(),
        // As in `config/mongod.conf`.
        "--setParameter=minSnapshotHistoryWindowInSeconds=5".into(),
    ];
    if purpose == Purpose::Measurements {
        // As large as the default of a small database host: what is measured is not a cache that is full.
        options.extend(["--wiredTigerCacheSizeGB=4".into(), "--oplogSize=1024".into()]);
    } else {
        // The default is half of the memory, which the compiler wants too.
        options.push("--wiredTigerCacheSizeGB=1".into());
    }
    if purpose == Purpose::Tests {
        // Fail points, and an oplog (in megabytes) that is quick to make.
        options.extend(["--setParameter=enableTestCommands=1".into(), "--oplogSize=128".into()]);
    }
    options
}
