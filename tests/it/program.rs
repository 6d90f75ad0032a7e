//! The real server program, as a process of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use task_repo_tests::{TestDatabase, eventually};
use tokio::process::{Child, Command};

/// The server program, built as it is now.
pub(crate) static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut build = StdCommand::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--bin", "task-repo-server", "--message-format", "json"]);
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stderr(Stdio::inherit());
    let output = build.output().expect("cargo runs");
    assert!(output.status.success(), "the server program does not build");
    let messages = String::from_utf8(output.stdout).expect("messages of cargo");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.filter_map(|message| Some(message["executable"].as_str()?.to_owned())).next_back();
    program.expect("cargo says where the program is").into()
});

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("its address").port()
}

/// The program, running until this value is dropped.
pub(crate) struct Program {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// The file it logs into.
    log: PathBuf,
}

impl Program {
    /// Starts it on that database; ready when this returns.
    pub(crate) async fn start(database: &TestDatabase, api_key: &str) -> Self {
        Self::start_with(database, api_key, &[]).await
    }

    /// The same, with more variables.
    pub(crate) async fn start_with(
        database: &TestDatabase,
        api_key: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        Self::start_by(Command::new(&*PROGRAM), database, api_key, variables).await
    }

    /// The same, by that command.
    pub(crate) async fn start_by(
        mut command: Command,
        database: &TestDatabase,
        api_key: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        // The client of HTTP insists on a provider of cryptography, though these calls are plain.
        drop(rustls::crypto::ring::default_provider().install_default());
        let port = free_port();
        let log = std::env::temp_dir().join(format!("task-repo-{}.log", uuid::Uuid::now_v7().simple()));
        command.env("MONGODB_URI", database.uri()).env("MONGODB_DATABASE", database.name());
        command.env("API_KEY", api_key);
        command.env("HOST", "127.0.0.1").env("PORT", port.to_string()).env("LOG_LEVEL", "warn");
        command.envs(variables.iter().copied());
        command.stdout(File::create(&log).expect("a file for its log")).kill_on_drop(true);
        let child = command.spawn().expect("the program starts");
        let mut program = Self { child, url: format!("http://127.0.0.1:{port}"), log };
        let ready = format!("{}/health/ready", program.url);
        eventually("the program is ready", async || {
            assert!(program.child.try_wait().expect("its state").is_none(), "it has ended");
            reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        program
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    /// What Linux lets it have.
    pub(crate) fn limits(&self) -> String {
        let pid = self.child.id().expect("it runs");
        std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("what Linux says of it")
    }

    /// The most memory it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("what Linux says of it");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A log that stays behind does no harm.
        let _ = std::fs::remove_file(&self.log);
    }
}
