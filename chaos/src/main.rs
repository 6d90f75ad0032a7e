//! Breaks servers, databases and connections under load, and checks that nothing was lost and nothing done twice on
//! the record. Run by `cargo xtask chaos`.
//!
//! | module | what it is for |
//! |---|---|
//! | [`run`](mod@run) | one run: load, faults, mending, draining, the check |
//! | [`fault`] | what is broken |
//! | [`world`], [`cluster`], [`process`], [`proxy`], [`net`] | what it is broken in: servers, a replica set of three, proxies |
//! | [`disk`], [`measure`] | full disks; how large everything is |
//! | [`load`], [`callers`] | producers and workers; callers as no one wants them |
//! | [`history`], [`checker`] | every call and its answer, and what they must come to |

mod callers;
mod checker;
mod cluster;
mod disk;
mod fault;
mod history;
mod load;
mod measure;
mod net;
mod process;
mod proxy;
mod run;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum as _};
use tokio::sync::watch;

use crate::fault::Fault;
use crate::history::History;
use crate::load::{Crew, Phase};
use crate::run::{Outcome, Plan};
use crate::world::Programs;

#[derive(Debug, Parser)]
#[command(about, version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks things and checks
    Run(RunOptions),
    /// Has servers make mistakes on purpose, and checks that each is found
    Mistakes(RunOptions),
    /// A worker to be killed and frozen; it never ends by itself
    #[command(hide = true)]
    Work {
        /// The servers
        #[arg(long)]
        url: Vec<String>,
        /// The dice
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Debug, clap::Args)]
struct RunOptions {
    /// The database's program
    #[arg(long)]
    mongod: PathBuf,
    /// The server's program
    #[arg(long)]
    server: PathBuf,
    /// Where data, logs and results go
    #[arg(long)]
    output: PathBuf,
    /// The dice of the first run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs, each with the next seed
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long faults are made in each run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which faults; without it all of them
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Options::parse().command {
        Command::Run(options) => runs(&options).await,
        Command::Mistakes(options) => mistakes(&options).await,
        Command::Work { url, seed } => {
            let (_phase, watched) = watch::channel(Phase::Storm);
            let name = format!("process-{seed}");
            let history = Arc::new(History::new());
            Crew::new(load::clients(&url)?, seed, history, watched).caller(name, 0).work().await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn runs(options: &RunOptions) -> Result<ExitCode> {
    let mut wanted = options.faults.clone();
    if wanted.is_empty() {
        wanted.extend(Fault::value_variants().iter().filter(|fault| **fault != Fault::Calm));
    }
    let (mut faults, mut left_out) = (Vec::new(), Vec::new());
    for fault in wanted {
        match fault.obstacle() {
            None => faults.push(fault),
            Some(why) => left_out.push(format!("{fault:?} is left out: {why}")),
        }
    }
    for line in left_out {
        println!("{line}");
    }
    let programs = Programs { mongod: options.mongod.clone(), server: options.server.clone(), mistake: None };
    let mut outcomes = Vec::new();
    for seed in options.seed..options.seed + options.seeds {
        let folder = empty(options.output.join(format!("seed-{seed}")))?;
        let plan = Plan { seed, seconds: options.seconds, faults: faults.clone() };
        let outcome = run::run(&programs, &folder, plan).await?;
        print(&outcome);
        outcomes.push(outcome);
    }
    let file = options.output.join("chaos.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&outcomes)?)?;
    println!("written to {}", file.display());
    let is_good = outcomes.iter().all(|outcome| outcome.violations.is_empty());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each mistake with the faults under which it shows, and how the violations begin that it is found as.
const MISTAKES: [(&str, &[Fault], &[&str]); 5] = [
    ("early-acknowledgement", &[Fault::ServerKill], &["lost: "]),
    ("any-token", &[Fault::WorkersFreeze], &["settled by a lease", "completed"]),
    ("unguarded-claim", &[Fault::Doubled], &["attempts out of order", "completed"]),
    ("forgotten-keys", &[Fault::LostAnswers], &["duplicated"]),
    (
        "unguarded-sweeper",
        &[Fault::WorkersFreeze],
        &["attempts out of order", "completed", "handed out after"],
    ),
];

async fn mistakes(options: &RunOptions) -> Result<ExitCode> {
    let mut unseen = Vec::new();
    for (mistake, faults, found_as) in MISTAKES {
        let programs = Programs {
            mongod: options.mongod.clone(),
            server: options.server.clone(),
            mistake: Some(mistake),
        };
        let folder = empty(options.output.join(mistake))?;
        let plan = Plan { seed: options.seed, seconds: options.seconds, faults: faults.to_vec() };
        let outcome = run::run(&programs, &folder, plan).await?;
        let is_it = |violation: &String| found_as.iter().any(|begin| violation.starts_with(begin));
        if !outcome.violations.iter().any(is_it) {
            unseen.push(mistake);
        }
        println!("{mistake}: {}", outcome.violations.join(", "));
    }
    if unseen.is_empty() {
        println!("all mistakes were found");
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT FOUND: {}", unseen.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The folder, with nothing in it.
fn empty(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn print(outcome: &Outcome) {
    let verdict = &outcome.verdict;
    println!("seed {}: {} faults in {} s", outcome.plan.seed, outcome.struck.len(), outcome.plan.seconds);
    println!(
        "  tasks: {} attempted, {} acknowledged, {} recovered, {} lost, {} duplicated, {} stuck",
        verdict.attempted,
        verdict.acknowledged,
        verdict.recovered,
        verdict.lost.len(),
        verdict.duplicated.len(),
        verdict.stuck.len(),
    );
    println!(
        "  attempts: {}, at most {} of one task; {} settlements refused; {} tasks completed twice",
        verdict.executions,
        verdict.most_executions,
        verdict.refused_settlements,
        verdict.double_completions.len(),
    );
    println!(
        "  calls: {}, the longest {} ms ({}); without an accepted create for {} ms at most",
        verdict.calls, verdict.slowest_ms, verdict.slowest_call, verdict.longest_without_create_ms,
    );
    println!(
        "  attempts lost with their workers: {}; their tasks were back {} ms after the end of the lease at most",
        verdict.losses, verdict.longest_back_ms,
    );
    if verdict.health_asked > 0 {
        println!(
            "  health, asked {} times: the slowest {} ms, {} over 100 ms",
            verdict.health_asked, verdict.health_slowest_ms, verdict.health_late,
        );
    }
    let growth = &outcome.growth;
    println!(
        "  a server: at most {:.0} MiB, growing by {:.2} MiB a minute; at most {} open files, {} in the end; indexes: {:.0} bytes a task",
        growth.most_memory_mib,
        growth.memory_mib_per_minute,
        growth.most_open_files,
        growth.open_files_at_end,
        growth.index_bytes_per_task,
    );
    for violation in &outcome.violations {
        println!("  VIOLATED: {violation}");
    }
    for answer in verdict.undocumented.iter().take(5) {
        println!("    {answer}");
    }
}
