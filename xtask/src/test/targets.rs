//! Which targets have tests that a filter can match, and what `cargo test` is told to build and run these alone.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::names;
use crate::process;

/// The target whose tests need a database; its name is the only one of its kind in the workspace.
pub(super) const WITH_DATABASE: &str = "it";

/// How many tests are named to somebody whose filter matches none.
const NEAR: usize = 5;
/// How alike a name must be to be named, from 0 to 1.
const ALIKE: f64 = 0.7;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
    /// Whether `cargo test` runs tests in it.
    test: bool,
}

/// What is built and run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    Everything,
    Some {
        /// Packages whose libraries have such tests.
        libraries: Vec<String>,
        /// Programs that have such tests.
        programs: Vec<String>,
        /// Targets below `tests/`, or its like, that have such tests.
        tests: Vec<String>,
    },
}

impl Selection {
    pub(super) fn everything() -> Self {
        Self::Everything
    }

    /// The words of each call of `cargo test`.
    pub(super) fn calls(&self) -> Vec<Vec<String>> {
        let Self::Some { libraries, programs, tests } = self else {
            return vec![vec!["--workspace".to_owned()]];
        };
        let each = |option: &str, names: &[String]| -> Vec<String> {
            names.iter().flat_map(|name| [option.to_owned(), name.clone()]).collect()
        };
        let mut calls = Vec::new();
        if !libraries.is_empty() {
            calls.push([vec!["--lib".to_owned()], each("--package", libraries)].concat());
        }
        // Without packages: then their dependencies are those that a run of everything has built.
        if !programs.is_empty() || !tests.is_empty() {
            calls.push([each("--bin", programs), each("--test", tests)].concat());
        }
        calls
    }

    pub(super) fn needs_database(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Some { tests, .. } => tests.iter().any(|name| name == WITH_DATABASE),
        }
    }
}

/// The targets with tests that the filter can match. An error names tests that are nearly called so if there is none.
pub(super) async fn matching(filter: &str) -> Result<Selection> {
    let words = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Metadata = serde_json::from_str(&process::output(process::cargo().args(words)).await?)
        .context("`cargo metadata` says something else than expected")?;
    let (mut libraries, mut programs, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Vec::new();
    for package in metadata.packages {
        for target in package.targets.into_iter().filter(|target| target.test) {
            let names = names::in_target(&target.src_path)?;
            if names.iter().any(|name| names::may_match(name, filter)) {
                match target.kind.first().map(String::as_str) {
                    Some("bin") => programs.push(target.name),
                    Some("test") => tests.push(target.name),
                    _ => libraries.push(package.name.clone()),
                }
            }
            all.extend(names);
        }
    }
    if libraries.is_empty() && programs.is_empty() && tests.is_empty() {
        bail!("no test's path contains `{filter}`{}", near(filter, &all));
    }
    Ok(Selection::Some { libraries, programs, tests })
}

/// The tests with parts in their paths that are most like the filter.
fn near(filter: &str, names: &[String]) -> String {
    let filter = filter.trim_matches(':');
    let depth = filter.split("::").count();
    // As many parts in a row as the filter has.
    let likeness = |name: &String| {
        let parts: Vec<_> = name.split("::").collect();
        let rows = parts.windows(depth.min(parts.len()));
        rows.map(|row| strsim::jaro_winkler(filter, &row.join("::"))).fold(0.0, f64::max)
    };
    let mut near: Vec<_> = names.iter().map(|name| (likeness(name), name)).collect();
    near.retain(|(likeness, _)| *likeness >= ALIKE);
    near.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
    near.dedup();
    let lines: Vec<_> = near.iter().take(NEAR).map(|(_, name)| format!("\n  {name}")).collect();
    if lines.is_empty() { String::new() } else { format!("; near it are:{}", lines.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(libraries: &[&str], programs: &[&str], tests: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Selection::Some { libraries: owned(libraries), programs: owned(programs), tests: owned(tests) }
    }

    #[test]
    fn each_target_is_built_alone() {
        let selection = selection(&["server", "client"], &["xtask"], &["it", "lists"]);
        assert_eq!(
            selection.calls().iter().map(|words| words.join(" ")).collect::<Vec<_>>(),
            ["--lib --package server --package client", "--bin xtask --test it --test lists"]
        );
        assert_eq!(Selection::Everything.calls(), [["--workspace"]]);
    }

    #[test]
    fn only_one_target_needs_databases() {
        assert!(selection(&["server"], &[], &["it"]).needs_database());
        assert!(!selection(&["server"], &["xtask"], &["lists"]).needs_database());
        assert!(Selection::Everything.needs_database());
    }

    #[tokio::test]
    async fn a_filter_leads_to_the_targets_of_this_workspace() {
        let found = matching("test::targets::tests::a_filter_leads").await.unwrap();
        assert_eq!(found, selection(&[], &["xtask"], &[]));
        let found = matching("claim_waiting").await.unwrap();
        assert!(found.needs_database(), "{found:?}");
        let error = matching("claim_wating::").await.unwrap_err().to_string();
        assert!(error.contains("`claim_wating::`; near it are:\n  claim_waiting::"), "{error}");
    }

    #[test]
    fn near_names_are_alike_as_a_whole_or_in_a_part() {
        let names = ["claim::waits".to_owned(), "settle::twice".to_owned()];
        assert_eq!(near("claims", &names), "; near it are:\n  claim::waits");
        assert_eq!(near("claim::wait", &names), "; near it are:\n  claim::waits");
        assert_eq!(near("zzz", &names), "");
    }
}
