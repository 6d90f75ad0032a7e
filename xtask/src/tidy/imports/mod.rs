//! Which files of a crate import which: no two of them, nor two folders, may need each other in a circle.
//!
//! A re-export is a door, not an import: it counts only where the file itself uses the name. Test code does not count.

mod source;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use super::file::{File, Violation};
use tree::{Imports, Tree};

/// Where crates without circles have their sources, from the root of the repository.
const SOURCES: [&str; 9] = [
    "bench/src/",
    "chaos/src/",
    "client/src/",
    "model/src/",
    "protocol/src/",
    "server/src/",
    "tests/it/",
    "tests/src/",
    "xtask/src/",
];

/// The circles of all crates, each as a violation of the file that is named first.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    SOURCES.iter().flat_map(|source| circles(files, &of(files, source))).collect()
}

/// The imports of a crate as a text: the folders first, then the files.
pub(super) fn graph(files: &[File], package: &str) -> String {
    let source = format!("{package}/src/");
    let imports = of(files, &source);
    let name = |path: &str| path.strip_prefix(&source).unwrap_or(path).to_owned();
    let room =
        |path: &str| name(path).split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let (mut rooms, mut single) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for (from, targets) in &imports {
        for to in targets.keys() {
            single.entry(name(from)).or_default().insert(name(to));
            if room(from) != room(to) {
                rooms.entry(room(from)).or_default().insert(room(to));
            }
        }
    }
    let show = |edges: BTreeMap<String, BTreeSet<String>>| {
        let lines = edges
            .into_iter()
            .map(|(from, to)| format!("{from} -> {}", to.into_iter().collect::<Vec<_>>().join(", ")));
        lines.collect::<Vec<_>>().join("\n")
    };
    let circles: Vec<_> = circles(files, &imports).into_iter().map(|circle| circle.rule).collect();
    let circles = if circles.is_empty() { "no circles".to_owned() } else { circles.join("\n") };
    format!("{}\n\n{}\n\n{circles}", show(rooms), show(single))
}

/// The imports of the crate with these sources.
pub(super) fn of(files: &[File], source: &str) -> Imports {
    let sources = files.iter().filter(|file| file.path.starts_with(source) && file.has_extension("rs"));
    Tree::of(source, sources).imports()
}

/// From what to what at one level, with the file and the line that go that way first.
type Steps<'a> = BTreeMap<(String, String), (&'a str, usize)>;

/// The circles at each level: among what lies in one folder, be it a file or a folder with all in it.
fn circles(files: &[File], imports: &Imports) -> Vec<Violation> {
    let mut levels: BTreeMap<String, Steps<'_>> = BTreeMap::new();
    for (from, targets) in imports {
        for (to, line) in targets {
            let (level, one, other) = parting(&in_own_folder(files, from), &in_own_folder(files, to));
            levels.entry(level).or_default().entry((one, other)).or_insert((from, *line));
        }
    }
    let mut found = Vec::new();
    for edges in levels.values() {
        let graph: DiGraphMap<&str, ()> =
            edges.keys().map(|(one, other)| (one.as_str(), other.as_str())).collect();
        for circle in tarjan_scc(&graph).into_iter().filter(|members| members.len() > 1) {
            let inside = |(one, other): &&(String, String)| {
                circle.contains(&one.as_str()) && circle.contains(&other.as_str())
            };
            let mut members = circle.clone();
            members.sort_unstable();
            let mut steps: Vec<_> = edges.keys().filter(inside).collect();
            steps.sort();
            let rule = format!("{} import each other in a circle", members.join(", "));
            let places = steps.iter().filter_map(|step| edges.get(*step));
            let places: Vec<_> = places.map(|(path, line)| format!("{path}:{line}")).collect();
            let (path, line) = steps.first().and_then(|step| edges.get(*step)).copied().unwrap_or_default();
            let Some(file) = files.iter().find(|file| file.path == path) else { continue };
            let advice = format!("move what both need below them; the imports: {}", places.join(", "));
            found.push(file.violation(line, rule, advice));
        }
    }
    found
}

