//! What a run of tests came to, in few lines: one for each target that has tests, then the failures, then the sums.

use std::fmt::Write as _;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

use super::output::{Counts, Failure, Line, Reader};
use crate::process::Group;

/// How long after the end of cargo its output is waited for. Something that a test left running may hold the pipe.
const REST: Duration = Duration::from_secs(1);

/// All calls of `cargo test` so far.
#[derive(Default)]
pub(super) struct Report {
    counts: Counts,
    failures: Vec<Failure>,
    /// What calls without a failing test said that failed nevertheless.
    said: Vec<String>,
}

impl Report {
    /// Whether no test was run.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.all() == 0
    }

    /// Runs a call of `cargo test` and reads what it prints.
    pub(super) async fn follow(&mut self, mut command: Command) -> Result<ExitStatus> {
        // One pipe for both, because cargo says on one which target's program then writes to the other.
        let (output, input) = pipe()?;
        command.stdout(input.try_clone()?).stderr(input).env("CARGO_TERM_COLOR", "never");
        let mut group = Group::spawn(&mut command)?;
        // It holds the pipe too.
        drop(command);
        let mut lines = BufReader::new(Receiver::from_owned_fd(OwnedFd::from(output))?).split(b'\n');
        let (mut reader, mut bar, mut status) = (Reader::default(), None, None);
        loop {
            let line = tokio::select! {
                line = lines.next_segment() => line?,
                ended = group.wait(), if status.is_none() => {
                    status = Some(ended?);
                    continue;
                }
                () = tokio::time::sleep(REST), if status.is_some() => None,
            };
            let Some(line) = line else { break };
            self.take(&mut reader, &mut bar, &String::from_utf8_lossy(&line));
        }
        let status = match status {
            Some(status) => status,
            None => group.wait().await?,
        };
        let (failures, beside) = reader.end();
        if failures.is_empty() && !status.success() {
            self.said.extend(beside);
        }
        self.failures.extend(failures);
        Ok(status)
    }

    fn take(&mut self, reader: &mut Reader, bar: &mut Option<ProgressBar>, line: &str) {
        match reader.read(line) {
            Line::Begins(count) => *bar = Some(progress(reader.target(), count)),
            Line::Test => bar.iter().for_each(|bar| bar.inc(1)),
            Line::Ends(counts) => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                self.counts.add(counts);
                if counts.all() > 0 {
                    println!("{line} · {}", reader.target());
                }
            }
            Line::Other => {}
        }
    }

    /// The failures and the sums.
    pub(super) fn end(&self) -> String {
        let mut text = String::new();
        for line in &self.said {
            let _ = writeln!(text, "{line}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\n{}", failure.lines().join("\n"));
        }
        let Counts { passed, failed, ignored } = self.counts;
        let ended = self.failures.iter().filter(|failure| failure.test.is_none()).count();
        let ended = if ended > 0 { format!(", {ended} programs ended early") } else { String::new() };
        let _ = writeln!(text, "\n{passed} passed, {failed} failed, {ignored} ignored{ended}");
        text
    }
}

/// A sign of life, on terminals only.
fn progress(target: &str, count: u64) -> ProgressBar {
    let bar = ProgressBar::new(count);
    if let Ok(style) = ProgressStyle::with_template("{msg} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(target.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"
echo '     Running unittests src/lib.rs (target/debug/deps/a-00)' >&2
echo; echo 'running 2 tests'; echo 'test x ... ok'; echo 'test y ... FAILED'; echo; echo 'failures:'; echo
echo '---- y stdout ----'; echo "thread 'y' (1) panicked at a.rs:1:2:"; echo 'no'
echo; echo 'failures:'; echo '    y'; echo
echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s'
exit 101"#;

    #[tokio::test]
    async fn the_failures_and_the_sums_come_last() {
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", OUTPUT]);
        let status = report.follow(command).await.unwrap();
        assert_eq!(status.code(), Some(101));
        assert_eq!(
            report.end(),
            "\nFAILED y · a (src/lib.rs)\n  a.rs:1:2: no\n\n1 passed, 1 failed, 0 ignored\n"
        );
    }

    #[tokio::test]
    async fn what_is_left_running_does_not_hold_up_the_report() {
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 5 & echo 'error: no such target' >&2; exit 1"]);
        assert!(!report.follow(command).await.unwrap().success());
        assert_eq!(report.end(), "error: no such target\n\n0 passed, 0 failed, 0 ignored\n");
        assert!(report.is_empty());
    }
}
