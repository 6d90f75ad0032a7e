//! One run: the scenarios one after the other, a progress bar, and what is left behind.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use task_repo_client::Utc;

use crate::args::Args;
use crate::bench::Bench;
use crate::machine::Machine;
use crate::plan::{self, Scenario};
use crate::report::{FailedScenario, Figure, Report, chart, table, targets};

/// Runs what was asked for, prints the table and writes the results.
///
/// # Errors
/// When a scenario could not be run. A target that is missed is a result and no error.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let scenarios = plan::choose(args.quick, &args.scenario)?;
    let uri = args.mongodb_uri.as_deref().context("--mongodb-uri is missing")?;
    let server = args.server.as_deref().context("--server is missing")?;
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let log = args.output.join("servers.log");
    fs::write(&log, "")?;
    let bench = Arc::new(Bench::new(uri, server.to_owned(), log, args.quick).await?);
    let mut report = Report::new(args.quick, Machine::here(), version(&bench).await?);
    let measured = measure(&bench, &scenarios, &mut report).await;
    bench.clean().await?;
    measured?;
    report.targets = targets::judge(&report.figures);
    println!("{}", table::text(&report));
    write(&report, &args.output)?;
    match report.failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} scenarios could not be run"),
    }
}

async fn measure(bench: &Arc<Bench>, scenarios: &[Scenario], report: &mut Report) -> Result<()> {
    let bar = progress(scenarios.len());
    for scenario in scenarios {
        bar.set_message(scenario.title);
        // One that cannot be run must not take the others' results with it.
        match scenario.run(bench).await {
            Ok(measured) => {
                let limit = scenario.limit.and_then(|name| report.figure(name));
                let figure = Figure::of(scenario, measured, limit);
                if bar.is_hidden() {
                    eprintln!("{}", table::line(&figure, report.machine.cores));
                }
                report.figures.push(figure);
            }
            Err(error) => {
                let error = format!("{error:#}");
                bar.suspend(|| eprintln!("{}: {error}", scenario.name));
                report.failures.push(FailedScenario { name: scenario.name.to_owned(), error });
            }
        }
        bench.clean().await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// On a terminal; elsewhere each figure is a line as soon as it is known.
fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

async fn version(bench: &Bench) -> Result<String> {
    Ok(bench.server_status().await?.get_str("version").unwrap_or("?").to_owned())
}

/// Writes the results by time, and once more as the latest.
fn write(report: &Report, folder: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    let svg = chart::svg(report);
    for name in [Utc::now().format("%Y-%m-%d-%H%M%S").to_string(), "latest".to_owned()] {
        for (text, extension) in [(&json, "json"), (&svg, "svg")] {
            let file = folder.join(&name).with_extension(extension);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        println!("{}", folder.join(&name).with_extension("{json,svg}").display());
    }
    Ok(())
}
