//! The files of a directory, always in the same order.

use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// The files below a directory.
pub(crate) struct Files {
    /// The directory, absolute: workers may run elsewhere.
    pub(crate) root: String,
    /// The files below it, by name.
    pub(crate) paths: Vec<String>,
    /// How many could not be taken; each was named on standard error.
    pub(crate) skipped: usize,
}

/// Finds the regular files below `directory`; symbolic links are not followed. JSON carries text, so files whose path is
/// not UTF-8 are skipped with a message, and so is what cannot be read.
pub(crate) fn find(directory: &Path) -> anyhow::Result<Files> {
    let absolute =
        directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let root = absolute.to_str().context("the directory's path is not UTF-8")?.to_owned();
    let mut files = Files { root, paths: Vec::new(), skipped: 0 };
    for entry in WalkDir::new(&absolute).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                files.skip(&error);
                continue;
            }
        };
        if !entry.file_type().is_file() {
            continue;
        }
        match entry.path().strip_prefix(&absolute).ok().and_then(Path::to_str) {
            Some(path) => files.paths.push(path.to_owned()),
            None => files.skip(&format_args!("{}: the path is not UTF-8", entry.path().display())),
        }
    }
    Ok(files)
}

impl Files {
    fn skip(&mut self, why: &dyn std::fmt::Display) {
        eprintln!("skipped {why}");
        self.skipped += 1;
    }

    /// The run's name: the one given, or one that only this directory has.
    pub(crate) fn run(&self, given: Option<String>) -> String {
        given.unwrap_or_else(|| format!("digest-{}", &hash([self.root.as_str()])[..16]))
    }
}

/// The SHA-256 sum over all parts, in hexadecimal digits. No two lists of parts run together.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    hexadecimal(&hasher.finalize())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
