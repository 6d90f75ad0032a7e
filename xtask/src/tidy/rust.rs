//! Rules about Rust code: sizes, names, and who may name whom.

use super::file::{File, Violation};
use super::tokens::{self, Token};

/// A longer file is about two things.
const LONGEST: usize = 400;

/// Names that say nothing, so everything ends up there.
const BANNED_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "misc", "types"];

/// Metaphors that were names once, and the terms that are names now.
const METAPHORS: [(&str, &str); 10] = [
    ("desk", "claim groups"),
    ("shelf", "ready cache"),
    ("seat", "caller"),
    ("lent", "hand-off"),
    ("handout", "delivery"),
    ("stir", "event"),
    ("pulse", "renewal"),
    ("fate", "write outcome"),
    ("unsay", "withdraw"),
    ("mistake", "injected fault"),
];

/// A library that is named only where it belongs.
struct Boundary {
    library: &'static str,
    is_of: fn(&str) -> bool,
    places: &'static [&'static str],
    advice: &'static str,
}

const BOUNDARIES: [Boundary; 3] = [
    Boundary {
        library: "mongodb",
        is_of: |name| name == "mongodb",
        places: &["server/src/store/", "bench/", "chaos/", "tests/", "xtask/"],
        advice: "ask the store for what you need, so that queries stay in one place",
    },
    Boundary {
        library: "bson",
        is_of: |name| name == "bson",
        places: &[
            "server/src/store/",
            "server/src/task/",
            "server/src/task_types/",
            "server/src/events/task_move.rs",
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
        is_of: |name| name == "actix" || name.starts_with("actix_"),
        places: &["server/src/http/", "server/src/server.rs"],
        advice: "keep HTTP at the edge: this code must not know who calls it",
    },
];

/// Macros that are left behind by unfinished work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Functions that wait for some time to pass.
const SLEEPS: [&str; 2] = ["sleep", "sleep_until"];

/// What a waiting line in a test must end with to be allowed.
const SLEEP_REASON: &str = "// tidy: sleep — ";

/// All rules about one Rust file.
pub(super) fn check(file: &File) -> Vec<Violation> {
    if !file.has_extension("rs") {
        return Vec::new();
    }
    let tokens = tokens::of(&file.text);
    let by_tokens = [names, metaphors, boundaries, unfinished, ignored, sleeps]
        .into_iter()
        .flat_map(|rule| rule(file, &tokens));
    size(file).into_iter().chain(by_tokens).collect()
}

fn size(file: &File) -> Vec<Violation> {
    let length = file.text.lines().count();
    let too_long = (length > LONGEST).then(|| {
        file.violation(LONGEST + 1, format!("{length} lines, more than {LONGEST}"), "split it by intention")
    });
    too_long.into_iter().collect()
}

fn names(file: &File, tokens: &[Token]) -> Vec<Violation> {
    let violation = |line, name: &str| {
        let advice = "name it for what it does, or put its parts where they are used";
        file.violation(line, format!("`{name}` as a name"), advice)
    };
    let path = file.path.trim_end_matches(".rs").split('/').filter(|part| BANNED_NAMES.contains(part));
    let in_path = path.map(|name| violation(1, name));
    let modules = tokens.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| &pair[1]);
    let inline = modules.filter(|name| BANNED_NAMES.contains(&&*name.text));
    in_path.chain(inline.map(|name| violation(name.line, &name.text))).collect()
}

fn metaphors(file: &File, tokens: &[Token]) -> Vec<Violation> {
    let violation = |line, name: &str| {
        let words = words(name);
        let (word, term) = METAPHORS.iter().find(|(word, _)| {
            words.iter().any(|it| it.strip_suffix('s').unwrap_or(it) == *word || it == word)
        })?;
        Some(file.violation(line, format!("`{name}` is named for a {word}"), format!("the term is {term}")))
    };
    let path = file.path.trim_end_matches(".rs").split('/').filter_map(|name| violation(1, name));
    path.chain(tokens.iter().filter_map(|token| violation(token.line, &token.text))).collect()
}

/// The words of a name in snake or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in name.chars() {
        if letter == '_' || letter == '-' || letter.is_uppercase() && was_lower {
            words.push(String::new());
        }
        was_lower = letter.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

