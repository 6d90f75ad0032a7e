//! Refuses schemas that lead outside, in a circle, or to too much.

use std::collections::HashMap;

use jsonschema::{Draft, Uri};
use serde_json::Value;

use super::fault::SchemaFault;
use super::references::{Targets, children, no_address};

/// The drafts that there are, by what `$schema` calls them; an empty fragment may follow.
pub(super) const DRAFTS: [(&str, Draft); 5] = [
    ("https://json-schema.org/draft/2020-12/schema", Draft::Draft202012),
    ("https://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
    ("http://json-schema.org/draft-07/schema", Draft::Draft7),
    ("http://json-schema.org/draft-06/schema", Draft::Draft6),
    ("http://json-schema.org/draft-04/schema", Draft::Draft4),
];
/// Most schemas within a schema, with each reference written out.
const MAX_SUBSCHEMAS: usize = 1000;
/// Most levels of schemas with each reference written out, which bounds how deep a check calls itself.
const MAX_LEVELS: usize = 64;
/// Keywords that lead elsewhere, and whether where depends on the way to them.
const REFERENCES: [(&str, bool); 3] = [("$ref", false), ("$dynamicRef", true), ("$recursiveRef", true)];

/// A schema that may be compiled.
pub(super) struct Checked {
    pub(super) draft: Draft,
    pub(super) subschemas: usize,
    pub(super) patterns: usize,
}

/// What is known of a schema on the way through.
#[derive(Clone, Copy)]
enum Seen {
    /// It is being looked at: whoever leads to it now leads in a circle.
    Open,
    /// It has so many subschemas and levels below it.
    Done(usize, usize),
}

struct Walk<'a> {
    targets: Targets<'a>,
    /// By where a schema is in memory.
    seen: HashMap<usize, Seen>,
    patterns: usize,
}

/// Checks a schema.
///
/// # Errors
/// Where it breaks which rule.
pub(super) fn check(schema: &Value) -> Result<Checked, SchemaFault> {
    let draft = draft(schema, &mut Vec::new())?.unwrap_or(Draft::Draft202012);
    let targets = Targets::of(schema, draft);
    let mut walk = Walk { targets, seen: HashMap::new(), patterns: 0 };
    let Some(base) = no_address() else {
        return Err(SchemaFault::at(Vec::new(), "a JSON Schema is expected"));
    };
    let (subschemas, _) = walk.count(schema, &base, (0, false), &mut Vec::new())?;
    Ok(Checked { draft, subschemas, patterns: walk.patterns })
}

/// The draft that a schema names; whatever is in it must name a known one too.
fn draft(schema: &Value, place: &mut Vec<Value>) -> Result<Option<Draft>, SchemaFault> {
    let mut named = None;
    if let Some(name) = schema.get("$schema") {
        let uri = name.as_str().map(|uri| uri.strip_suffix('#').unwrap_or(uri));
        named = DRAFTS.iter().find(|(known, _)| Some(*known) == uri).map(|(_, draft)| *draft);
        if named.is_none() {
            place.push("$schema".into());
            let known: Vec<_> = DRAFTS.iter().map(|(known, _)| *known).collect();
            return Err(SchemaFault::at(
                std::mem::take(place),
                format!("one of {} is expected", known.join(", ")),
            ));
        }
    }
    for (way, child) in children(schema) {
        let length = place.len();
        place.extend(way);
        draft(child, place)?;
        place.truncate(length);
    }
    Ok(named)
}

impl<'a> Walk<'a> {
    /// How many subschemas, and how many levels of them, a schema has with each reference written out. It is so many levels
    /// down, perhaps behind a reference.
    fn count(
        &mut self,
        schema: &'a Value,
        outer: &Uri<String>,
        (depth, is_behind): (usize, bool),
        place: &mut Vec<Value>,
    ) -> Result<(usize, usize), SchemaFault> {
        let key = std::ptr::from_ref(schema) as usize;
        match self.seen.get(&key) {
            Some(Seen::Done(subschemas, levels)) => return Ok((*subschemas, *levels)),
            Some(Seen::Open) => return Err(SchemaFault::at(place.clone(), "it leads in a circle")),
            None => {}
        }
        if depth > MAX_LEVELS {
            return Err(too_deep(place));
        }
        self.seen.insert(key, Seen::Open);
        self.patterns += usize::from(schema.get("pattern").is_some());
        let by_name = schema.get("patternProperties").and_then(Value::as_object);
        self.patterns += by_name.map_or(0, serde_json::Map::len);
        let base = self.targets.base_of(schema, outer);
        let (mut subschemas, mut levels) = (0_usize, 0_usize);
        let mut add = |(below, deep): (usize, usize), own: usize, place: &[Value]| {
            subschemas = subschemas.saturating_add(below).saturating_add(own);
            levels = levels.max(deep + 1);
            if subschemas > MAX_SUBSCHEMAS {
                let rule = format!(
                    "there may be {MAX_SUBSCHEMAS} subschemas at most, with each reference written out"
                );
                return Err(SchemaFault::at(place.to_vec(), rule));
            }
            if levels > MAX_LEVELS {
                return Err(too_deep(place));
            }
            Ok(())
        };
        for (way, child) in children(schema) {
            let length = place.len();
            if !is_behind {
                place.extend(way);
            }
            let below = self.count(child, &base, (depth + 1, is_behind), place)?;
            add(below, 1, place)?;
            place.truncate(length);
        }
        for (keyword, is_dynamic) in REFERENCES {
            let Some(reference) = schema.get(keyword) else { continue };
            // What is behind a reference is told at the first one on the way: it stands somewhere else itself.
            let length = place.len();
            if !is_behind {
                place.push(keyword.into());
            }
            // What is no text is refused by the draft's own rules.
            let reference = reference.as_str().unwrap_or_default();
            let targets = self.targets.find(reference, &base, is_dynamic);
            if targets.is_empty() {
                return Err(SchemaFault::at(place.clone(), "it leads to no place within the schema"));
            }
            for (home, target) in targets {
                let below = self.count(target, &home, (depth + 1, true), place)?;
                add(below, 0, place)?;
            }
            place.truncate(length);
        }
        self.seen.insert(key, Seen::Done(subschemas, levels));
        Ok((subschemas, levels))
    }
}

fn too_deep(place: &[Value]) -> SchemaFault {
    let rule = format!("there may be {MAX_LEVELS} levels at most, with each reference written out");
    SchemaFault::at(place.to_vec(), rule)
}
