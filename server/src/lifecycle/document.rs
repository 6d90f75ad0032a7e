//! `docs/lifecycle.md` says what the table says: its diagram and its table are made from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{TRANSITIONS, Verb};
use crate::task::Status;

/// What stands around the part that is made.
const BEGIN: &str = "<!-- Made from TRANSITIONS; `TASK_REPO_WRITE_DOCS=1 cargo xtask test lifecycle::document` writes it anew. -->\n";
const END: &str = "<!-- End of what is made from TRANSITIONS. -->\n";

fn diagram() -> String {
    let mut edges: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    let place =
        |status: Status| Status::ALL.iter().position(|known| *known == status).expect("a known status");
    // Where a task is afterwards hidden from everybody is no part of the picture.
    for row in TRANSITIONS.iter().filter(|row| row.verb != Verb::Delete) {
        for to in row.to.iter().filter(|to| **to != row.from) {
            edges.entry((place(row.from), place(*to))).or_default().push(row.verb.as_str());
        }
    }
    let mut text = String::from(
        "```mermaid\nstateDiagram-v2\n    [*] --> pending: create\n    [*] --> scheduled: create for later\n",
    );
    for ((from, to), verbs) in edges {
        let verbs = verbs.join(", ");
        let _ = writeln!(text, "    {} --> {}: {verbs}", Status::ALL[from], Status::ALL[to]);
    }
    text + "```\n"
}

fn table() -> String {
    let mut text = String::from("| verb | from | to | token needed | call |\n|---|---|---|---|---|\n");
    for verb in Verb::ALL {
        let rows: Vec<_> = TRANSITIONS.iter().filter(|row| row.verb == *verb).collect();
        for (index, row) in rows.iter().enumerate() {
            let to: Vec<_> = row.to.iter().map(|status| format!("`{status}`")).collect();
            let to = if *verb == Verb::Delete { "gone".to_owned() } else { to.join(", ") };
            let (token, call) = match (index, verb.needs_token()) {
                (0, true) => ("yes", verb.call()),
                (0, false) => ("no", verb.call()),
                _ => ("", ""),
            };
            let _ = writeln!(text, "| {} | `{}` | {to} | {token} | {call} |", verb.as_str(), row.from);
        }
    }
    text
}

#[test]
fn the_document_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lifecycle.md");
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let (before, rest) = document.split_once(BEGIN).expect("the place where it begins");
    let (made, after) = rest.split_once(END).expect("the place where it ends");
    let wanted = format!("\n{}\n{}\n", diagram(), table());
    if std::env::var_os("TASK_REPO_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("it can be written");
        return;
    }
    assert!(
        made == wanted,
        "docs/lifecycle.md is not what TRANSITIONS says. It begins with how to write it anew."
    );
}
