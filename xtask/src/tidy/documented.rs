//! Documents that must keep up with the code: every error code, setting and route is where a reader looks for it.

use super::file::{File, Violation};

const CODES: &str = "protocol/src/error.rs";
const ROUTES: &str = "protocol/src/path.rs";
const SETTINGS: &str = "server/src/config.rs";
const CONTRACT: &str = "docs/api.md";
const README: &str = "README.md";

/// All rules about documents.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    pair(files, CODES, CONTRACT, &mut violations, undocumented_codes);
    pair(files, ROUTES, CONTRACT, &mut violations, undocumented_routes);
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
    compare: fn(&File, &File) -> Vec<Violation>,
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

fn undocumented_codes(source: &File, document: &File) -> Vec<Violation> {
    let missing = codes(source).filter(|(_, code)| !document.text.contains(&format!("`{code}`")));
    missing
        .map(|(line, code)| {
            source.violation(line, format!("error code `{code}` is not in {CONTRACT}"), "document it")
        })
        .collect()
}

fn undocumented_routes(source: &File, document: &File) -> Vec<Violation> {
    let documented = nameless(&document.text);
    let missing = routes(source).filter(|(_, route)| !names_route(&documented, &nameless(route)));
    missing
        .map(|(line, route)| {
            source.violation(line, format!("route `{route}` is not in {CONTRACT}"), "document it")
        })
        .collect()
}

fn undocumented_settings(source: &File, document: &File) -> Vec<Violation> {
    let missing = settings(source).filter(|(_, setting)| !document.text.contains(&format!("`{setting}`")));
    missing
        .map(|(line, setting)| {
            source.violation(
                line,
                format!("setting `{setting}` is not in {README}"),
                "document it, with unit and default",
            )
        })
        .collect()
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

/// Routes: the constants whose value begins with a slash.
fn routes(source: &File) -> impl Iterator<Item = (usize, &str)> {
    source.lines().filter_map(|(number, line)| {
        let value = line.trim_start().strip_prefix("pub const ")?.split_once("&str = \"")?.1;
        let value = value.split_once('"')?.0;
        value.starts_with('/').then_some((number, value))
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

/// A text with the names of path parameters taken out: `/tasks/{id}` and `/tasks/{task_id}` are the same route.
fn nameless(text: &str) -> String {
    let mut parts = text.split("/{");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("/{");
        let end =
            part.find('}').filter(|&end| part[..end].chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        result.push_str(&part[end.unwrap_or_default()..]);
    }
    result
}

/// Whether the document names the route itself, not only a longer one.
fn names_route(document: &str, route: &str) -> bool {
    let goes_on = |after: char| after.is_ascii_alphanumeric() || "/-_".contains(after);
    document.match_indices(route).any(|(at, _)| !document[at + route.len()..].starts_with(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    #[test]
    fn error_codes_are_read_from_tables_and_matches() {
        let source = file(
            CODES,
            "/// Not `= \"this\"`.\n  NotFound = \"not_found\", 404, false, \"No such route\";\n\
             #[serde(rename = \"type\")]\n  Self::Internal => \"internal\",\n  kind = \"Not This\"",
        );
        assert_eq!(codes(&source).collect::<Vec<_>>(), [(2, "not_found"), (4, "internal")]);
        let missing = undocumented_codes(&source, &file(CONTRACT, "`not_found`"));
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].line, 4);
    }

    #[test]
    fn routes_are_compared_without_the_names_of_their_parameters() {
        let source = file(
            ROUTES,
            "pub const TASKS: &str = \"/tasks\";\npub const FAIL: &str = \"/tasks/{task_id}/fail\";\n\
             pub const HEADER: &str = \"x-tenant-id\";",
        );
        assert!(
            undocumented_routes(&source, &file(CONTRACT, "`POST /tasks` `POST /tasks/{id}/fail`")).is_empty()
        );
        let missing = undocumented_routes(&source, &file(CONTRACT, "`POST /tasks/{id}/fail {\"a\"}`"));
        assert_eq!(missing.iter().map(|violation| violation.line).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn settings_are_fields_in_upper_case() {
        let source = file(
            SETTINGS,
            "pub struct HttpSettings {\n    /// Port: where to listen.\n    pub port: u16,\n    #[serde(default = \"x: y\")]\n    \
             pub api_key: Secret,\n    #[serde(skip)]\n    pub for_tests: bool,\n}\nfn a(b: u8) {}\npub struct Id(u8);\n\
             pub struct Settings {\n    pub http: HttpSettings,\n}",
        );
        let names: Vec<_> = settings(&source).map(|(_, name)| name).collect();
        assert_eq!(names, ["PORT", "API_KEY"]);
        assert_eq!(undocumented_settings(&source, &file(README, "| `PORT` | 8503 |")).len(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let paths: Vec<_> = check(&[]).into_iter().map(|violation| violation.path).collect();
        assert_eq!(paths, [CODES, ROUTES, SETTINGS]);
        let paths: Vec<_> = check(&[file(CODES, ""), file(ROUTES, ""), file(SETTINGS, "")]);
        assert_eq!(paths.len(), 2);
    }
}
