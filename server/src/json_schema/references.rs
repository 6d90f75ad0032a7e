//! Where a reference of a schema leads: to a place in it, or nowhere.

use std::collections::HashMap;

use jsonschema::{Draft, Uri, uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Keywords whose value is a schema, or a list of schemas.
const SCHEMAS: [&str; 17] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "extends",
];
/// Keywords whose value has schemas by name.
const SCHEMAS_BY_NAME: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// A schema within a schema, and the way to it.
pub(super) type Child<'a> = (Vec<Value>, &'a Value);

/// The schemas that stand directly in a schema.
pub(super) fn children(schema: &Value) -> Vec<Child<'_>> {
    let mut found = Vec::new();
    let is_schema = |value: &Value| value.is_object() || value.is_boolean();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        let name = keyword.as_str();
        if SCHEMAS.contains(&name) {
            match value {
                Value::Array(list) => {
                    let places = list.iter().enumerate().filter(|(_, it)| is_schema(it));
                    found.extend(places.map(|(place, it)| (vec![name.into(), place.into()], it)));
                }
                _ if is_schema(value) => found.push((vec![name.into()], value)),
                _ => {}
            }
        } else if SCHEMAS_BY_NAME.contains(&name) {
            let members = value.as_object().into_iter().flatten().filter(|(_, it)| is_schema(it));
            found.extend(members.map(|(member, it)| (vec![name.into(), member.as_str().into()], it)));
        }
    }
    found
}

/// What the references of a schema may lead to.
pub(super) struct Targets<'a> {
    draft: Draft,
    /// Schemas that have an address of their own, by it.
    by_uri: HashMap<String, &'a Value>,
    /// Schemas that have a name, by the address of what they are in and that name.
    by_anchor: HashMap<(String, String), &'a Value>,
    /// Schemas whose name may be looked up from elsewhere, with the address of what they are in.
    dynamic: HashMap<String, Vec<(Uri<String>, &'a Value)>>,
}

/// Where the addresses of a schema without one begin.
pub(super) fn no_address() -> Option<Uri<String>> {
    uri::from_str("").ok()
}

impl<'a> Targets<'a> {
    /// All that `schema` holds.
    pub(super) fn of(schema: &'a Value, draft: Draft) -> Self {
        let mut targets =
            Self { draft, by_uri: HashMap::new(), by_anchor: HashMap::new(), dynamic: HashMap::new() };
        if let Some(base) = no_address() {
            targets.by_uri.insert(base.to_string(), schema);
            targets.note(schema, &base);
        }
        targets
    }

    fn note(&mut self, schema: &'a Value, outer: &Uri<String>) {
        let base = self.base_of(schema, outer);
        if base != *outer {
            self.by_uri.insert(base.to_string(), schema);
        }
        let text = |keyword: &str| schema.get(keyword).and_then(Value::as_str);
        for name in text("$anchor").into_iter().chain(text("$dynamicAnchor")).chain(self.named(schema)) {
            self.by_anchor.insert((base.to_string(), name.to_owned()), schema);
        }
        if let Some(name) = text("$dynamicAnchor") {
            self.dynamic.entry(name.to_owned()).or_default().push((base.clone(), schema));
        }
        for (_, child) in children(schema) {
            self.note(child, &base);
        }
    }

    fn id<'s>(&self, schema: &'s Value) -> Option<&'s str> {
        let keyword = if self.draft == Draft::Draft4 { "id" } else { "$id" };
        // Beside a reference older drafts look at nothing else.
        let is_older = matches!(self.draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7);
        if is_older && schema.get("$ref").is_some() {
            return None;
        }
        schema.get(keyword)?.as_str()
    }

    /// The name that older drafts give by an id that is only a fragment.
    fn named<'s>(&self, schema: &'s Value) -> Option<&'s str> {
        self.id(schema)?.strip_prefix('#')
    }

    /// The address of what a schema is in, itself included.
    pub(super) fn base_of(&self, schema: &Value, outer: &Uri<String>) -> Uri<String> {
        let id = self.id(schema).filter(|id| !id.starts_with('#'));
        let base = id.and_then(|id| uri::resolve_against(&outer.borrow(), id).ok());
        base.map_or_else(|| outer.clone(), |base| base.strip_fragment().to_owned())
    }

    /// What `reference` in something at `base` leads to, each with the address of what it is in. Nothing: it leads outside, or
    /// nowhere.
    pub(super) fn find(
        &self,
        reference: &str,
        base: &Uri<String>,
        is_dynamic: bool,
    ) -> Vec<(Uri<String>, &'a Value)> {
        let Ok(full) = uri::resolve_against(&base.borrow(), reference) else { return Vec::new() };
        let fragment = reference.split_once('#').map_or("", |(_, fragment)| fragment);
        let fragment = percent_decode_str(fragment).decode_utf8_lossy();
        let home = full.strip_fragment().to_owned();
        let address = home.to_string();
        let target = if fragment.is_empty() {
            self.by_uri.get(&address).copied()
        } else if fragment.starts_with('/') {
            self.by_uri.get(&address).and_then(|resource| resource.pointer(&fragment))
        } else {
            self.by_anchor.get(&(address, fragment.to_string())).copied()
        };
        let is_schema = |it: &&Value| it.is_object() || it.is_boolean();
        let Some(target) = target.filter(is_schema) else { return Vec::new() };
        let mut found = vec![(home, target)];
        if is_dynamic {
            // Which of those with that name it is depends on the way to it.
            found.extend(self.dynamic.get(&*fragment).into_iter().flatten().cloned());
        }
        found
    }
}
