//! `cargo xtask bench`: how fast the service is on this machine, next to what its database alone would do.

use std::path::PathBuf;

use anyhow::Result;
use tokio::process::Command;

use crate::layout;
use crate::mongod::{Database, Purpose};
use crate::process;

/// The program that measures; it starts the servers itself.
const BENCH: &str = "task-repo-bench";
/// The server's program.
const SERVER: &str = "task-repo-server";

/// Runs a program with as many open files as the machine lets it have: ten thousand waiting claims are as many
/// connections, at both ends.
const WITH_MOST_FILES: &str = r#"ulimit -n "$(ulimit -H -n)" 2>/dev/null; exec "$@""#;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Less of everything: under a minute in all, without the build
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose names begin with one of these; their raw limits come with them
    #[arg(long, num_args = 1.., value_name = "NAME")]
    scenario: Vec<String>,
    /// Print the results of two earlier runs side by side
    #[arg(long, num_args = 2, value_names = ["OLD.json", "NEW.json"], conflicts_with_all = ["quick", "scenario"])]
    compare: Option<Vec<PathBuf>>,
}

/// Builds with optimisations, starts a database that is thrown away, and measures. Targets that are missed are shown
/// and are no error.
pub(crate) async fn run(args: &Args) -> Result<()> {
    if let Some(files) = &args.compare {
        let program = build(&[BENCH]).await?.join(BENCH);
        return process::run(Command::new(program).arg("--compare").args(files)).await;
    }
    let programs = build(&[SERVER, BENCH]).await?;
    let database = Database::throw_away(Purpose::Measurements).await?;
    let mut command = Command::new("sh");
    command.args(["-c", WITH_MOST_FILES, "sh"]).arg(programs.join(BENCH)).current_dir(layout::root());
    command.args(words(args, database.uri()));
    command.arg("--server").arg(programs.join(SERVER)).arg("--output").arg(layout::target().join("bench"));
    let outcome = process::run(&mut command).await;
    database.stop().await?;
    outcome
}

/// Builds these programs and returns the folder they are in.
async fn build(programs: &[&str]) -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--profile", "release"]);
    command.args(programs.iter().flat_map(|program| ["--bin", program]));
    process::run(&mut command).await?;
    Ok(layout::target().join("release"))
}

fn words(args: &Args, uri: &str) -> Vec<String> {
    let mut words = vec!["--mongodb-uri".to_owned(), uri.to_owned()];
    words.extend(args.quick.then(|| "--quick".to_owned()));
    words.extend(args.scenario.iter().map(|name| format!("--scenario={name}")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_program_that_measures() {
        let args = Args { quick: true, scenario: vec!["claim".into(), "drain".into()], compare: None };
        let words = words(&args, "mongodb://u");
        assert_eq!(
            words,
            ["--mongodb-uri", "mongodb://u", "--quick", "--scenario=claim", "--scenario=drain"]
        );
    }
}
