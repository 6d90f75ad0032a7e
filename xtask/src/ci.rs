//! `cargo xtask ci`: everything a change has to pass before it lands, in the order in which it is cheapest to fail.
//!
//! A continuous integration server runs this very command, so there is nothing it can find that cannot be found here.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process;
use crate::{chaos, checker_check, dependencies, fingerprint, fuzz, openapi, seed, test, tidy};

/// Runs all steps; the first that fails ends it.
pub(crate) async fn run() -> Result<()> {
    let mut report = Report::default();
    let outcome = steps(&mut report).await;
    report.print();
    outcome
}

async fn steps(report: &mut Report) -> Result<()> {
    report.step("format", cargo(&["fmt", "--all", "--check"])).await?;
    // By itself, because others use it without the rest of the workspace.
    report.step("protocol alone", cargo(&["check", "--package", "task-repo-protocol"])).await?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    report.step("clippy", cargo(&clippy)).await?;
    report.step("tidy", async { tidy::run(&tidy::Args::default()) }).await?;
    report.step("documentation", documentation()).await?;
    report.skippable("dependencies", dependencies()).await?;
    // By itself, so that the report tells compilers from tests.
    report.step("build of tests", test::build()).await?;
    report.step("tests", test::run(&test::Args::default())).await?;
    let (seed, origin) = seed::of_commit().await;
    println!("\n{origin}");
    report.step("fuzz", fuzz::run(&fuzz::Args::short(seed))).await?;
    report.skippable("openapi", openapi()).await?;
    report.step("chaos", chaos::run(&chaos::Args::short(seed))).await?;
    report.skippable("injected faults", injected_faults()).await
}

async fn injected_faults() -> Result<Outcome> {
    let (fingerprint, has_passed) = checker_check::state()?;
    if has_passed {
        let why =
            format!("all injected faults were found by the harness with this fingerprint, {fingerprint}");
        return Ok(Outcome::Skipped(why));
    }
    chaos::run(&chaos::Args::injected_faults()).await.map(|()| Outcome::Passed)
}

async fn cargo(words: &[&str]) -> Result<()> {
    process::run(process::cargo().args(words)).await
}

async fn documentation() -> Result<()> {
    let mut command = process::cargo();
    command.args(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "--deny warnings");
    process::run(&mut command).await
}

async fn dependencies() -> Result<Outcome> {
    let (fingerprint, has_passed) = dependencies::state()?;
    if has_passed {
        return Ok(Outcome::Skipped(format!("they passed as they are, with the fingerprint {fingerprint}")));
    }
    match dependencies::cargo_deny().await {
        Ok(tool) => {
            dependencies::check(&tool).await?;
            fingerprint::keep(dependencies::RECORD, &fingerprint)?;
            Ok(Outcome::Passed)
        }
        Err(error) => Ok(Outcome::Skipped(format!("cargo-deny could not be installed: {error:#}"))),
    }
}

async fn openapi() -> Result<Outcome> {
    match openapi::tools().await {
        Ok(tools) => openapi::run(&tools).await.map(|()| Outcome::Passed),
        Err(error) if openapi::may_be_left_out() => Ok(Outcome::Skipped(format!("{error:#}"))),
        Err(error) => Err(error),
    }
}

/// How a step ended.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// The steps so far.
#[derive(Default)]
struct Report {
    lines: Vec<(&'static str, Outcome, Duration)>,
}

impl Report {
    async fn step(&mut self, name: &'static str, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.skippable(name, async { work.await.map(|()| Outcome::Passed) }).await
    }

    async fn skippable(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<Outcome>>,
    ) -> Result<()> {
        println!("\n=== {name}");
        let started = Instant::now();
        let (outcome, result) = match work.await {
            Ok(outcome) => (outcome, Ok(())),
            Err(error) => (Outcome::Failed, Err(error)),
        };
        if let Outcome::Skipped(why) = &outcome {
            println!("skipped: {why}");
        }
        let took = started.elapsed();
        println!("=== {name}: {:.1} s", took.as_secs_f64());
        self.lines.push((name, outcome, took));
        result
    }

    fn print(&self) {
        println!("\n{}", self.table());
    }

    fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut table = String::new();
        let [mut passed, mut failed, mut skipped] = [0; 3];
        for (name, outcome, took) in &self.lines {
            let (word, count) = match outcome {
                Outcome::Passed => ("passed", &mut passed),
                Outcome::Failed => ("FAILED", &mut failed),
                Outcome::Skipped(_) => ("skipped", &mut skipped),
            };
            *count += 1;
            let _ = writeln!(table, "{name:<16} {word:<8} {:>8.1} s", took.as_secs_f64());
        }
        let total: Duration = self.lines.iter().map(|line| line.2).sum();
        let _ = writeln!(table, "{:<16} {:<8} {:>8.1} s", "all", "", total.as_secs_f64());
        let _ = write!(table, "steps: {passed} passed, {failed} failed, {skipped} skipped");
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_report_ends_at_the_first_failure() {
        let mut report = Report::default();
        report.step("one", async { Ok(()) }).await.unwrap();
        let skipped = async { Ok(Outcome::Skipped("no such tool".into())) };
        report.skippable("two", skipped).await.unwrap();
        report.step("three", async { anyhow::bail!("broken") }).await.unwrap_err();
        assert!(report.table().ends_with("steps: 1 passed, 1 failed, 1 skipped"));
        assert!(report.table().contains("three            FAILED"));
    }
}
