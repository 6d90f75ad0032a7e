//! Documents that must keep up with the code: every error code, path, route and setting has its row in the table where a
//! reader looks for it. A mention elsewhere is not enough.

use super::file::{File, Violation};
use super::markdown;

const CODES: &str = "protocol/src/error.rs";
const PATHS: &str = "protocol/src/path.rs";
const ROUTES: &str = "server/src/http/routes.rs";
const SETTINGS: &str = "server/src/config.rs";
const CONTRACT: &str = "docs/api.md";
const README: &str = "README.md";

/// How the paragraph begins that names the codes without a row.
const UNSENT: &str = "These codes are part of the vocabulary, but nothing in this version sends them:";

/// All rules about documents.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    pair(files, CODES, CONTRACT, &mut violations, undocumented_codes);
    pair(files, PATHS, CONTRACT, &mut violations, undocumented_paths);
    pair(files, ROUTES, PATHS, &mut violations, |routes, paths| {
        files
            .iter()
            .filter(|file| file.path == CONTRACT)
            .flat_map(|document| undocumented_routes(routes, paths, document))
            .collect()
    });
    pair(files, SETTINGS, README, &mut violations, undocumented_settings);
    violations.sort();
    violations.dedup();
    violations
}

/// Compares a source with its document; a missing one is a violation by itself.
fn pair(
    files: &[File],
    source: &str,
    document: &str,
    violations: &mut Vec<Violation>,
    compare: impl Fn(&File, &File) -> Vec<Violation>,
) {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    match (find(source), find(document)) {
        (Some(source), Some(document)) => violations.extend(compare(source, document)),
        (found, _) => {
            let path = if found.is_none() { source } else { document };
            let missing = File { path: path.into(), text: String::new() };
            violations.push(missing.violation(
                1,
                "the file does not exist",
                "write it, or adapt the rule that reads it",
            ));
        }
    }
}

/// Those of the names in a source that are documented nowhere. A source without any is read by a rule that has gone blind.
fn undocumented<'a, Name: AsRef<str>>(
    source: &File,
    names: impl Iterator<Item = (usize, Name)>,
    (kind, table): (&str, &str),
    documented: impl Iterator<Item = &'a str>,
) -> Vec<Violation> {
    let documented: Vec<_> = documented.collect();
    let mut names = names.peekable();
    if names.peek().is_none() {
        let rule = format!("no {kind} is found here");
        return vec![source.violation(1, rule, "adapt the rule that reads them")];
    }
    let missing = names.filter(|(_, name)| !documented.contains(&name.as_ref()));
    missing
        .map(|(line, name)| {
            let rule = format!("{kind} `{}` has no row in the {table}", name.as_ref());
            source.violation(line, rule, "document it there")
        })
        .collect()
}

fn undocumented_codes(source: &File, document: &File) -> Vec<Violation> {
    let unsent: Vec<_> =
        markdown::paragraphs(&document.text).filter(|paragraph| paragraph.starts_with(UNSENT)).collect();
    let rows = markdown::column(&document.text, "code").flat_map(markdown::code);
    let documented = rows.chain(unsent.iter().flat_map(|paragraph| markdown::code(paragraph)));
    let table = format!("table of errors in {CONTRACT}");
    undocumented(source, codes(source), ("error code", &table), documented)
}

fn undocumented_paths(source: &File, document: &File) -> Vec<Violation> {
    let rows: Vec<_> = documented_routes(document);
    let documented = rows.iter().filter_map(|row| row.split_once(' ')).map(|(_, path)| path);
    let table = format!("tables of routes in {CONTRACT}");
    let paths = paths(source).map(|(line, _, path)| (line, nameless(path)));
    undocumented(source, paths, ("path", &table), documented)
}

