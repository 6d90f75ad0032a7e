//! Rules about Rust code: sizes, names, and who may name whom.

use super::file::{File, Violation};

/// A longer file is about two things.
const LONGEST: usize = 400;

/// Names that say nothing, so everything ends up there.
const BANNED_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "misc", "types"];

/// A library that is named only where it belongs.
struct Boundary {
    library: &'static str,
    spellings: &'static [&'static str],
    places: &'static [&'static str],
    advice: &'static str,
}

const BOUNDARIES: [Boundary; 3] = [
    Boundary {
        library: "mongodb",
        spellings: &["mongodb::", "use mongodb"],
        places: &["server/src/store/", "bench/", "chaos/", "tests/", "xtask/"],
        advice: "ask the store for what you need, so that queries stay in one place",
    },
    Boundary {
        library: "bson",
        spellings: &["bson::", "use bson"],
        places: &[
            "server/src/store/",
            "server/src/task/",
            "server/src/kept.rs",
            "server/src/access/key.rs",
            "bench/",
            "chaos/",
            "tests/",
            "xtask/",
        ],
        advice: "let the stored form of a task be the store's matter",
    },
    Boundary {
        library: "actix",
        spellings: &["actix_", "actix::"],
        places: &[
            "server/src/http/",
            "server/src/server.rs",
            "server/src/main.rs",
            "server/src/telemetry.rs",
        ],
        advice: "keep HTTP at the edge: this code must not know who calls it",
    },
];

/// What is left behind by unfinished work.
const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];

/// What a waiting line in a test must end with to be allowed.
const SLEEP_REASON: &str = "// tidy: sleep — ";

/// All rules about one Rust file.
pub(super) fn check(file: &File) -> Vec<Violation> {
    if !file.has_extension("rs") || file.is_tidy_itself() {
        return Vec::new();
    }
    [size(file), names(file), boundaries(file), unfinished(file), ignored(file), sleeps(file)].concat()
}

fn size(file: &File) -> Vec<Violation> {
    let length = file.text.lines().count();
    let too_long = (length > LONGEST).then(|| {
        file.violation(LONGEST + 1, format!("{length} lines, more than {LONGEST}"), "split it by intention")
    });
    too_long.into_iter().collect()
}

fn names(file: &File) -> Vec<Violation> {
    let rule = |name: &str| format!("`{name}` as a name");
    let advice = "name it for what it does, or put its parts where they are used";
    let path = file.path.trim_end_matches(".rs").split('/').filter(|part| BANNED_NAMES.contains(part));
    let in_path = path.map(|name| file.violation(1, rule(name), advice));
    let inline = code_lines(file).filter_map(|(number, line)| {
        let name = line.split_once("mod ")?.1.trim_end_matches([' ', ';', '{']);
        BANNED_NAMES.contains(&name).then(|| file.violation(number, rule(name), advice))
    });
    in_path.chain(inline).collect()
}

fn boundaries(file: &File) -> Vec<Violation> {
    let outside =
        BOUNDARIES.iter().filter(|boundary| !boundary.places.iter().any(|at| file.path.starts_with(at)));
    let crossings = outside.flat_map(|boundary| {
        let crossed =
            code_lines(file).filter(|(_, line)| boundary.spellings.iter().any(|word| line.contains(word)));
        crossed.map(|(number, _)| {
            let rule = format!("{} outside of {}", boundary.library, boundary.places.join(", "));
            file.violation(number, rule, boundary.advice)
        })
    });
    crossings.collect()
}

fn unfinished(file: &File) -> Vec<Violation> {
    let found = code_lines(file).filter_map(|(number, line)| {
        let word = UNFINISHED.iter().find(|word| line.contains(*word))?;
        Some(file.violation(number, format!("`{word}…)`"), "finish it, or leave it out"))
    });
    found.collect()
}

fn ignored(file: &File) -> Vec<Violation> {
    let found = code_lines(file).filter(|(_, line)| line.contains("#[ignore"));
    found.map(|(number, _)| file.violation(number, "an ignored test", "make it pass, or delete it")).collect()
}

fn sleeps(file: &File) -> Vec<Violation> {
    let found = file.path.starts_with("tests/it/").then(|| code_lines(file)).into_iter().flatten();
    let advice = format!(
        "wait for the thing itself; where time is the subject, end the line with `{SLEEP_REASON}why`"
    );
    found
        .filter(|(_, line)| line.contains("sleep(") && !line.contains(SLEEP_REASON))
        .map(|(number, _)| file.violation(number, "a sleep in a test", advice.clone()))
        .collect()
}

/// Lines that are not comments as a whole.
fn code_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn broken(path: &str, text: &str) -> Vec<(usize, String)> {
        check(&file(path, text)).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_file_may_have_400_lines_and_no_more() {
        assert!(broken("server/src/a.rs", &"\n".repeat(400)).is_empty());
        assert_eq!(broken("server/src/a.rs", &"\n".repeat(401)).len(), 1);
        assert!(broken("docs/a.md", &"\n".repeat(401)).is_empty());
    }

    #[test]
    fn empty_names_are_found_in_paths_and_modules() {
        assert_eq!(broken("server/src/utils.rs", "").len(), 1);
        assert_eq!(broken("tests/it/common/mod.rs", "").len(), 1);
        assert_eq!(broken("server/src/a.rs", "mod a;\npub(crate) mod helpers {\n}")[0].0, 2);
        assert!(broken("server/src/a.rs", "mod utilisation;").is_empty());
    }

    #[test]
    fn the_database_is_named_in_the_store_only() {
        let text = "use mongodb::bson::doc;";
        assert_eq!(broken("server/src/tasks/claim.rs", "use mongodb::Client;").len(), 1);
        assert_eq!(broken("server/src/tasks/claim.rs", "fn a(b: bson::Bson) {}").len(), 1);
        assert!(broken("server/src/store/claim.rs", text).is_empty());
        assert!(broken("server/src/config.rs", r#""mongodb://127.0.0.1""#).is_empty());
        assert!(broken("server/src/config.rs", "// like mongodb::Client").is_empty());
    }

    #[test]
    fn actix_is_named_at_the_edge_only() {
        let text = "use actix_web::web;";
        assert_eq!(broken("server/src/store/claim.rs", text).len(), 1);
        assert_eq!(broken("client/src/lib.rs", text).len(), 1);
        assert!(broken("server/src/http/claim.rs", text).is_empty());
        assert!(broken("server/src/server.rs", text).is_empty());
    }

    #[test]
    fn unfinished_and_ignored_is_found() {
        assert_eq!(broken("client/src/a.rs", "fn a() { todo!() }").len(), 1);
        assert_eq!(broken("client/src/a.rs", "\nlet a = dbg!(b);"), [(2, "`dbg!(…)`".into())]);
        assert_eq!(broken("tests/it/a.rs", "#[ignore = \"slow\"]").len(), 1);
    }

    #[test]
    fn a_sleep_needs_a_reason_in_tests_only() {
        let bare = "sleep(A).await;";
        assert_eq!(broken("tests/it/a.rs", bare).len(), 1);
        assert!(
            broken("tests/it/a.rs", "sleep(A).await; // tidy: sleep — the lease must run out").is_empty()
        );
        assert!(broken("client/src/a.rs", bare).is_empty());
    }
}
