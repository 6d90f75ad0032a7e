//! The files that the rules are about, and a rule that is broken in one.

use std::fmt;
use std::path::Path;

/// A file of the repository.
pub(super) struct File {
    /// From the root of the repository, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Whether the file is part of this check: it has to spell out what it forbids.
    pub(super) fn is_tidy_itself(&self) -> bool {
        self.path.starts_with("xtask/src/tidy/")
    }

    /// The lines with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    pub(super) fn violation(
        &self,
        line: usize,
        rule: impl Into<String>,
        advice: impl Into<String>,
    ) -> Violation {
        Violation { path: self.path.clone(), line, rule: rule.into(), advice: advice.into() }
    }
}

/// A broken rule, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Violation {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) rule: String,
    pub(super) advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} — {}", self.path, self.line, self.rule, self.advice)
    }
}

#[cfg(test)]
pub(super) fn file(path: &str, text: &str) -> File {
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