fn undocumented_routes(source: &File, constants: &File, document: &File) -> Vec<Violation> {
    let rows = documented_routes(document);
    let path_of =
        |constant: &str| paths(constants).find(|(_, name, _)| *name == constant).map(|found| found.2);
    let routes = routes(source).map(|(line, method, constant)| {
        (line, format!("{method} {}", nameless(path_of(constant).unwrap_or(constant))))
    });
    let table = format!("tables of routes in {CONTRACT}");
    undocumented(source, routes, ("route", &table), rows.iter().map(String::as_str))
}

fn undocumented_settings(source: &File, document: &File) -> Vec<Violation> {
    let rows = markdown::column(&document.text, "variable").flat_map(markdown::code);
    let table = format!("table of settings in {README}");
    undocumented(source, settings(source), ("setting", &table), rows)
}

/// The routes that have a row, such as `GET /tasks/{}`.
fn documented_routes(document: &File) -> Vec<String> {
    markdown::column(&document.text, "call").flat_map(markdown::code).map(nameless).collect()
}

/// Error codes: the strings in snake case that something is set equal to, `NotFound = "not_found"` or `=> "not_found"`.
fn codes(source: &File) -> impl Iterator<Item = (usize, &str)> {
    let is_code = |line: &str| !line.trim_start().starts_with("//") && !line.trim_start().starts_with('#');
    source.lines().filter(move |(_, line)| is_code(line)).filter_map(|(number, line)| {
        let literal = line.split_once("= \"").or_else(|| line.split_once("=> \""))?.1.split_once('"')?.0;
        let snake_case = |character: char| character.is_ascii_lowercase() || character == '_';
        (!literal.is_empty() && literal.chars().all(snake_case)).then_some((number, literal))
    })
}

/// Paths: the constants whose value begins with a slash, by line, name and value. What stands before all of them is none.
fn paths(source: &File) -> impl Iterator<Item = (usize, &str, &str)> {
    source.lines().filter_map(|(number, line)| {
        let (name, value) = line.trim_start().strip_prefix("pub const ")?.split_once(": &str = \"")?;
        let value = value.split_once('"')?.0;
        (value.starts_with('/') && name != "BASE").then_some((number, name, value))
    })
}

/// Routes: the rows of the table, `GET TASKS ANY_KEY => tasks::list;`, by line, method and the name of the path.
fn routes(source: &File) -> impl Iterator<Item = (usize, &str, &str)> {
    let is_name = |word: &str| word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    source.lines().filter_map(move |(number, line)| {
        let mut words = line.split_once(" => ")?.0.split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        (is_name(method) && is_name(path)).then_some((number, method, path))
    })
}

/// Settings: the fields of the structs named `…Settings`, in upper case. The one named just `Settings` holds the others,
/// and a field right below `#[serde(skip)]` is read from no variable.
fn settings(source: &File) -> impl Iterator<Item = (usize, String)> {
    let (mut in_settings, mut is_skipped) = (false, false);
    source.lines().filter_map(move |(number, line)| {
        let was_skipped = std::mem::replace(&mut is_skipped, line.trim() == "#[serde(skip)]");
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            in_settings = name.ends_with("Settings") && name != "Settings";
        } else if line.starts_with('}') {
            in_settings = false;
        } else if in_settings {
            let field = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let (name, _) = field.split_once(": ")?;
            let is_name = |character: char| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
            };
            return (name.chars().all(is_name) && !was_skipped).then(|| (number, name.to_uppercase()));
        }
        None
    })
}

