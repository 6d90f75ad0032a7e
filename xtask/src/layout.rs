//! Where things are: the repository, the folders that git ignores, and free ports.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The root of the repository, wherever the command was called from.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The folder for what should outlive `cargo clean`: fetched tools and the data of `cargo xtask start`.
pub(crate) fn data() -> PathBuf {
    root().join(".data")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Makes a folder with its parents, or says which one could not be made.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// A port of the loopback address that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Whether nobody listens on this port of the loopback address.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// How many scratch folders this process has made.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder below the target folder that goes with its owner.
///
/// Its name begins with this process's id, so commands may run side by side, and what an earlier one left behind
/// because it was killed outright is recognised and removed. A process may have several: a number follows.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes an empty folder, and removes those of processes that are gone.
    pub(crate) fn new() -> Result<Self> {
        let parent = target().join("xtask");
        make_folder(&parent)?;
        for entry in fs::read_dir(&parent)?.flatten() {
            if owner(&entry.file_name()).is_some_and(|owner| !is_alive(owner)) {
                remove(&entry.path());
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{}-{number}", process::id()));
        remove(&folder);
        make_folder(&folder)?;
        Ok(Self { folder })
    }

    /// Where the folder is.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// The id of the process that a scratch folder belongs to.
fn owner(folder: &OsStr) -> Option<&str> {
    folder.to_str()?.split('-').next()
}

/// Where there is no `/proc` nothing can be told: then nothing counts as gone.
fn is_alive(pid: &str) -> bool {
    !Path::new("/proc/self").exists() || Path::new("/proc").join(pid).exists()
}

/// A process that was killed a moment ago may still be closing files in there, hence the second and third try.
#[expect(clippy::disallowed_methods, reason = "also called from drop, which cannot await")]
fn remove(folder: &Path) {
    for _ in 0..20 {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => thread::sleep(Duration::from_millis(100)),
            _ => return,
        }
    }
    eprintln!("warning: {} could not be removed", folder.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask/Cargo.toml").is_file());
    }

    #[test]
    fn a_process_may_have_several_scratch_folders() {
        let (one, other) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        assert!(one.path() != other.path() && one.path().is_dir() && other.path().is_dir());
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().is_dir());
        assert_eq!(owner(OsStr::new("17-0")), Some("17"));
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
