//! Packing: what is in the archive, and its checksum.
//!
//! The same contents make the same archive, byte for byte, whoever packs it and when: sorted, owned by nobody in
//! particular, and as old as the last commit. GNU `tar` can do all that.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;
use walkdir::WalkDir;

use crate::layout::{self, Scratch};
use crate::process;
use crate::server;

/// The checksums' file, in the form of `sha256sum`.
pub(super) const SUMS: &str = "SHA256SUMS";

/// What goes along with the program, files and whole folders: what the README refers to, and what somebody needs who
/// sets the service up.
const ALONG: [&str; 10] = [
    "README.md",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "config/production.env",
    "config/mongod.conf",
    "config/mongodb-init.js",
    "config/prometheus.yml",
    "docs",
];

/// What is different in each archive.
pub(super) struct Contents<'a> {
    /// Of the archive, and of the one folder in it.
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    /// The text of `THIRD-PARTY-NOTICES.txt`.
    pub(super) notices: &'a str,
    /// The time of all files, in seconds since 1970.
    pub(super) changed: &'a str,
}

/// Makes the archive in `folder` and returns where it is.
pub(super) async fn pack(contents: &Contents<'_>, folder: &Path) -> Result<PathBuf> {
    let scratch = Scratch::new()?;
    lay_out(contents, &scratch.path().join(contents.name))?;
    layout::make_folder(folder)?;
    let archive = folder.join(format!("{}.tar.gz", contents.name));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    // Programs stay programs, and whatever else the packer's own permissions are does not matter.
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", contents.changed)]);
    // `-n`: without the time of packing.
    tar.arg("--use-compress-program=gzip -n -9").arg("--file").arg(&archive);
    process::output(tar.arg("--directory").arg(scratch.path()).arg(contents.name)).await?;
    Ok(archive)
}

/// Puts all files where they will be in the archive.
fn lay_out(contents: &Contents<'_>, top: &Path) -> Result<()> {
    layout::make_folder(top)?;
    let program = top.join(server::NAME);
    copy(contents.program, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::write(top.join("THIRD-PARTY-NOTICES.txt"), contents.notices)?;
    for entry in ALONG.iter().flat_map(|path| WalkDir::new(layout::root().join(path))) {
        let entry = entry.context("a file that belongs into the archive")?;
        if entry.file_type().is_file() {
            copy(entry.path(), &top.join(entry.path().strip_prefix(layout::root())?))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    to.parent().map_or(Ok(()), layout::make_folder)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Writes the sums of all archives in `folder`: those of other platforms may have been put there.
pub(super) async fn write_sums(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut archives: Vec<OsString> = entries.into_iter().map(|entry| entry.file_name()).collect();
    archives.retain(|name| name.to_string_lossy().ends_with(".tar.gz"));
    archives.sort();
    let sums = process::output(Command::new("sha256sum").args(&archives).current_dir(folder)).await?;
    fs::write(folder.join(SUMS), sums)?;
    Ok(())
}

/// An error when an archive in `folder` is not what its sum says.
pub(super) async fn verify(folder: &Path) -> Result<()> {
    let words = ["--check", "--strict", "--quiet", SUMS];
    process::output(Command::new("sha256sum").args(words).current_dir(folder)).await?;
    Ok(())
}

/// Unpacks the archive below `folder`.
pub(super) async fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--file"]).arg(archive).arg("--directory").arg(folder);
    process::output(&mut tar).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "task-repo-server-0.1.0-somewhere";

    async fn pack_in(folder: &Path) -> PathBuf {
        let program = folder.join("program");
        fs::write(&program, "#!/bin/sh\necho hello\n").unwrap();
        let contents = Contents { name: NAME, program: &program, notices: "Be nice.", changed: "1700000000" };
        pack(&contents, &folder.join("out")).await.unwrap()
    }

    #[tokio::test]
    async fn an_archive_unpacks_to_one_folder_with_a_program_that_runs() {
        let scratch = Scratch::new().unwrap();
        let archive = pack_in(scratch.path()).await;
        let unpacked = scratch.path().join("unpacked");
        layout::make_folder(&unpacked).unwrap();
        unpack(&archive, &unpacked).await.unwrap();

        let top: Vec<_> = fs::read_dir(&unpacked).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(top, [NAME]);
        let mode = |path: &str| fs::metadata(unpacked.join(NAME).join(path)).unwrap().permissions().mode();
        assert_eq!(mode(server::NAME) & 0o777, 0o755);
        assert_eq!(mode("LICENSE-MIT") & 0o777, 0o644);
        assert_eq!(mode("docs/operations.md") & 0o777, 0o644);
        let notices = fs::read_to_string(unpacked.join(NAME).join("THIRD-PARTY-NOTICES.txt")).unwrap();
        assert_eq!(notices, "Be nice.");
        let program = unpacked.join(NAME).join(server::NAME);
        assert_eq!(process::output(&mut Command::new(program)).await.unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn the_same_contents_make_the_same_archive() {
        let (one, other) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        let archives = [pack_in(one.path()).await, pack_in(other.path()).await];
        let [one, other] = archives.map(|archive| fs::read(archive).unwrap());
        assert!(one == other);
    }

    #[tokio::test]
    async fn sums_are_checked_by_name_and_notice_a_change() {
        let scratch = Scratch::new().unwrap();
        for name in ["b.tar.gz", "a.tar.gz", "note.txt"] {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        write_sums(scratch.path()).await.unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let sums = fs::read_to_string(scratch.path().join(SUMS)).unwrap();
        assert_eq!(sums, format!("{empty}  a.tar.gz\n{empty}  b.tar.gz\n"));
        verify(scratch.path()).await.unwrap();
        fs::write(scratch.path().join("b.tar.gz"), "x").unwrap();
        assert!(verify(scratch.path()).await.is_err());
    }
}
