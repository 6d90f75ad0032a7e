//! Breaks servers, databases and connections under load, and checks that nothing was lost and nothing done twice on
//! the record. Run by `cargo xtask chaos`.
//!
//! | module | what it is for |
//! |---|---|
//! | [`run`](mod@run) | one run: load, faults, mending, draining, the check |
//! | [`make_fault`], [`fault`] | how faults are made, and which there are |
//! | [`world`], [`cluster`], [`process`], [`proxy`], [`net`] | what it is broken in: servers, a replica set of three, proxies |
//! | [`disk`], [`measure`] | full disks; how large everything is |
//! | [`load`], [`audit`], [`callers`] | producers and workers; readers; callers that do harm |
//! | [`workload`] | what all of these agree on |
//! | [`history`], [`event`], [`told`] | every call and its answer, and what callers know by them |
//! | [`checker`], [`report`] | what the calls must come to, and what they did |

mod audit;
mod callers;
mod checker;
mod cluster;
mod disk;
mod event;
mod fault;
mod history;
mod load;
mod make_fault;
mod measure;
mod net;
mod process;
mod proxy;
mod report;
mod run;
mod told;
mod workload;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::fault::Fault;
use crate::history::History;
use crate::load::Load;
use crate::run::Plan;
use crate::workload::Phase;
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
    /// Injects one fault after the other into the servers, and checks that each is found
    InjectedFaults(RunOptions),
    /// A worker to be killed and frozen; it never ends by itself
    #[command(hide = true)]
    Work {
        /// The servers
        #[arg(long)]
        url: Vec<String>,
        /// Its key
        #[arg(long)]
        key: String,
        /// The seed of its random numbers
        #[arg(long)]
        seed: u64,
        /// Where it writes its history
        #[arg(long)]
        notes: PathBuf,
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
    /// The seed of the first run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs, each with the next seed
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Keep the data, logs and history of runs with a violation only
    #[arg(long)]
    keep_violations_only: bool,
    /// How long faults are made in each run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which faults; without it all of them
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // What is dropped takes its processes and disks with it.
    tokio::select! {
        done = command(Options::parse().command) => done,
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
    }
}

async fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(options) => runs(&options).await,
        Command::InjectedFaults(options) => injected_faults(&options).await,
        Command::Work { url, key, seed, notes } => {
            let (_phase, watched) = watch::channel(Phase::Faults);
            let name = format!("process-{seed}");
            let history = Arc::new(History::new(&history::file_of_process(&notes))?);
            let load = Load::new(workload::clients(&url, &key)?, seed, history, watched).aborting_on_poison();
            load.caller(name, 0).work().await;
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
    let programs =
        Programs { mongod: options.mongod.clone(), server: options.server.clone(), injected_fault: None };
    let (mut outcomes, file) = (Vec::new(), options.output.join("chaos.json"));
    for seed in options.seed..options.seed + options.seeds {
        let folder = empty(options.output.join(format!("seed-{seed}")))?;
        let plan = Plan { seed, seconds: options.seconds, faults: faults.clone() };
        let outcome = run::run(&programs, &folder, plan).await?;
        report::print(&outcome);
        if options.keep_violations_only && outcome.violations.is_empty() {
            // Processes that were killed just now may still hold some of it.
            if let Err(error) = remove(&folder) {
                println!("{} is left behind: {error:#}", folder.display());
            }
        }
        outcomes.push(outcome);
        // After each, so that an error in the next one loses nothing.
        std::fs::write(&file, serde_json::to_vec_pretty(&outcomes)?)?;
    }
    println!("written to {}", file.display());
    let is_good = outcomes.iter().all(|outcome| outcome.violations.is_empty());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each injected fault, the faults of the surroundings under which it shows, and how the violations begin that it is
/// found as.
const INJECTED_FAULTS: [(&str, &[Fault], &[&str]); 6] = [
    ("early-acknowledgement", &[Fault::ServerKill], &["lost: "]),
    ("any-token", &[Fault::WorkersFreeze], &["settled by a lease", "completed"]),
    ("unguarded-claim", &[Fault::Doubled], &["attempts out of order", "completed"]),
    ("lonely-write", &[Fault::SecondariesDown], &["lost: "]),
    ("forgotten-keys", &[Fault::LostAnswers], &["duplicated"]),
    (
        "unguarded-sweeper",
        &[Fault::WorkersFreeze],
        &["attempts out of order", "completed", "handed out after"],
    ),
];

async fn injected_faults(options: &RunOptions) -> Result<ExitCode> {
    let mut unseen = Vec::new();
    for (injected_fault, faults, found_as) in INJECTED_FAULTS {
        let programs = Programs {
            mongod: options.mongod.clone(),
            server: options.server.clone(),
            injected_fault: Some(injected_fault),
        };
        let folder = empty(options.output.join(injected_fault))?;
        let plan = Plan { seed: options.seed, seconds: options.seconds, faults: faults.to_vec() };
        let outcome = run::run(&programs, &folder, plan).await?;
        let is_it = |violation: &String| found_as.iter().any(|begin| violation.starts_with(begin));
        if !outcome.violations.iter().any(is_it) {
            unseen.push(injected_fault);
        }
        println!("{injected_fault}: {}", outcome.violations.join(", "));
    }
    if unseen.is_empty() {
        println!("all injected faults were found");
        return Ok(ExitCode::SUCCESS);
    }
    println!("NOT FOUND: {}", unseen.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The folder, with nothing in it.
fn empty(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        remove(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn remove(folder: &Path) -> Result<()> {
    // Disks of a run that was killed.
    disk::unmount_below(folder)?;
    Ok(std::fs::remove_dir_all(folder)?)
}
