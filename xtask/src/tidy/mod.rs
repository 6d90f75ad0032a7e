//! `cargo xtask tidy`: the rules of this repository that no compiler knows.
//!
//! A rule is a function from the repository's files to violations, and is tested on made-up files. Three kinds:
//! [`rust`] about Rust code, [`text`] about every text, [`documented`] about documents that must keep up with the code.

mod documented;
mod rust;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::layout;

/// A file of the repository.
struct File {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl File {
    fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Whether the file is part of this check: it has to spell out what it forbids.
    fn is_tidy_itself(&self) -> bool {
        self.path.starts_with("xtask/src/tidy/")
    }

    /// The lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    fn violation(&self, line: usize, rule: impl Into<String>, advice: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line, rule: rule.into(), advice: advice.into() }
    }
}

/// A broken rule, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    path: String,
    line: usize,
    rule: String,
    advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} — {}", self.path, self.line, self.rule, self.advice)
    }
}

/// Checks all rules and prints every violation.
pub(crate) fn run() -> Result<()> {
    let files = files()?;
    ensure!(!files.is_empty(), "git lists no files in {}", layout::root().display());
    let violations = check(&files);
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("{} files, no rule broken", files.len());
        return Ok(());
    }
    bail!("{} broken rules", violations.len())
}

fn check(files: &[File]) -> Vec<Violation> {
    let per_file = files.iter().flat_map(|file| [rust::check(file), text::check(file)]).flatten();
    let mut violations: Vec<_> = per_file.chain(documented::check(files)).collect();
    violations.sort();
    violations
}

/// Everything git tracks or would track, so that a new file is checked before it is added. Binary files are left out.
fn files() -> Result<Vec<File>> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git").args(list).current_dir(layout::root()).output();
    let output = output.context("git is needed to know which files to check")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let paths = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    let present = paths.split_terminator('\0').filter_map(|path| {
        let text = fs::read_to_string(layout::root().join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    });
    Ok(present.collect())
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_says_where_what_and_what_to_do() {
        let violation = file("a/b.rs", "").violation(7, "rule", "do this");
        assert_eq!(violation.to_string(), "a/b.rs:7: rule — do this");
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(file("a", "x\ny").lines().collect::<Vec<_>>(), [(1, "x"), (2, "y")]);
    }
}