/// Where a file would lie if `a.rs` beside a folder `a` were `a/mod.rs`, which is the same module.
fn in_own_folder(files: &[File], path: &str) -> String {
    let folder = format!("{}/", path.trim_end_matches(".rs"));
    let has_folder = files.iter().any(|file| file.path.starts_with(&folder));
    if has_folder { format!("{folder}mod.rs") } else { path.to_owned() }
}

/// The folder in which the ways to two files part, and what there leads to each.
fn parting(from: &str, to: &str) -> (String, String, String) {
    let (from, to): (Vec<_>, Vec<_>) = (from.split('/').collect(), to.split('/').collect());
    let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let level = from[..same].join("/");
    let below = |path: &[&str]| path[..=same.min(path.len() - 1)].join("/");
    (level, below(&from), below(&to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn rules(files: &[(&str, &str)]) -> Vec<String> {
        let root = ("xtask/src/lib.rs", "mod a;\nmod b;");
        let files: Vec<_> = files.iter().chain([&root]).map(|(path, text)| file(path, text)).collect();
        check(&files).into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let a = ("xtask/src/a.rs", "use crate::b::B;\npub struct A;");
        assert_eq!(
            rules(&[a, ("xtask/src/b.rs", "pub struct B;\nfn f() -> super::a::A {}")]),
            ["xtask/src/a.rs, xtask/src/b.rs import each other in a circle"]
        );
        assert!(rules(&[a, ("xtask/src/b.rs", "pub struct B;")]).is_empty());
        let in_a_macro = "pub struct B;\nfn f() { matches!(x, crate::a::A) }";
        assert_eq!(rules(&[a, ("xtask/src/b.rs", in_a_macro)]).len(), 1);
        let in_tests = "pub struct B;\n#[cfg(test)]\nmod tests {\n use crate::a::A;\n}";
        assert!(rules(&[a, ("xtask/src/b.rs", in_tests)]).is_empty());
    }

    #[test]
    fn two_folders_are_a_circle_even_where_no_two_files_are() {
        let files = [
            ("xtask/src/a/mod.rs", "pub mod x;\npub mod y;"),
            ("xtask/src/a/x.rs", "use crate::b::x::B;\npub struct A;"),
            ("xtask/src/a/y.rs", "pub struct A;"),
            ("xtask/src/b/mod.rs", "pub mod x;\npub mod y;"),
            ("xtask/src/b/x.rs", "pub struct B;"),
            ("xtask/src/b/y.rs", "use crate::a::y::A;"),
        ];
        assert_eq!(rules(&files), ["xtask/src/a, xtask/src/b import each other in a circle"]);
    }

    #[test]
    fn a_door_is_no_import_unless_the_file_uses_the_name() {
        let child = ("xtask/src/a/x.rs", "use super::Root;\npub struct X;");
        let door = "mod x;\npub use x::X;\npub struct Root;";
        assert!(rules(&[("xtask/src/a/mod.rs", door), child]).is_empty());
        let user = "mod x;\npub use x::X;\npub struct Root(X);";
        assert_eq!(rules(&[("xtask/src/a/mod.rs", user), child]).len(), 1);
    }

    #[test]
    fn a_file_beside_a_folder_of_its_name_is_one_of_that_folder() {
        let files = [
            ("xtask/src/a.rs", "mod x;\nmod y;\nuse x::X;\npub struct A;"),
            ("xtask/src/a/x.rs", "pub struct X;"),
            ("xtask/src/a/y.rs", "use super::A;"),
        ];
        assert!(rules(&files).is_empty());
        let x = ("xtask/src/a/x.rs", "use super::A;\npub struct X;");
        assert_eq!(rules(&[files[0], x]).len(), 1);
    }

    #[test]
    fn what_comes_through_a_door_is_imported_from_where_it_is() {
        let files = [
            ("xtask/src/a/mod.rs", "mod x;\npub use x::X;"),
            ("xtask/src/a/x.rs", "use crate::b::B;\npub struct X;"),
            ("xtask/src/b.rs", "use crate::a::{self};\npub struct B;\nfn f() -> a::X {}"),
        ];
        assert_eq!(rules(&files).len(), 1);
    }
}
