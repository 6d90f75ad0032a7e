//! `cargo xtask test`: all tests against a database that is thrown away afterwards.

use anyhow::Result;
use tokio::process::Command;

use crate::mongod::{Database, Purpose};
use crate::process;

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
    let database = Database::throw_away(Purpose::Tests).await?;
    let mut command = cargo_test(&words(args));
    let outcome = process::run(command.env("TEST_MONGODB_URI", database.uri())).await;
    database.stop().await?;
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
