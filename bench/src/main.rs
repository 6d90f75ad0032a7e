//! Measures the whole service over HTTP, and what the database alone would do. Run by `cargo xtask bench`.
//!
//! Every scenario goes through the shipped client, over the loopback address, to a server that is a process of its own
//! on a database of its own. Right before it, where there is such a thing, its *raw limit* is measured: the same work
//! done with the database's driver alone. Figures from two machines cannot be compared; the ratio of the two can.
//!
//! | module | what it is for |
//! |---|---|
//! | [`args`], [`run`](mod@run) | the options, and one run from start to end |
//! | [`plan`] | the scenarios by name, in their order |
//! | [`bench`](mod@bench) | what scenarios share: the database, starting servers |
//! | [`load`], [`meter`], [`machine`] | callers in a closed loop, latencies, processor time, memory |
//! | [`work`] | the tasks that are used, and filling a backlog with them |
//! | [`raw`] | the raw limits |
//! | [`scenario`] | the service, over HTTP |
//! | [`report`] | figures, targets, the table, the chart, the comparison |

mod args;
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

use anyhow::Result;
use clap::Parser as _;

use args::Args;

/// The server's as well: what is measured is not the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    match args.compare.as_deref() {
        Some([old, new]) => report::compare::print(old, new),
        _ => Box::pin(run::run(&args)).await,
    }
}
