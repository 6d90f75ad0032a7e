//! The options of the program.

use std::path::PathBuf;

use clap::Parser;

/// Options of the program; `cargo xtask bench` gives them.
#[derive(Debug, Parser)]
#[command(about, version)]
pub(crate) struct Args {
    /// The replica set to measure on; only databases of our own are touched, and removed
    #[arg(long, required_unless_present = "compare")]
    pub(crate) mongodb_uri: Option<String>,
    /// The server's program
    #[arg(long, required_unless_present = "compare")]
    pub(crate) server: Option<PathBuf>,
    /// The folder for the results
    #[arg(long, default_value = "target/bench")]
    pub(crate) output: PathBuf,
    /// Less of everything: under a minute in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only scenarios whose names begin with one of these; their raw limits come with them
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub(crate) scenario: Vec<String>,
    /// Print the results of two earlier runs side by side
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["quick", "scenario"])]
    pub(crate) compare: Option<Vec<PathBuf>>,
}
