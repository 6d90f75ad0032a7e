//! `cargo xtask test`: all tests against a database that is thrown away afterwards.

use std::env;

use anyhow::Result;
use tokio::process::Command;

use crate::layout::Scratch;
use crate::mongod::{Database, Purpose};
use crate::process;
use crate::release;

/// How many `mongod`s the tests share. In each, one test at a time may make faults.
const DATABASES: usize = 3;

/// Options of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// What follows `--` goes to the test programs, for example `-- --nocapture`
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Runs the tests. An error when one fails, carrying the exit code of `cargo test`.
pub(crate) async fn run(args: &Args) -> Result<()> {
    // First of all what needs no database: a compile error should not wait for one.
    process::run(&mut cargo_test(&["--no-run".into()])).await?;
    run_on_databases(&mut cargo_test(&words(args)), DATABASES).await
}

/// Has the tests write the documents of this version, which later ones must read, into `tests/fixtures/`.
pub(crate) async fn write_fixture() -> Result<()> {
    let words = ["release_fixture::the_documents_of_this_version".into()];
    run_on_databases(cargo_test(&words).env("TASK_REPO_WRITE_FIXTURE", "1"), 1).await
}

/// Runs it on so many databases of our own, or on the one that is named.
async fn run_on_databases(command: &mut Command, count: usize) -> Result<()> {
    let mut databases = vec![Database::throw_away(Purpose::Tests).await?];
    while databases.len() < count && !databases[0].is_given() {
        databases.push(Database::throw_away(Purpose::Tests).await?);
    }
    let uris: Vec<_> = databases.iter().map(Database::uri).collect();
    let scratch = Scratch::new()?;
    let released = env::join_paths(release::servers(scratch.path()).await?)?;
    command.env("TEST_MONGODB_URI", uris.join(" ")).env("RELEASED_SERVERS", released);
    let outcome = process::run(command).await;
    for database in databases {
        database.stop().await?;
    }
    outcome
}

fn cargo_test(words: &[String]) -> Command {
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(words);
    command
}

fn words(args: &Args) -> Vec<String> {
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
        assert_eq!(words(&args), ["claim", "--", "--nocapture"]);
        assert!(words(&Args::default()).is_empty());
    }
}
