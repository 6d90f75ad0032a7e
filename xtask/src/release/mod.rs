//! `cargo xtask release`: this version for this platform as an archive, for those who have neither this repository nor
//! a compiler.
//!
//! Whoever gets the archive knows its version and nothing else of where it came from. So nothing is built from sources
//! that no commit holds, or under a version that the changelog does not know ([`readiness`]). The program is linked
//! from other people's work, whose licences ask to be passed on ([`packages`], [`notices`]). Then all is packed
//! ([`archive`]) and, with `--check`, tried as its users will ([`check`]).

mod archive;
mod check;
mod notices;
mod packages;
mod readiness;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::layout;
use crate::process;
use crate::server;
use crate::spinner::Spinner;
use archive::Contents;

/// The version of everything in the workspace, this program included.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Options of `cargo xtask release`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Afterwards unpack the archive and run the server that is in it, on a throw-away database
    #[arg(long)]
    check: bool,
    /// Also build from a work tree with uncommitted changes: to try it, not to hand it out
    #[arg(long)]
    allow_dirty: bool,
}

/// Builds the archive and its checksum, and says where they are.
pub(crate) async fn run(args: &Args) -> Result<()> {
    if !args.allow_dirty {
        readiness::committed().await?;
    }
    readiness::in_changelog(VERSION)?;
    let platform = platform().await?;
    let program = build().await?;

    let spinner = Spinner::new("gathering licences");
    let name = format!("{}-{VERSION}-{platform}", server::NAME);
    let notices = notices::render(&name, &packages::linked(&platform).await?)?;
    spinner.done();

    let spinner = Spinner::new("packing");
    let folder = layout::target().join("releases").join(VERSION);
    let changed = readiness::last_commit_time().await?;
    let contents = Contents { name: &name, program: &program, notices: &notices, changed: &changed };
    let archive = archive::pack(&contents, &folder).await?;
    archive::write_sums(&folder).await?;
    spinner.done();

    if args.check {
        check::archive(&archive, &name, VERSION).await?;
    }
    println!("{}\n{}", archive.display(), folder.join(archive::SUMS).display());
    Ok(())
}

/// The servers in the archives that were made here, unpacked below `folder`.
pub(crate) async fn servers(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut servers = Vec::new();
    let versions = std::fs::read_dir(layout::target().join("releases")).into_iter().flatten().flatten();
    for version in versions {
        for file in std::fs::read_dir(version.path()).into_iter().flatten().flatten() {
            let (path, name) = (file.path(), file.file_name());
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".tar.gz")) {
                archive::unpack(&path, folder).await?;
                servers.push(folder.join(name).join(server::NAME));
            }
        }
    }
    Ok(servers)
}

/// The target triple of what cargo builds here.
async fn platform() -> Result<String> {
    let said = process::output(Command::new("rustc").arg("-vV").current_dir(layout::root())).await?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// Not [`server::build`]: what is handed out is built from the very versions in `Cargo.lock`, or not at all.
async fn build() -> Result<PathBuf> {
    process::run(process::cargo().args(["build", "--release", "--locked", "--bin", server::NAME])).await?;
    Ok(layout::target().join("release").join(server::NAME))
}
