//! `cargo xtask test`: all tests, or those that a filter names, and a short account of them.
//!
//! With a filter, [`names`] reads which tests each target has, and [`targets`] leaves only those targets that have one the
//! filter can match. [`output`] reads what `cargo test` prints, and [`report`] prints what counts of it.

mod names;
mod output;
mod report;
mod targets;

use std::env;

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::layout::Scratch;
use crate::mongod::{Database, Purpose};
use crate::process::{self, Reported};
use crate::release;
use report::Report;
use targets::Selection;

/// How many `mongod`s the tests share. In each, one test at a time may make faults.
const DATABASES: usize = 3;

/// Words to test programs after which they print something else than the account of a usual run.
const UNUSUAL: [&str; 6] = ["--nocapture", "--no-capture", "--show-output", "--list", "--format", "--help"];

/// Options of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only tests whose path, such as `module::name`, contains this; doc tests are left out then
    filter: Option<String>,
    /// What follows `--` goes to the test programs, for example `-- --nocapture`
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Runs the tests. When one fails, the error carries the exit code of `cargo test`.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let selection = match &args.filter {
        Some(filter) => targets::matching(filter).await?,
        None => Selection::everything(),
    };
    // First what needs no database: a compiler error should not wait for one.
    build_selected(&selection).await?;
    let calls: Vec<_> = selection
        .calls()
        .iter()
        .map(|words| {
            let mut command = cargo_test(words);
            command.args(words_to_programs(args));
            command
        })
        .collect();
    if selection.needs_database() {
        on_databases(calls, DATABASES, args).await
    } else {
        run_all(calls, args).await
    }
}

/// Builds all tests, without running any.
pub(crate) async fn build() -> Result<()> {
    build_selected(&Selection::everything()).await
}

async fn build_selected(selection: &Selection) -> Result<()> {
    for words in selection.calls() {
        process::run(cargo_test(&words).arg("--no-run")).await?;
    }
    Ok(())
}

/// Has the tests write the documents of this version, which later ones must read, into `tests/fixtures/`.
pub(crate) async fn write_fixture() -> Result<()> {
    let args =
        Args { filter: Some("release_fixture::the_documents_of_this_version".to_owned()), extra: Vec::new() };
    let mut command = cargo_test(&["--test".to_owned(), targets::WITH_DATABASE.to_owned()]);
    command.args(words_to_programs(&args)).env("TASK_REPO_WRITE_FIXTURE", "1");
    on_databases(vec![command], 1, &args).await
}

/// Runs the calls on so many databases of our own, or on the one that is named.
async fn on_databases(mut calls: Vec<Command>, count: usize, args: &Args) -> Result<()> {
    let mut databases = vec![Database::throw_away(Purpose::Tests).await?];
    while databases.len() < count && !databases[0].is_given() {
        databases.push(Database::throw_away(Purpose::Tests).await?);
    }
    let uris: Vec<_> = databases.iter().map(Database::uri).collect();
    let scratch = Scratch::new()?;
    let released = env::join_paths(release::servers(scratch.path()).await?)?;
    for call in &mut calls {
        call.env("TEST_MONGODB_URI", uris.join(" ")).env("RELEASED_SERVERS", &released);
        if env::var_os("RUST_TEST_THREADS").is_none() {
            call.env("RUST_TEST_THREADS", threads().to_string());
        }
    }
    let outcome = run_all(calls, args).await;
    for database in databases {
        database.stop().await?;
    }
    outcome
}

/// How many tests run at once beside databases: two for each core, because each waits for its database half of the time.
fn threads() -> usize {
    2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// Runs all calls, also after one that failed, and prints one account of them.
async fn run_all(calls: Vec<Command>, args: &Args) -> Result<()> {
    if args.extra.iter().any(|word| UNUSUAL.contains(&word.split('=').next().unwrap_or_default())) {
        for mut call in calls {
            process::run(&mut call).await?;
        }
        return Ok(());
    }
    let mut report = Report::default();
    let mut failed = None;
    for call in calls {
        let status = report.follow(call).await?;
        failed = failed.or((!status.success()).then_some(status));
    }
    print!("{}", report.end());
    match failed {
        Some(status) => Err(Reported { status }.into()),
        None if report.is_empty() => bail!("no test was run"),
        None => Ok(()),
    }
}

fn cargo_test(words: &[String]) -> Command {
    let mut command = process::cargo();
    command.args(["test", "--no-fail-fast"]).args(words).env("RUST_BACKTRACE", "0");
    command
}

/// The filter, and what else the test programs are told.
fn words_to_programs(args: &Args) -> Vec<String> {
    let mut words: Vec<_> = args.filter.iter().cloned().collect();
    if !args.extra.is_empty() {
        words.push("--".into());
        words.extend_from_slice(&args.extra);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_and_extra_words_reach_cargo_in_its_order() {
        let args = Args { filter: Some("claim".into()), extra: vec!["--nocapture".into()] };
        assert_eq!(words_to_programs(&args), ["claim", "--", "--nocapture"]);
        assert!(words_to_programs(&Args::default()).is_empty());
    }
}
