//! Trying the archive as its users will: compare its sum, unpack it, start the server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::archive;
use crate::layout::{self, Scratch};
use crate::mongod::{Database, Purpose};
use crate::process;
use crate::server::{self, Server, Settings};
use crate::spinner::Spinner;

/// How long the server may take to end; it has no callers.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// An error when the archive is not what it should be, or its server does not get ready.
pub(super) async fn archive(archive: &Path, name: &str, version: &str) -> Result<()> {
    let spinner = Spinner::new("unpacking");
    let scratch = Scratch::new()?;
    archive::verify(archive.parent().context("an archive is in a folder")?).await?;
    archive::unpack(archive, scratch.path()).await?;
    spinner.done();
    let program = scratch.path().join(name).join(server::NAME);
    says_its_version(&program, version).await?;

    let database = Database::throw_away(Purpose::Tests).await?;
    let outcome = gets_ready(&program, database.uri(), &scratch.path().join("server.log")).await;
    database.stop().await?;
    outcome
}

async fn says_its_version(program: &Path, version: &str) -> Result<()> {
    let said = process::output(Command::new(program).arg("--version")).await?;
    let expected = format!("{} {version}", server::NAME);
    ensure!(
        said.trim_end() == expected,
        "the packed server calls itself `{}`, not `{expected}`",
        said.trim_end()
    );
    Ok(())
}

async fn gets_ready(program: &Path, uri: &str, log: &Path) -> Result<()> {
    let spinner = Spinner::new("waiting for the packed server to be ready");
    let name = format!("release_check_{}", std::process::id());
    let settings = Settings { mongodb_uri: uri, mongodb_database: Some(&name), api_key: "release_check_key" };
    let mut server = Server::start(program, &settings, layout::free_port()?, log)?;
    server.ready().await?;
    server.stop(STOP_GRACE).await?;
    spinner.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_version_is_noticed() {
        // `echo --version` prints its own version or the words; neither is ours.
        let error = says_its_version(Path::new("/bin/echo"), "0.1.0").await.unwrap_err();
        assert!(error.to_string().contains("not `task-repo-server 0.1.0`"));
    }
}