/// A text with the names of path parameters taken out: `/tasks/{id}` and `/tasks/{task_id}` are the same path.
fn nameless(text: &str) -> String {
    let mut parts = text.split("/{");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("/{");
        result.push_str(&part[part.find('}').unwrap_or_default()..]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn lines(violations: &[Violation]) -> Vec<usize> {
        violations.iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn an_error_code_needs_a_row_or_is_one_that_nothing_sends() {
        let source = file(
            CODES,
            "/// Not `= \"this\"`.\n  NotFound = \"not_found\", 404, false, \"No such route\";\n\
             #[serde(rename = \"type\")]\n  Self::Internal => \"internal\",\n  Later = \"later\", 404\n  kind = \"Not This\"",
        );
        assert_eq!(codes(&source).collect::<Vec<_>>(), [(2, "not_found"), (4, "internal"), (5, "later")]);
        let table = "| status | code |\n|---|---|\n| 404 | `not_found` |";
        let of = |text: &str| lines(&undocumented_codes(&source, &file(CONTRACT, text)));
        assert_eq!(of(table), [4, 5]);
        assert_eq!(of(&format!("{table}\n\nSee `internal` and `later`.")), [4, 5], "a mention is not enough");
        assert_eq!(of(&format!("{table}\n\n{UNSENT} `later`\n(404) and `x`.\n")), [4]);
    }

    const PATH_CONSTANTS: &str = "pub const BASE: &str = \"/api\";\npub const TASKS: &str = \"/tasks\";\n\
         pub const FAIL: &str = \"/tasks/{task_id}/fail\";\npub const HEADER: &str = \"x-tenant-id\";";

    fn calls(rows: &str) -> File {
        file(CONTRACT, &format!("`GET /tasks` in a sentence\n\n| call | role |\n|---|---|\n{rows}"))
    }

    #[test]
    fn a_path_needs_a_row_whatever_its_parameters_are_called() {
        let source = file(PATHS, PATH_CONSTANTS);
        let both = calls("| `POST /tasks` `{\"a\"}` | any |\n| `POST /tasks/{id}/fail` | any |");
        assert!(undocumented_paths(&source, &both).is_empty());
        assert_eq!(lines(&undocumented_paths(&source, &calls("| `POST /tasks/{id}/fail` | any |"))), [2]);
        assert_eq!(
            lines(&undocumented_paths(&source, &calls("| `POST /tasks` | see `POST /tasks/{id}/fail` |"))),
            [3]
        );
    }

    #[test]
    fn a_route_needs_a_row_with_its_method() {
        let constants = file(PATHS, PATH_CONSTANTS);
        let source = file(
            ROUTES,
            "routes! {\n  GET TASKS ANY_KEY => tasks::list;\n  POST FAIL WORKER => work::fail;\n}",
        );
        let of = |rows| lines(&undocumented_routes(&source, &constants, &calls(rows)));
        assert!(of("| `GET /tasks` |\n| `POST /tasks/{id}/fail` |").is_empty());
        assert_eq!(of("| `POST /tasks` |\n| `POST /tasks/{id}/fail` |"), [2]);
        let gone_blind = undocumented_routes(&file(ROUTES, "fn f() {}"), &constants, &calls(""));
        assert_eq!(gone_blind[0].rule, "no route is found here");
    }

    #[test]
    fn a_setting_is_a_field_in_upper_case_and_needs_a_row() {
        let source = file(
            SETTINGS,
            "pub struct HttpSettings {\n    /// Port: where to listen.\n    pub port: u16,\n    #[serde(default = \"x: y\")]\n    \
             pub api_key: Secret,\n    #[serde(skip)]\n    pub for_tests: bool,\n}\nfn a(b: u8) {}\npub struct Id(u8);\n\
             pub struct Settings {\n    pub http: HttpSettings,\n}",
        );
        let names: Vec<_> = settings(&source).map(|(_, name)| name).collect();
        assert_eq!(names, ["PORT", "API_KEY"]);
        let table = "| variable | default |\n|---|---|\n| `PORT` | `API_KEY` |\n\n`API_KEY` is secret.";
        assert_eq!(lines(&undocumented_settings(&source, &file(README, table))), [5]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let paths: Vec<_> = check(&[]).into_iter().map(|violation| violation.path).collect();
        assert_eq!(paths, [CODES, PATHS, SETTINGS, ROUTES]);
    }
}
