//! SHA-256 sums of the files of a directory, worked out by any number of worker processes.
//!
//! ```text
//! cargo run -p task-repo-client --example digest_files -- submit ./docs     # a task per file
//! cargo run -p task-repo-client --example digest_files -- work --concurrency 4
//! cargo run -p task-repo-client --example digest_files -- collect ./docs --output sums.txt
//! sha256sum -c sums.txt
//! ```
//!
//! Submitting again, or after an interruption, adds only what is missing. Workers may come, go and be killed; a file
//! whose worker died is read again by another. Collecting waits for the rest and says what is missing, has failed, or
//! was completed more than once.

mod collect;
mod files;
mod submit;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use task_repo_client::{RetryBudget, TaskClient};

/// The queue of the tasks.
const TASK_TYPE: &str = "example.file-digest";
/// The tag that holds a run together.
const RUN_TAG: &str = "run";

/// SHA-256 sums of the files of a directory, by tasks and workers.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    service: Service,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Service {
    /// Where the task repository is.
    #[arg(long, env = "TASK_REPO_URL", default_value = "http://127.0.0.1:8503", global = true)]
    url: String,
    /// The API key.
    #[arg(long, env = "API_KEY", default_value = "dev_api_key", hide_env_values = true, global = true)]
    key: String,
}

#[derive(Subcommand)]
enum Command {
    /// Creates a task for each file below a directory that has none yet.
    Submit {
        directory: PathBuf,
        /// The name of the run; default: made from the directory.
        #[arg(long)]
        run: Option<String>,
    },
    /// Works on files until Ctrl-C.
    Work {
        /// How many files at once.
        #[arg(long, default_value_t = 4)]
        concurrency: usize,
        /// Ends by itself once there was nothing to do for that long.
        #[arg(long, value_name = "SECONDS")]
        until_idle: Option<u64>,
        /// Only files of this run; default: of any.
        #[arg(long)]
        run: Option<String>,
    },
    /// Waits until all files are done and writes `sha256  path` lines.
    Collect {
        directory: PathBuf,
        /// The name of the run; default: made from the directory.
        #[arg(long)]
        run: Option<String>,
        /// Where to write; default: standard output.
        #[arg(long)]
        output: Option<PathBuf>,
    },
}

/// What a task asks for.
#[derive(Serialize, Deserialize)]
struct FileRequest {
    /// The directory, absolute.
    root: String,
    /// The file below it.
    path: String,
}

/// What a task brings.
#[derive(Serialize, Deserialize)]
struct Digest {
    /// In bytes.
    size: u64,
    /// How many line ends it has.
    lines: u64,
    /// In lower-case hexadecimal digits.
    sha256: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    // Patient enough for a service that is restarted meanwhile.
    let retry = RetryBudget { attempts: 200, total: Duration::from_secs(300), ..RetryBudget::default() };
    let client = TaskClient::builder(cli.service.url).api_key(cli.service.key).retry(retry).build()?;
    let is_complete = match cli.command {
        Command::Submit { directory, run } => submit::submit(&client, &directory, run).await?,
        Command::Work { concurrency, until_idle, run } => {
            work::work(&client, concurrency, until_idle.map(Duration::from_secs), run).await?;
            true
        }
        Command::Collect { directory, run, output } => {
            collect::collect(&client, &directory, run, output.as_deref()).await?
        }
    };
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A bar of that length; hidden where standard error is no terminal.
fn progress_bar(length: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX)).with_message(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
