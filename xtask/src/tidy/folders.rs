//! Folders of one package have names that nobody mistakes for each other.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{File, Violation};

/// Two folders whose names differ by so many letters are mistaken for each other.
const TOO_NEAR: usize = 1;

/// The pairs of folders below one `src/` whose names are the same or nearly so.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    // Each folder with a file in it, by package.
    let mut packages: BTreeMap<&str, BTreeMap<String, &File>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let Some((package, below)) = file.path.split_once("/src/") else { continue };
        let parts: Vec<_> = below.split('/').collect();
        for depth in 1..parts.len() {
            packages.entry(package).or_default().entry(parts[..depth].join("/")).or_insert(file);
        }
    }
    let mut violations = Vec::new();
    for folders in packages.values() {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for (folder, file) in folders {
            for other in &seen {
                if strsim::levenshtein(name(folder), name(other)) <= TOO_NEAR {
                    let rule =
                        format!("the names of the folders {other} and {folder} differ by a letter at most");
                    violations.push(file.violation(1, rule, "name one of them for what sets it apart"));
                }
            }
            seen.insert(folder);
        }
    }
    violations
}

fn name(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn count(paths: &[&str]) -> usize {
        check(&paths.iter().map(|path| file(path, "")).collect::<Vec<_>>()).len()
    }

    #[test]
    fn folders_with_nearly_the_same_name_are_found_at_any_depth() {
        assert_eq!(count(&["server/src/task/a.rs", "server/src/tasks/a.rs"]), 1);
        assert_eq!(
            count(&["server/src/task/a.rs", "server/src/store/tasks/a.rs", "server/src/store/b.rs"]),
            1
        );
        assert_eq!(count(&["server/src/read/a.rs", "server/src/store/read/a.rs"]), 1);
    }

    #[test]
    fn other_names_and_other_packages_are_none_of_it() {
        assert_eq!(count(&["server/src/task/a.rs", "server/src/task/b.rs", "server/src/store/a.rs"]), 0);
        assert_eq!(count(&["server/src/task/a.rs", "client/src/tasks/a.rs", "server/src/tasks.rs"]), 0);
    }
}
