//! Small disks that are filled to the last byte.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

/// Room for a database's own files, and for a run's tasks.
const SIZE: &str = "size=700m";

/// A file system in memory, mounted until it is dropped.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one there. Needs the rights of an administrator.
    pub(crate) fn mount(folder: &Path) -> Result<Self> {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "chaos"]).arg(folder).status()?;
        ensure!(status.success(), "a small disk cannot be mounted");
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Lazily: a database may still be about to end.
fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("-l").arg(folder).status();
}

/// Unmounts whatever is mounted below a folder.
pub(crate) fn unmount_below(folder: &Path) -> Result<()> {
    let folder = folder.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    places.filter(|place| place.starts_with(&folder)).for_each(unmount);
    Ok(())
}

/// Whether small disks can be mounted.
pub(crate) fn is_possible() -> bool {
    let folder = std::env::temp_dir().join(format!("task-repo-chaos-{}", std::process::id()));
    std::fs::create_dir_all(&folder).is_ok_and(|()| {
        let is_possible = Disk::mount(&folder).is_ok();
        let _ = std::fs::remove_dir(&folder);
        is_possible
    })
}

fn ballast(folder: &Path) -> PathBuf {
    folder.join("ballast")
}

/// Writes until nothing more fits.
pub(crate) fn fill(folder: &Path) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(ballast(folder))?;
    let block = vec![0; 1 << 20];
    for size in [block.len(), 4096, 1] {
        loop {
            match file.write_all(&block[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Gives the room back.
pub(crate) fn free(folder: &Path) -> Result<()> {
    Ok(std::fs::remove_file(ballast(folder))?)
}
