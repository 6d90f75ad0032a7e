//! Rules about every text: nothing that belongs to one machine, nothing left over from work in progress.

use super::file::{File, Violation};

/// Folders that exist on somebody's machine.
const MACHINE_PATHS: [&str; 4] = ["/work/", "/tmp/", "/root/", "/home/"];

/// Notes to oneself.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// What no text should hold.
const LEFTOVERS: [&str; 4] = ["<<<<<<< ", ">>>>>>> ", "||||||| ", "lorem ipsum"];

/// The line between the two sides of a conflict.
const CONFLICT: &str = "=======";

/// All rules about one text.
pub(super) fn check(file: &File) -> Vec<Violation> {
    if file.has_extension("lock") || file.is_tidy_itself() {
        return Vec::new();
    }
    file.lines().flat_map(|(number, line)| check_line(file, number, line)).collect()
}

fn check_line(file: &File, number: usize, line: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(path) = MACHINE_PATHS.iter().find(|path| names_folder(line, path)) {
        let rule = format!("`{path}` is a path of one machine");
        violations.push(file.violation(number, rule, "use a path relative to the repository, or a setting"));
    }
    if let Some(note) = NOTES.iter().find(|note| has_word(line, note)) {
        violations.push(file.violation(
            number,
            format!("`{note}`"),
            "do it now, or decide not to and say why",
        ));
    }
    let lower = line.to_lowercase();
    if let Some(leftover) = LEFTOVERS.iter().find(|leftover| lower.contains(*leftover)) {
        violations.push(file.violation(number, format!("`{}`", leftover.trim()), "remove it"));
    }
    if line == CONFLICT {
        violations.push(file.violation(number, format!("`{CONFLICT}`"), "remove it"));
    }
    violations
}

/// Whether the folder is meant as such and is not a part of a longer path, as in `https://example.org/work/`.
fn names_folder(line: &str, folder: &str) -> bool {
    let is_part = |before: char| before.is_alphanumeric() || ".-_}".contains(before);
    line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(is_part))
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |neighbour: char| neighbour.is_alphanumeric() || neighbour == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn rules(line: &str) -> usize {
        check(&file("README.md", line)).len()
    }

    #[test]
    fn machine_paths_are_found_in_every_text() {
        assert_eq!(rules("cd /work/main"), 1);
        assert_eq!(rules("PATH=/home/me/bin"), 1);
        assert_eq!(rules("https://example.org/work/of/art"), 0);
        assert_eq!(rules("docs/tmp/x"), 0);
        assert_eq!(rules("tmpfs: /tmp"), 0);
    }

    #[test]
    fn lock_files_are_not_ours() {
        assert!(check(&file("Cargo.lock", "XXX /work/")).is_empty());
    }

    #[test]
    fn notes_are_whole_words() {
        assert_eq!(rules("// TODO: later"), 1);
        assert_eq!(rules("FIXME"), 1);
        assert_eq!(rules("const TODO_LIST: u8 = 1; let XXXL = 2;"), 0);
    }

    #[test]
    fn conflict_markers_are_found() {
        assert_eq!((rules("<<<<<<< HEAD"), rules("======="), rules("||||||| base")), (1, 1, 1));
        assert_eq!(rules("read -r ID <<< \"$(date)\""), 0);
    }
}
