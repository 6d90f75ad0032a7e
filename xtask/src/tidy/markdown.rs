//! The parts of a Markdown text that rules look at: columns of tables, paragraphs, and what is set as code in them.

/// The cells below a heading, in all tables that have a column with this heading.
pub(super) fn column<'a>(text: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    let mut place: Option<usize> = None;
    let mut is_in_table = false;
    text.lines().filter_map(move |line| {
        let Some(cells) = cells(line) else {
            (is_in_table, place) = (false, None);
            return None;
        };
        if !std::mem::replace(&mut is_in_table, true) {
            place = cells.iter().position(|cell| *cell == heading);
            return None;
        }
        place.and_then(|place| cells.get(place).copied())
    })
}

/// The cells of a row. A `\|` parts none.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (mut cells, mut begin) = (Vec::new(), 0);
    for (at, _) in row.match_indices('|').filter(|(at, _)| !row[..*at].ends_with('\\')) {
        cells.push(row[begin..at].trim());
        begin = at + 1;
    }
    cells.push(row[begin..].trim());
    Some(cells)
}

/// The paragraphs, each as one line.
pub(super) fn paragraphs(text: &str) -> impl Iterator<Item = String> {
    text.split("\n\n").map(|paragraph| paragraph.trim().replace('\n', " "))
}

/// What is set as code.
pub(super) fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n\nBoth `a` and\n`b`.\n\n| status | code |\n|---|---|\n| 400 | `x` |\n| 4\\|5 | `y` |\n\n\
                        | call | code |\n|---|---|\n| `GET /z` | `z` `w` |\n| other |\n";

    #[test]
    fn a_column_is_what_stands_below_its_heading() {
        let in_column = |heading| column(TEXT, heading).collect::<Vec<_>>();
        assert_eq!(in_column("code"), ["---", "`x`", "`y`", "---", "`z` `w`"]);
        assert_eq!(in_column("status"), ["---", "400", "4\\|5"]);
        assert!(in_column("x").is_empty() && in_column("`x`").is_empty());
    }

    #[test]
    fn code_is_what_backticks_enclose() {
        assert_eq!(code("`a b` and `c`").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(paragraphs(TEXT).nth(1).as_deref(), Some("Both `a` and `b`."));
    }
}
