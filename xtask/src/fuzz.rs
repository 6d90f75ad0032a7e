//! `cargo xtask fuzz`: requests made up from the service's own OpenAPI document, valid and broken ones, and every
//! answer compared with what that document promises.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::layout;
use crate::mongod::{Database, Purpose};
use crate::process;
use crate::seed;
use crate::server::{self, Server, Settings};
use crate::venv::Package;

/// The fuzzer.
const SCHEMATHESIS: Package =
    Package { name: "schemathesis", version: "4.32.5", folder: "schemathesis-venv" };

/// What every answer must hold to. Authentication and the lifecycle have tests that know their meaning; here the
/// question is whether any input at all makes the service break its word.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Longer than the longest wait a request can ask for.
const REQUEST_TIMEOUT_SECONDS: &str = "60";

/// One: the generator of Hypothesis is not safe to use from several threads, and then contradicts itself now and then.
const WORKERS: &str = "1";

/// How long the server may take to end; all its callers are gone by then.
const STOP_GRACE: Duration = Duration::from_secs(10);

const KEY: &str = "fuzz_api_key";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to go on
    #[arg(long, conflicts_with = "max_examples")]
    seconds: Option<u32>,
    /// How long to go on, in minutes
    #[arg(long, conflicts_with_all = ["max_examples", "seconds"])]
    minutes: Option<u32>,
    /// How many requests to make up for each operation
    #[arg(long)]
    max_examples: Option<u32>,
    /// Repeat a run: its seed is in its first lines. Without it a new one is drawn
    #[arg(long)]
    seed: Option<u64>,
}

impl Args {
    /// The run that every change passes: bounded by time, because some requests wait.
    pub(crate) fn short(seed: u64) -> Self {
        Self { seconds: Some(90), minutes: None, max_examples: None, seed: Some(seed) }
    }

    fn seconds(&self) -> Option<u64> {
        self.minutes.map(|minutes| u64::from(minutes) * 60).or(self.seconds.map(u64::from))
    }
}

/// Starts database and server, fuzzes, stops both. An error when a check failed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let tool = SCHEMATHESIS.install().await?.join("bin/schemathesis");
    let program = server::build(false).await?;
    let reports = layout::target().join("fuzz");
    layout::make_folder(&reports)?;
    let database = Database::throw_away(Purpose::Tests).await?;
    let outcome = against(&tool, &program, &reports, database.uri(), args).await;
    database.stop().await?;
    outcome.with_context(|| format!("the fuzz run failed; its report is in {}", reports.display()))
}

async fn against(tool: &Path, program: &Path, reports: &Path, uri: &str, args: &Args) -> Result<()> {
    let name = format!("fuzz_{}", std::process::id());
    let settings = Settings { mongodb_uri: uri, mongodb_database: Some(&name), api_key: KEY };
    let seed = args.seed.unwrap_or_else(seed::drawn);
    println!("the seed is {seed}; repeat it with --seed {seed}");
    let mut server = Server::start(program, &settings, layout::free_port()?, &reports.join("server.log"))?;
    server.ready().await?;
    let url = format!("{}/openapi.json", server.address());
    let outcome = process::run(Command::new(tool).args(words(&url, args, seed)).current_dir(reports)).await;
    // A server that fell over says more about why than the tool does.
    server.check_alive()?;
    server.stop(STOP_GRACE).await?;
    outcome
}

fn words(url: &str, args: &Args, seed: u64) -> Vec<String> {
    let authorization = format!("Authorization: Bearer {KEY}");
    let fixed = [
        "run",
        url,
        "--header",
        &authorization,
        "--checks",
        CHECKS,
        "--workers",
        WORKERS,
        "--request-timeout",
        REQUEST_TIMEOUT_SECONDS,
        "--continue-on-failure",
        "--generation-database",
        "examples",
        "--report-junit-path",
        "report.xml",
        "--report-html-path",
        "html",
        // A stream has no end to wait for.
        "--exclude-path",
        "/api/v1/stream",
        "--exclude-path",
        "/api/v1/tasks/{task_id}/stream",
    ];
    let mut words: Vec<String> = fixed.map(String::from).into();
    let chosen = [
        ("--max-time", args.seconds()),
        ("--max-examples", args.max_examples.map(u64::from)),
        ("--seed", Some(seed)),
    ];
    for (option, value) in chosen {
        words.extend(value.into_iter().flat_map(|value| [option.into(), value.to_string()]));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_passed_on_only_when_given() {
        let plain = Args { seconds: None, minutes: None, max_examples: None, seed: None };
        let words = |args| super::words("u", &args, 7);
        assert!(!words(plain).iter().any(|word| word == "--max-time"));
        let short = words(Args { seconds: Some(30), ..Args::short(3) });
        assert!(short.windows(2).any(|pair| pair == ["--max-time", "30"]));
        assert!(
            short.windows(2).any(|pair| pair == ["--seed", "7"]),
            "always, so that every run can be repeated"
        );
        let long = words(Args { seconds: None, minutes: Some(20), ..Args::short(3) });
        assert!(long.windows(2).any(|pair| pair == ["--max-time", "1200"]));
    }
}
