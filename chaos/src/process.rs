//! A process that is killed, frozen and started again.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

/// A program with its words, its environment and its log; at most one process of it runs.
pub(crate) struct Process {
    program: PathBuf,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Not started yet.
    pub(crate) fn new(program: PathBuf, words: Vec<String>, log: PathBuf) -> Self {
        Self { program, words, environment: Vec::new(), log, child: None }
    }

    /// With these variables in its environment.
    pub(crate) fn with(mut self, environment: Vec<(&'static str, String)>) -> Self {
        self.environment = environment;
        self
    }

    /// Starts it. What it says is added to its log.
    pub(crate) fn start(&mut self) -> Result<()> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
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

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
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
        let Some(pid) = self.child.as_ref().and_then(Child::id) else { return Ok(()) };
        let status = Command::new("kill").args([name, &pid.to_string()]).status().await?;
        ensure!(status.success(), "kill {name} of {} failed", self.program.display());
        Ok(())
    }

    /// Its log.
    pub(crate) fn log(&self) -> &PathBuf {
        &self.log
    }
}
