//! A process that is killed, frozen and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

/// A program with its words, its environment and its log; at most one process of it runs.
pub(crate) struct Process {
    program: PathBuf,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    /// How far its clock is ahead, in seconds.
    ahead: i64,
    child: Option<Child>,
}

/// What gives a process another clock: Debian's package `libfaketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Whether processes can be given another clock.
pub(crate) fn has_clocks() -> bool {
    Path::new(FAKETIME).exists()
}

impl Process {
    /// Not started yet.
    pub(crate) fn new(program: PathBuf, words: Vec<String>, log: PathBuf) -> Self {
        Self { program, words, environment: Vec::new(), log, ahead: 0, child: None }
    }

    /// With these variables in its environment.
    pub(crate) fn with(mut self, environment: Vec<(&'static str, String)>) -> Self {
        self.environment = environment;
        self
    }

    /// Starts it. What it says is added to its log.
    pub(crate) fn start(&mut self) -> Result<()> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        if self.ahead != 0 {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("{:+}s", self.ahead));
            // Only what time it is, not how fast it goes by.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        let child = command
            .args(&self.words)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its clock is ahead by so many seconds from its next start on.
    pub(crate) fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// Its number, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Ends it at once, as a power cut would.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Stops it where it is, until [`Process::thaw`].
    pub(crate) async fn freeze(&self) -> Result<()> {
        self.signal("-STOP").await
    }

    /// Lets it go on.
    pub(crate) async fn thaw(&self) -> Result<()> {
        self.signal("-CONT").await
    }

    async fn signal(&self, name: &str) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let status = Command::new("kill").args([name, &pid.to_string()]).status().await?;
        ensure!(status.success(), "kill {name} of {} failed", self.program.display());
        Ok(())
    }

    /// Its log.
    pub(crate) fn log(&self) -> &PathBuf {
        &self.log
    }
}
