//! The order of the server's rooms, which are the folders and files of `server/src/`: each names only those below it.

use super::file::{File, Violation};
use super::imports;

/// Where the rooms are.
const SERVER: &str = "server/src/";

/// The layers, the upper ones first. One names the layers below it, and none above.
const LAYERS: [&str; 5] = ["http", "jobs", "usecases", "dispatch", "store"];

/// What lies below all layers.
const BELOW: [&str; 15] = [
    "access",
    "background",
    "clock",
    "config",
    "events",
    "fault_injection",
    "file_descriptors",
    "json_schema",
    "json_value",
    "kept",
    "lifecycle",
    "same_words",
    "task",
    "task_types",
    "telemetry",
];

/// What starts the layers, and may name all of them.
const ABOVE: [&str; 3] = ["lib", "main", "server"];

/// The imports that lead to a room above, and the rooms that have no place in the order.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let imports = imports::of(files, SERVER);
    let upward =
        imports.iter().flat_map(|(from, targets)| targets.iter().map(move |(to, line)| (from, to, *line)));
    let upward = upward.filter_map(|(from, to, line)| {
        let (room, other) = (room(from)?, room(to)?);
        (level(room)? < level(other)?)
            .then(|| (from, line, format!("{room} names {other}, which is above it")))
    });
    let advice = "move what both need below them, or let the upper one pass it down";
    let mut violations: Vec<_> = upward
        .filter_map(|(from, line, rule)| {
            Some(files.iter().find(|file| file.path == *from)?.violation(line, rule, advice))
        })
        .collect();
    violations.extend(files.iter().filter_map(|file| {
        let room = room(&file.path).filter(|room| level(room).is_none())?;
        Some(file.violation(
            1,
            format!("{room} has no place in the order of rooms"),
            "give it one in xtask/src/tidy/rooms.rs",
        ))
    }));
    violations
}

fn room(path: &str) -> Option<&str> {
    Some(path.strip_prefix(SERVER)?.split('/').next()?.trim_end_matches(".rs"))
}

/// How high a room is.
fn level(room: &str) -> Option<usize> {
    if BELOW.contains(&room) {
        return Some(0);
    }
    if ABOVE.contains(&room) {
        return Some(LAYERS.len() + 1);
    }
    LAYERS.iter().position(|layer| *layer == room).map(|from_above| LAYERS.len() - from_above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file::file;

    fn rules(path: &str, text: &str) -> Vec<(usize, String)> {
        let others = ["http", "jobs", "usecases", "dispatch", "store", "task", "clock"];
        let mut files: Vec<_> =
            others.iter().map(|room| file(&format!("server/src/{room}/mod.rs"), "pub struct S;")).collect();
        files.push(file("server/src/lib.rs", ""));
        files.push(file(path, text));
        check(&files).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn a_room_names_only_rooms_below_it() {
        let above = |path, text| !rules(path, text).is_empty();
        assert_eq!(
            rules("server/src/store/a.rs", "\nuse crate::usecases::S;"),
            [(2, "store names usecases, which is above it".into())]
        );
        assert!(above("server/src/store/read/a.rs", "fn f(_: crate::http::S) {}"));
        assert!(above("server/src/usecases/a.rs", "use crate::jobs::S;"));
        assert!(above("server/src/jobs/a.rs", "use crate::http::S;"));
        assert!(above("server/src/task/a.rs", "use crate::store::S;"));
        assert!(above("server/src/clock.rs", "use crate::dispatch::S;"));
        assert!(!above("server/src/http/a.rs", "use crate::{usecases::S, store::S as T, clock::S as U};"));
        assert!(!above("server/src/task/a.rs", "use crate::clock::S;"));
        assert!(!above("server/src/server.rs", "use crate::http::S;"));
    }

    #[test]
    fn every_room_has_a_place() {
        assert_eq!(rules("server/src/attic/a.rs", "").len(), 1);
        assert!(rules("client/src/attic/a.rs", "").is_empty());
    }
}
