//! Building and running the service as a program of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::layout;
use crate::process::{self, Group, died};

/// The program.
pub(crate) const NAME: &str = "task-repo-server";

/// The longest a server may take from its start to its first request.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes; the OpenAPI document has less than a tenth of that.
const MAX_ANSWER: u64 = 4 << 20;

/// The settings a server is started with here; all others come from the environment or are defaults.
pub(crate) struct Settings<'a> {
    /// What to connect to.
    pub(crate) mongodb_uri: &'a str,
    /// The database in there; without one, the service's default.
    pub(crate) mongodb_database: Option<&'a str>,
    /// The bootstrap key.
    pub(crate) api_key: &'a str,
}

/// A running server.
pub(crate) struct Server {
    group: Group,
    port: u16,
    log: PathBuf,
}

/// What has programs built from the dependencies that tests are built from, and not from a second set of them.
///
/// Tests turn on features of tokio, so everything that needs tokio would be built twice. Cargo turns them on for programs too
/// where an example is built beside them, because examples may use what tests use. With `--package` in place of `--bin`
/// there would be a second set as well. Optimised programs are built without, as they are handed out.
pub(crate) fn as_for_tests(release: bool) -> &'static [&'static str] {
    if release { &[] } else { &["--example", "quickstart"] }
}

/// Builds the program and returns where it is.
pub(crate) async fn build(release: bool) -> Result<PathBuf> {
    let (profile, folder) = if release { ("release", "release") } else { ("dev", "debug") };
    let build = ["build", "--bin", NAME, "--profile", profile];
    process::run(process::cargo().args(build).args(as_for_tests(release))).await?;
    Ok(layout::target().join(folder).join(NAME))
}

impl Server {
    /// Starts `program` on a port of the loopback address, what it prints in the file `log`.
    pub(crate) fn start(program: &Path, settings: &Settings<'_>, port: u16, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let mut command = Command::new(program);
        command
            .current_dir(layout::root())
            .env("MONGODB_URI", settings.mongodb_uri)
            .env("HOST", Ipv4Addr::LOCALHOST.to_string())
            .env("PORT", port.to_string())
            .env("API_KEY", settings.api_key)
            .stdout(output)
            .stderr(errors);
        if let Some(database) = settings.mongodb_database {
            command.env("MONGODB_DATABASE", database);
        }
        Ok(Self { group: Group::spawn(&mut command)?, port, log: log.to_owned() })
    }

    /// The address that requests start with.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the server writes its log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    fn said(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Returns as soon as the server says that it is ready for requests.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.check_alive()?;
            if matches!(status_of(self.port, "/health/ready").await, Ok(200)) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let end = process::last_lines(&self.said(), 15);
        bail!("{} not ready after {} s. Its log ends with:\n{end}", self.address(), PATIENCE.as_secs())
    }

    /// An error with the end of its log when the server has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let what = format!("the server on port {}", self.port);
        self.group.exited().map_or(Ok(()), |status| Err(died(&what, status, &self.said(), &self.log)))
    }

    /// The body of what the server answers to a `GET`.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let answer = answer_to_get(self.port, path).await?;
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no answer in HTTP")?;
        match status_in(&String::from_utf8_lossy(&answer[..head])) {
            Some(200) => Ok(answer[head + 4..].to_vec()),
            status => bail!("GET {path} answered {status:?}"),
        }
    }

    /// Asks the server to finish what it has begun and end.
    pub(crate) fn ask_to_stop(&self) {
        self.group.ask_to_stop();
    }

    /// Waits for the end, and enforces it after `grace`.
    pub(crate) async fn stop(&mut self, grace: Duration) -> Result<()> {
        if !self.group.stop(grace).await? {
            eprintln!("warning: {} did not stop by itself and was killed", self.address());
        }
        Ok(())
    }
}

async fn status_of(port: u16, path: &str) -> Result<u16> {
    let answer = answer_to_get(port, path).await?;
    status_in(&String::from_utf8_lossy(&answer)).context("no answer in HTTP")
}

/// The whole answer to a `GET`. The few lines of HTTP spare every command a client library.
async fn answer_to_get(port: u16, path: &str) -> Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, anyhow::Error>(answer)
    };
    timeout(Duration::from_secs(5), exchange).await.context("no answer")?
}

fn status_in(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status_in("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Some(200));
        assert_eq!(status_in("HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some(503));
        assert_eq!(status_in("SSH-2.0-OpenSSH\r\n"), None);
    }
}
