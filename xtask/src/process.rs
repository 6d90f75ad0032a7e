//! Starting other programs so that none is left behind, however this one ends.
//!
//! Every program runs in a process group of its own: Ctrl-C then reaches only us, and who is stopped when, and how
//! politely, is decided here rather than by the terminal.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;

use crate::layout;

/// How long a dropped group may take to end before it is killed.
const GRACE_ON_DROP: Duration = Duration::from_secs(10);

/// The error of a command that was stopped from outside.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// A program ended with something else than success.
#[derive(Debug)]
pub(crate) struct Failed {
    program: String,
    status: ExitStatus,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.program, self.status)
    }
}

impl std::error::Error for Failed {}

/// A program ended with something else than success, and why has been printed already.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) status: ExitStatus,
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)
    }
}

impl std::error::Error for Reported {}

/// What this process exits with after `error`: a program's own code is passed on.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Interrupted>() {
        // What shells report for a program ended by SIGINT.
        return 130;
    }
    let failed = error.downcast_ref::<Failed>().map(|failed| failed.status);
    let status = failed.or_else(|| error.downcast_ref::<Reported>().map(|reported| reported.status));
    status
        .and_then(|status| status.code())
        .and_then(|code| u8::try_from(code).ok())
        .filter(|&code| code != 0)
        .unwrap_or(1)
}

/// Resolves when this process is asked to stop, by Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Drops `work` when this process is asked to stop; the programs it started are stopped by their [`Group`]s.
pub(crate) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        listening = interrupted() => { listening?; Err(Interrupted.into()) }
    }
}

/// A started program with everything it starts itself.
pub(crate) struct Group {
    child: Child,
    /// The group's id, until the program's end has been seen: after that the number may be someone else's.
    id: Option<u32>,
    program: String,
}

impl Group {
    /// Starts `command`, without standard input.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `{program}`"))?;
        Ok(Self { id: child.id(), child, program })
    }

    /// Waits for the end of the program.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.id = None;
        Ok(status)
    }

    /// How the program ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.id = None;
        }
        status
    }

    /// Asks the group to stop, and kills it when that takes longer than `grace`. Whether it stopped by itself.
    pub(crate) async fn stop(&mut self, grace: Duration) -> Result<bool> {
        let group = self.id;
        self.ask_to_stop();
        let ended = time::timeout(grace, self.wait()).await;
        self.send_to(group, "KILL");
        match ended {
            Ok(ended) => ended.map(|_| true),
            Err(_) => self.wait().await.map(|_| false),
        }
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.send("TERM");
    }

    /// Ends the group at once.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.send("KILL");
        self.wait().await.map(|_| ())
    }

    fn send(&self, signal: &str) {
        self.send_to(self.id, signal);
    }

    /// The standard library can only kill; the shell knows the other signals, and is everywhere.
    fn send_to(&self, group: Option<u32>, signal: &str) {
        if let Some(id) = group {
            let kill = format!("kill -s {signal} -- -{id}");
            let sent = std::process::Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
            if let Err(error) = sent {
                eprintln!("warning: cannot signal `{}` ({id}): {error}", self.program);
            }
        }
    }
}

impl Drop for Group {
    /// Blocks, on purpose: this is the way out after an error or Ctrl-C, and nothing may be left running.
    #[expect(clippy::disallowed_methods, reason = "drop cannot await")]
    fn drop(&mut self) {
        let group = self.id;
        self.ask_to_stop();
        let asked = Instant::now();
        while self.id.is_some() && self.exited().is_none() && asked.elapsed() < GRACE_ON_DROP {
            thread::sleep(Duration::from_millis(20));
        }
        // Also after the end of the program itself: what it had started may not listen. Nobody else gets the
        // group's number while one of its processes is left.
        self.send_to(group, "KILL");
    }
}

/// Cargo at the root of the repository, without what `cargo run` has told this program of itself: build scripts look at
/// that, and would have `ring`, the driver and the server built anew each time between here and a plain `cargo build`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| told(name))
    {
        command.env_remove(name);
    }
    command.current_dir(layout::root());
    command
}

/// Runs a program to its end, its output shown, and takes anything but success as an error.
pub(crate) async fn run(command: &mut Command) -> Result<()> {
    let mut group = Group::spawn(command)?;
    let status = group.wait().await?;
    if status.success() {
        return Ok(());
    }
    let words = command.as_std().get_args().map(|word| word.to_string_lossy());
    let program = words.fold(group.program.clone(), |line, word| format!("{line} {word}"));
    Err(Failed { program, status }.into())
}

/// Runs a program to its end in silence and returns what it printed; when it fails, that is in the error.
pub(crate) async fn output(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start `{program}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!(
        "`{program}` failed: {}\n{}",
        output.status,
        last_lines(&String::from_utf8_lossy(&output.stderr), 12)
    )
}

/// The error of a program that ended although it should not have, with the end of what it said in its log.
pub(crate) fn died(what: &str, status: ExitStatus, said: &str, log: &Path) -> anyhow::Error {
    let end = last_lines(said, 15);
    anyhow!("{what} ended unexpectedly: {status}. Its last words, from {}:\n{end}", log.display())
}

/// The end of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_of_a_short_text_are_all_of_it() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\n", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }

    #[tokio::test]
    async fn a_program_s_exit_code_is_passed_on() {
        let error = run(Command::new("sh").args(["-c", "exit 7"])).await.unwrap_err();
        assert_eq!(exit_code(&error), 7);
        assert_eq!(exit_code(&Interrupted.into()), 130);
        assert_eq!(exit_code(&anyhow!("anything else")), 1);
    }

    #[tokio::test]
    async fn stopping_reaches_what_the_program_started() {
        let mut group = Group::spawn(Command::new("sh").args(["-c", "sleep 600 & wait"])).unwrap();
        assert!(group.exited().is_none());
        assert!(group.stop(Duration::from_secs(5)).await.unwrap());
    }

    #[tokio::test]
    async fn what_a_program_started_is_killed_even_if_it_hears_nothing() {
        let folder = std::env::temp_dir().join(format!("task-repo-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let note = folder.join("pid");
        let script = "(trap \"\" TERM HUP; exec sleep 600) & echo $! >\"$0.new\"; mv \"$0.new\" \"$0\"; wait";
        let group = Group::spawn(Command::new("sh").args(["-c", script]).arg(&note)).unwrap();
        let pid = loop {
            match std::fs::read_to_string(&note) {
                Ok(pid) => break pid.trim().to_owned(),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        drop(group);
        // Gone, or dead and not yet collected.
        let is_dead = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !is_dead() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
