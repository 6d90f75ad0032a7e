//! Tools that the Python package index carries, each in a virtual environment of its own below `.data/`.
//!
//! Nothing of the service is Python. The index is simply where a database and two checkers can be had ready to run,
//! by name and version, without leaving anything on the machine outside this folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::layout;
use crate::process;
use crate::spinner::Spinner;

/// A package at the version this project was checked with.
pub(crate) struct Package {
    /// The package's name.
    pub(crate) name: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
    /// Its folder below `.data/`.
    pub(crate) folder: &'static str,
}

impl Package {
    /// Installs the package unless it is there, and returns the folder of the environment.
    pub(crate) async fn install(&self) -> Result<PathBuf> {
        let folder = layout::data().join(self.folder);
        // Written last, so an installation that was cut short is done again.
        let done = folder.join(format!("{}-{}", self.name, self.version));
        if done.exists() {
            return Ok(folder);
        }
        let spinner = Spinner::new(format!("fetching {} {}", self.name, self.version));
        self.fetch(&folder).await.with_context(|| format!("{} could not be installed", self.name))?;
        std::fs::write(&done, "")?;
        spinner.done();
        Ok(folder)
    }

    async fn fetch(&self, folder: &Path) -> Result<()> {
        layout::make_folder(folder)?;
        let venv = process::output(Command::new("python3").args(["-m", "venv"]).arg(folder)).await;
        venv.context("python3 with its venv module is needed (Debian: apt-get install python3-venv)")?;
        let wanted = format!("{}=={}", self.name, self.version);
        // Not `bin/pip`: that holds the folder's full path, and breaks when the repository is moved.
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &wanted];
        process::output(Command::new(folder.join("bin/python")).args(pip)).await?;
        Ok(())
    }
}
