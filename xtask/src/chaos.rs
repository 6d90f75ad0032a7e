//! `cargo xtask chaos`: breaks servers, databases and connections under load, and checks that nothing was lost.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

use crate::checker_check;
use crate::layout;
use crate::mongod;
use crate::process;
use crate::seed;
use crate::server;

/// The program that breaks things.
const CHAOS: &str = "task-repo-chaos";
/// The seed of a run that is given none.
const FIXED_SEED: u64 = 1;

/// A library that gives programs another clock.
const CLOCKS: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Debian's package of it; its lists may be missing.
const INSTALL_CLOCKS: &str = "export DEBIAN_FRONTEND=noninteractive
    timeout 60 apt-get install --yes libfaketime ||
    { timeout 60 apt-get update && timeout 60 apt-get install --yes libfaketime; }";

/// Options of `cargo xtask chaos`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The same seed makes the same faults in the same order [default: 1, or a new one with --minutes]
    #[arg(long)]
    seed: Option<u64>,
    /// As many runs as make faults for that long in all, each with the next seed
    #[arg(long, conflicts_with_all = ["seeds", "injected_faults"])]
    minutes: Option<u64>,
    /// Runs, each with the next seed
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How long faults are made in each run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which faults, with commas between them; all of them if there is none
    #[arg(long, value_name = "FAULT,..")]
    faults: Option<String>,
    /// Instead, inject one fault after the other into the servers, and check that each is found
    #[arg(long, conflicts_with_all = ["faults", "seeds"])]
    injected_faults: bool,
    /// Optimised programs: more load, after a longer build
    #[arg(long)]
    release: bool,
}

impl Args {
    /// What continuous integration has time for, about two minutes: all short faults, which come first, and whichever long
    /// one the seed draws.
    pub(crate) fn short(seed: u64) -> Self {
        let seed = Some(seed);
        Self {
            seed,
            minutes: None,
            seeds: 1,
            seconds: 75,
            faults: None,
            injected_faults: false,
            release: false,
        }
    }

    /// Whether the check would find anything. Always with the same seed, because an injected fault shows only when other
    /// faults hit it, and the recorded result is to be that of the sources alone.
    pub(crate) fn injected_faults() -> Self {
        Self { seconds: 15, injected_faults: true, ..Self::short(FIXED_SEED) }
    }

    /// The seed of the first run.
    fn first_seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| if self.minutes.is_some() { seed::drawn() } else { FIXED_SEED })
    }

    /// How many runs.
    fn runs(&self) -> u64 {
        self.minutes.map_or(self.seeds, |minutes| (minutes * 60).div_ceil(self.seconds.max(1)).max(1))
    }
}

/// Starts a replica set of three, servers, producers and workers, breaks them, and checks. An error when something was
/// violated.
pub(crate) async fn run(args: &Args) -> Result<()> {
    // Before the build: what is edited while this runs has not been checked.
    let (fingerprint, _) = checker_check::state()?;
    let profile = if args.release { "release" } else { "dev" };
    let build = || {
        let mut build = process::cargo();
        build.args(["build", "--profile", profile, "--bin", server::NAME, "--bin", CHAOS]);
        build.args(server::as_for_tests(args.release));
        build
    };
    let mut first = build();
    if args.injected_faults {
        first.args(["--features", "task-repo-server/fault-injection"]);
    }
    process::run(&mut first).await?;
    install_clocks().await;
    let first_seed = args.first_seed();
    println!("the seed is {first_seed}; repeat it with --seed {first_seed}");
    let programs = layout::target().join(if args.release { "release" } else { "debug" });
    let mut command = Command::new(programs.join(CHAOS));
    command
        .arg(if args.injected_faults { "injected-faults" } else { "run" })
        .args(words(args, first_seed))
        .current_dir(layout::root());
    command.arg("--mongod").arg(mongod::program().await?).arg("--server").arg(programs.join(server::NAME));
    command.arg("--output").arg(output());
    let done = process::run(&mut command).await;
    if args.injected_faults {
        // A server with fault injection must not lie where others expect one without.
        process::run(&mut build()).await?;
        if done.is_ok() {
            checker_check::record(&fingerprint)?;
        }
    }
    done
}

/// Installs what gives programs another clock, where an administrator runs this on Debian. Without it the faults of
/// clocks are left out, and the program says so.
async fn install_clocks() {
    if !Path::new(CLOCKS).exists() {
        let mut install = Command::new("sh");
        let _ =
            install.args(["-c", INSTALL_CLOCKS]).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    }
}

/// Where data, logs and results are kept until the next run.
fn output() -> PathBuf {
    layout::target().join("chaos")
}

fn words(args: &Args, first_seed: u64) -> Vec<String> {
    let mut words = vec![
        format!("--seed={first_seed}"),
        format!("--seeds={}", args.runs()),
        format!("--seconds={}", args.seconds),
    ];
    // Hours of data would fill the disk.
    words.extend(args.minutes.map(|_| "--keep-violations-only".to_owned()));
    words.extend(args.faults.iter().map(|faults| format!("--faults={faults}")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_program_that_breaks_things() {
        let args = Args {
            seed: Some(7),
            minutes: None,
            seeds: 2,
            seconds: 5,
            faults: Some("server-kill,doubled".into()),
            injected_faults: false,
            release: false,
        };
        let words = words(&args, args.first_seed());
        assert_eq!(words, ["--seed=7", "--seeds=2", "--seconds=5", "--faults=server-kill,doubled"]);
    }

    #[test]
    fn minutes_are_divided_into_runs_of_a_new_seed() {
        let args = Args { seed: None, minutes: Some(10), seconds: 75, ..Args::short(3) };
        assert_eq!(args.runs(), 8);
        assert!(words(&args, 1).contains(&"--keep-violations-only".to_owned()));
        assert_eq!(Args { seed: Some(7), minutes: Some(1), ..Args::short(3) }.first_seed(), 7);
        assert_eq!(Args { seed: None, ..Args::short(3) }.first_seed(), FIXED_SEED);
        let drawn: std::collections::HashSet<_> = (0..20).map(|_| args.first_seed()).collect();
        assert!(drawn.len() > 10);
    }
}
