//! Measures the whole service over HTTP, and what the database alone would do. Run by `cargo xtask bench`.
//!
//! Every scenario goes through the shipped client, over the loopback address, to a server that is a process of its own
//! on a database of its own. Right before it, where there is such a thing, its *raw limit* is measured: the same work
//! done with the database's driver alone. Figures from two machines cannot be compared; the ratio of the two can.
//!
//! | module | what it is for |
//! |---|---|
//! | [`plan`] | the scenarios by name, in their order |
//! | [`bench`](mod@bench) | what scenarios share: the database, starting servers |
//! | [`load`], [`meter`], [`machine`] | callers in a closed loop, latencies, processor time, memory |
//! | [`work`] | the tasks that are used, and filling a backlog with them |
//! | [`raw`] | the raw limits |
//! | [`scenario`] | the service, over HTTP |
//! | [`report`] | figures, targets, the table, the chart, the comparison |

mod bench;
mod load;
mod machine;
mod meter;
mod plan;
mod raw;
mod report;
mod run;
mod scenario;
mod server;
mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// The server's as well: what is measured is not the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options of the program; `cargo xtask bench` gives them.
#[derive(Debug, Parser)]
#[command(about, version)]
pub(crate) struct Args {
    /// The replica set to measure on; only databases of our own are touched, and removed
    #[arg(long, required_unless_present = "compare")]
    mongodb_uri: Option<String>,
    /// The server's program
    #[arg(long, required_unless_present = "compare")]
    server: Option<PathBuf>,
    /// The folder for the results
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Less of everything: under a minute in all
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose names begin with one of these; their raw limits come with them
    #[arg(long, num_args = 1.., value_name = "NAME")]
    scenario: Vec<String>,
    /// Print the results of two earlier runs side by side
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["quick", "scenario"])]
    compare: Option<Vec<PathBuf>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    match args.compare.as_deref() {
        Some([old, new]) => report::compare::print(old, new),
        _ => Box::pin(run::run(&args)).await,
    }
}
