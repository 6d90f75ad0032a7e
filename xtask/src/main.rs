//! The project's own commands: `cargo xtask start | test | ci | fuzz | openapi | bench | chaos | audit | tidy | release`.
//!
//! Whatever a person, a script or CI does with this repository beyond plain `cargo` is a command here, so that all
//! of them do it in the same way. Every command that needs a database brings one along: see [`mongod`].

mod bench;
mod chaos;
mod checker_check;
mod ci;
mod dependencies;
mod fingerprint;
mod fuzz;
mod layout;
mod mongod;
mod openapi;
mod process;
mod release;
mod seed;
mod server;
mod spinner;
mod start;
mod test;
mod tidy;
mod venv;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service here, database included, until Ctrl-C
    Start(start::Args),
    /// Run all tests, or those whose path contains FILTER, against a throw-away database
    Test(test::Args),
    /// Write the documents of this version, which later ones must read, into tests/fixtures/
    Fixture,
    /// Run everything a change has to pass before it lands
    Ci,
    /// Send the service requests made from its own OpenAPI document, and check every answer
    Fuzz(fuzz::Args),
    /// Check the OpenAPI document, and clients generated from it, against the service
    Openapi,
    /// Measure how fast the service is here, next to what its database alone would do
    Bench(bench::Args),
    /// Break servers, databases and connections under load, and check that nothing was lost
    Chaos(chaos::Args),
    /// Look for known vulnerabilities of the packages we build on
    Audit,
    /// Check the rules of this repository that no compiler knows
    Tidy(tidy::Args),
    /// Pack this version for this platform, with its notices and checksum, into target/releases/
    Release(release::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(dispatch(Cli::parse().command)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<process::Reported>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(process::exit_code(&error))
        }
    }
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        // It has its own way to stop: in order, and with success.
        Command::Start(args) => start::run(&args).await,
        Command::Test(args) => process::unless_interrupted(Box::pin(test::run(&args))).await,
        Command::Fixture => process::unless_interrupted(Box::pin(test::write_fixture())).await,
        Command::Ci => process::unless_interrupted(Box::pin(ci::run())).await,
        Command::Fuzz(args) => process::unless_interrupted(Box::pin(fuzz::run(&args))).await,
        Command::Openapi => process::unless_interrupted(Box::pin(openapi::run_with_tools())).await,
        Command::Bench(args) => process::unless_interrupted(Box::pin(bench::run(&args))).await,
        Command::Chaos(args) => process::unless_interrupted(Box::pin(chaos::run(&args))).await,
        Command::Audit => process::unless_interrupted(dependencies::audit()).await,
        Command::Tidy(args) => tidy::run(&args),
        Command::Release(args) => process::unless_interrupted(Box::pin(release::run(&args))).await,
    }
}