fn boundaries(file: &File, tokens: &[Token]) -> Vec<Violation> {
    let outside =
        BOUNDARIES.iter().filter(|boundary| !boundary.places.iter().any(|at| file.path.starts_with(at)));
    let crossings = outside.flat_map(|boundary| {
        let rule = format!("{} outside of {}", boundary.library, boundary.places.join(", "));
        let crossed = tokens.iter().filter(|token| (boundary.is_of)(&token.text));
        crossed.map(move |token| file.violation(token.line, rule.clone(), boundary.advice))
    });
    crossings.collect()
}

fn unfinished(file: &File, tokens: &[Token]) -> Vec<Violation> {
    let calls = tokens.windows(2).filter(|pair| pair[1].text == "!").map(|pair| &pair[0]);
    let found = calls.filter(|name| UNFINISHED.contains(&&*name.text));
    found
        .map(|name| file.violation(name.line, format!("`{}!(…)`", name.text), "finish it, or leave it out"))
        .collect()
}

fn ignored(file: &File, tokens: &[Token]) -> Vec<Violation> {
    let found = tokens::in_attributes(tokens).filter(|token| token.text == "ignore");
    found.map(|token| file.violation(token.line, "an ignored test", "make it pass, or delete it")).collect()
}

fn sleeps(file: &File, tokens: &[Token]) -> Vec<Violation> {
    if !file.path.starts_with("tests/it/") {
        return Vec::new();
    }
    let advice = format!(
        "wait for the thing itself; where time is the subject, end the line with `{SLEEP_REASON}why`"
    );
    let calls = tokens.windows(2).filter(|pair| pair[1].text == "(").map(|pair| &pair[0]);
    let has_reason =
        |line: usize| file.lines().any(|(number, text)| number == line && text.contains(SLEEP_REASON));
    calls
        .filter(|name| SLEEPS.contains(&&*name.text) && !has_reason(name.line))
        .map(|name| file.violation(name.line, "a sleep in a test", advice.clone()))
        .collect()
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
        assert_eq!(broken("server/src/a.rs", "mod misc {}").len(), 1);
        assert!(broken("server/src/a.rs", "mod utilisation;").is_empty());
    }

    #[test]
    fn a_metaphor_is_found_as_a_word_of_any_name() {
        for text in [
            "struct Seat;",
            "fn f(shelf_of: u8) {}",
            "mod pulses;",
            "const MAX_FATE: u8 = 1;",
            "enum E { UnsayAll }",
        ] {
            assert_eq!(broken("server/src/a.rs", text).len(), 1, "{text}");
        }
        assert_eq!(broken("server/src/desk.rs", "").len(), 1);
        for text in [
            "fn stirrup() {}",
            "struct Silent;",
            "// a desk",
            "const A: &str = \"pulse\";",
            "fn fateful() {}",
        ] {
            assert!(broken("server/src/a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn the_database_is_named_in_the_store_only() {
        let text = "use mongodb::bson::doc;";
        assert_eq!(broken("server/src/tasks/claim.rs", "use mongodb::Client;").len(), 1);
        assert_eq!(broken("server/src/tasks/claim.rs", "fn a(b: bson::Bson) {}").len(), 1);
        assert_eq!(broken("server/src/tasks/claim.rs", "use {mongodb as m};\nuse ::mongodb;").len(), 2);
        assert!(broken("server/src/store/claim.rs", text).is_empty());
        assert!(broken("server/src/config.rs", r#""mongodb://127.0.0.1""#).is_empty());
        assert!(broken("server/src/config.rs", "// like mongodb::Client").is_empty());
    }

    #[test]
    fn http_is_named_at_the_edge_only() {
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
        assert_eq!(broken("client/src/a.rs", "fn a() { todo![] }").len(), 1);
        assert_eq!(broken("tests/it/a.rs", "#[ignore = \"slow\"] fn a() {}").len(), 1);
        assert_eq!(broken("tests/it/a.rs", "#[cfg_attr(all(), ignore)] fn a() {}").len(), 1);
        assert!(broken("tests/it/a.rs", "// todo!()\nfn ignore() {}").is_empty());
    }

    #[test]
    fn a_sleep_needs_a_reason_in_tests_only() {
        let bare = "sleep(A).await;";
        assert_eq!(broken("tests/it/a.rs", bare).len(), 1);
        assert_eq!(broken("tests/it/a.rs", "sleep_until(A).await;").len(), 1);
        assert!(
            broken("tests/it/a.rs", "sleep(A).await; // tidy: sleep — the lease must run out").is_empty()
        );
        assert!(broken("client/src/a.rs", bare).is_empty());
    }
}
