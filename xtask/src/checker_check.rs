//! Whether the check of the checker (`cargo xtask chaos --injected-faults`) has passed for the sources as they are.
//!
//! It builds the server twice and breaks six replica sets, and says nothing about a change of the service. So it runs
//! when the harness or the injected faults changed: their fingerprint is not the one that the last passed check has left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fingerprint::{self, Fingerprint};
use crate::layout;

/// Where a passed check leaves the fingerprint; the file is committed.
const RECORD: &str = "chaos/injected-faults-found.txt";
/// The harness and its checker, the injected faults, and the command that injects them. Below folders every file counts.
const WHOLE: [&str; 4] =
    ["chaos/Cargo.toml", "chaos/src", "server/src/fault_injection.rs", "xtask/src/chaos.rs"];
/// Of what is below, the lines that inject a fault count.
const HOOKS: &str = "server/src";
/// What such a line names.
const HOOK: &str = "fault_injection::";

/// The fingerprint of the harness, and whether the check has passed for it.
pub(crate) fn state() -> Result<(String, bool)> {
    let fingerprint = fingerprint(layout::root())?;
    let has_passed = fingerprint::has_passed(RECORD, &fingerprint);
    Ok((fingerprint, has_passed))
}

/// Writes down that the check has passed for the sources with that fingerprint.
pub(crate) fn record(fingerprint: &str) -> Result<()> {
    fingerprint::keep(RECORD, fingerprint)
}

fn fingerprint(root: &Path) -> Result<String> {
    let mut hash = Fingerprint::new();
    for place in WHOLE {
        for file in files(&root.join(place))? {
            hash.add(name(root, &file).as_bytes());
            hash.add(read(&file)?.as_bytes());
        }
    }
    for file in files(&root.join(HOOKS))? {
        for line in read(&file)?.lines().filter(|line| line.contains(HOOK)) {
            hash.add(name(root, &file).as_bytes());
            hash.add(line.trim().as_bytes());
        }
    }
    Ok(hash.to_string())
}

fn name<'a>(root: &Path, file: &'a Path) -> std::borrow::Cow<'a, str> {
    file.strip_prefix(root).unwrap_or(file).to_string_lossy()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The files at that place, in the order of their names.
fn files(place: &Path) -> Result<Vec<PathBuf>> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))?;
    for entry in entries {
        found.extend(files(&entry?.path())?);
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scratch;

    /// Sources in which each counted place has something.
    fn sources() -> Scratch {
        let scratch = Scratch::new().unwrap();
        for file in
            ["chaos/Cargo.toml", "chaos/src/a.rs", "server/src/fault_injection.rs", "xtask/src/chaos.rs"]
        {
            write(&scratch, file, "one");
        }
        write(&scratch, "server/src/store/insert.rs", "fn f() {\n    fault_injection::is_injected(A);\n}\n");
        scratch
    }

    fn write(scratch: &Scratch, file: &str, text: &str) {
        let path = scratch.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_the_check_is_about_changes_the_fingerprint_and_nothing_else_does() {
        let scratch = sources();
        let before = fingerprint(scratch.path()).unwrap();
        assert_eq!(before, fingerprint(sources().path()).unwrap(), "wherever the sources lie");
        write(
            &scratch,
            "server/src/store/insert.rs",
            "fn g() {}\nfn f() {\n  fault_injection::is_injected(A);\n}\n",
        );
        write(&scratch, RECORD, "anything");
        assert_eq!(fingerprint(scratch.path()).unwrap(), before, "the fault is injected as before");
        for (file, text) in [
            ("chaos/src/a.rs", "two"),
            ("chaos/src/checker/b.rs", "one"),
            ("server/src/fault_injection.rs", "two"),
            ("xtask/src/chaos.rs", "two"),
            ("server/src/store/insert.rs", "fn f() {}"),
        ] {
            let scratch = sources();
            write(&scratch, file, text);
            assert_ne!(fingerprint(scratch.path()).unwrap(), before, "{file}");
        }
    }

    #[test]
    fn the_server_injects_every_fault_somewhere() {
        let faults = layout::root().join("server/src/fault_injection.rs");
        let names = read(&faults).unwrap();
        let names: Vec<_> =
            names.split("Some(InjectedFault::").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(names.len() > 3, "{names:?}");
        let sources = files(&layout::root().join(HOOKS)).unwrap();
        let sources: Vec<_> =
            sources.iter().filter(|file| **file != faults).map(|file| read(file).unwrap()).collect();
        for name in names {
            let hook = format!("fault_injection::is_injected(InjectedFault::{name})");
            assert!(sources.iter().any(|source| source.contains(&hook)), "{hook} is nowhere");
        }
    }

    #[test]
    fn the_harness_of_this_repository_has_a_fingerprint() {
        assert_eq!(state().unwrap().0.len(), 16);
    }
}
