//! All violations of a body at once, found by the schema that the OpenAPI document shows for it.
//!
//! A body that fits never comes here. Serde and garde decide whether one fits; this only says what is wrong with it,
//! and reads the text about once for each level of the schema.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use task_repo_protocol::{Task, Violation};
use utoipa::{PartialSchema as _, ToSchema};

use super::expected::{self, Kind};
use crate::usecases::shortened;

/// Most violations that one answer names.
pub(super) const MAX_VIOLATIONS: usize = 20;
/// How many members of a body are noted. No body has so many fields; one with more is full of violations.
const MAX_MEMBERS: usize = 256;
/// Longest field name that an answer repeats, in characters.
const MAX_NAME: usize = 128;
/// Longest message that serde or garde may give, in characters.
const MAX_MESSAGE: usize = 512;

/// Schemas as the OpenAPI document shows them, by name.
type Schemas = BTreeMap<String, Value>;

/// The schemas that were asked for, by the name of their type. A batch asks for those of its items again and again.
static KNOWN: RwLock<BTreeMap<String, Arc<Schemas>>> = RwLock::new(BTreeMap::new());

/// The schemas of `T` and of what it refers to, and that of a task, whose other fields a body may name in error.
fn schemas_of<T: ToSchema>() -> Arc<Schemas> {
    let name = T::name();
    if let Some(schemas) = KNOWN.read().get(&*name) {
        return Arc::clone(schemas);
    }
    let mut schemas = vec![(name.to_string(), T::schema()), (Task::name().into_owned(), Task::schema())];
    T::schemas(&mut schemas);
    let as_value = |schema| serde_json::to_value(schema).unwrap_or_default();
    let schemas = schemas.into_iter().map(|(name, schema)| (name, as_value(schema))).collect();
    Arc::clone(KNOWN.write().entry(name.into_owned()).or_insert(Arc::new(schemas)))
}

/// What is wrong with one body.
pub(super) struct Violations<'a> {
    text: &'a str,
    schema: Value,
    place: Vec<Value>,
    found: Vec<FoundViolation>,
    /// The members of the body in the order of its text: name, value, and where the value stands.
    members: Vec<(String, &'a str, usize)>,
}

struct FoundViolation {
    violation: Violation,
    /// Where in the text; what is missing stands nowhere.
    at: Option<usize>,
    /// The place of the body's member among those that are required.
    rank: usize,
}

impl<'a> Violations<'a> {
    /// Those that the schema of `T` finds in `text`, which is JSON and stands at `place`.
    pub(super) fn of<T: ToSchema>(text: &'a str, place: &[Value]) -> Self {
        let schemas = schemas_of::<T>();
        let schema = schemas[&*T::name()].clone();
        let mut walk = Walk { text, schemas, loc: place.to_vec(), depth: place.len(), ..Walk::default() };
        walk.value(text, &schema);
        let Walk { found, members, .. } = walk;
        let mut violations = Self { text, schema, place: place.to_vec(), found: Vec::new(), members };
        for (violation, at) in found {
            violations.push(violation, at);
        }
        violations
    }

    /// Adds violations that others found, where none is known at that place, below it or above it.
    pub(super) fn add(&mut self, violations: impl IntoIterator<Item = Violation>) {
        for mut violation in violations {
            violation.loc.iter_mut().filter(|part| part.is_string()).for_each(|part| {
                *part = Value::from(shortened(part.as_str().unwrap_or_default(), MAX_NAME));
            });
            violation.msg = shortened(&violation.msg, MAX_MESSAGE);
            let known =
                |found: &FoundViolation| found.violation.loc.iter().zip(&violation.loc).all(|(a, b)| a == b);
            if !self.found.iter().any(known) {
                let member = self.member_of(&violation);
                let at = match member {
                    Some(member) => self.members.iter().find(|(name, ..)| name == member).map(|(.., at)| *at),
                    None => Some(0),
                };
                if at.is_none() {
                    "missing".clone_into(&mut violation.kind);
                }
                self.push(violation, at);
            }
        }
    }

    /// The body without its faulty members, with a placeholder for each of them that is required and a plain string
    /// or list; and the names of those members. `None` where a rule of another member could depend on one of them.
    pub(super) fn sound_part(&self) -> Option<(String, HashSet<String>)> {
        if Kind::of(self.text) != Kind::Object
            || self.found.len() >= MAX_VIOLATIONS
            || self.members.len() > MAX_MEMBERS
        {
            return None;
        }
        let faulty: HashSet<String> = self
            .found
            .iter()
            .filter_map(|found| self.member_of(&found.violation))
            .map(str::to_owned)
            .collect();
        let mut parts = Vec::new();
        for (name, value, _) in &self.members {
            if !faulty.contains(name) {
                parts.push(format!("{}:{value}", serde_json::to_string(name).ok()?));
            }
        }
        for name in self.required().filter(|name| faulty.contains(*name)) {
            let schema = &self.schema["properties"][name];
            let placeholder = match schema["type"].as_str()? {
                "string" if schema.get("enum").is_none() && schema.get("format").is_none() => "\"x\"",
                "array" => "[]",
                _ => return None,
            };
            parts.push(format!("{}:{placeholder}", serde_json::to_string(name).ok()?));
        }
        Some((format!("{{{}}}", parts.join(",")), faulty))
    }

    /// The violations in the order of the text, what is missing last in the order of the table; 20 at most.
    pub(super) fn into_violations(mut self) -> Vec<Violation> {
        self.found.sort_by_key(|found| match found.at {
            Some(at) => (0, at),
            None => (1, found.rank),
        });
        self.found.truncate(MAX_VIOLATIONS);
        self.found.into_iter().map(|found| found.violation).collect()
    }

    /// The name of the body's member that a violation is about; `None`: the body itself.
    pub(super) fn member_of<'v>(&self, violation: &'v Violation) -> Option<&'v str> {
        violation.loc.get(self.place.len()).and_then(Value::as_str)
    }

    fn required(&self) -> impl Iterator<Item = &str> {
        self.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    fn push(&mut self, violation: Violation, at: Option<usize>) {
        let member = self.member_of(&violation);
        let rank = self.required().position(|name| Some(name) == member).unwrap_or(usize::MAX);
        self.found.push(FoundViolation { violation, at, rank });
    }
}

/// One way through a text, beside its schema.
#[derive(Default)]
struct Walk<'a> {
    text: &'a str,
    schemas: Arc<Schemas>,
    loc: Vec<Value>,
    /// How many parts the place of the body itself has.
    depth: usize,
    found: Vec<(Violation, Option<usize>)>,
    members: Vec<(String, &'a str, usize)>,
    /// Whether the names of an object's fields were told already; once is enough for an answer.
    told_names: bool,
}

impl<'a> Walk<'a> {
    fn is_full(&self) -> bool {
        self.found.len() >= MAX_VIOLATIONS
    }

    fn offset(&self, raw: &str) -> usize {
        (raw.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }

    fn report(&mut self, kind: &str, msg: String, at: Option<usize>) {
        if !self.is_full() {
            self.found.push((Violation { loc: self.loc.clone(), msg, kind: kind.to_owned() }, at));
        }
    }

    /// Checks one value, the text of which is JSON.
    fn value(&mut self, raw: &'a str, schema: &Value) {
        let mut forms = Vec::new();
        let schemas = Arc::clone(&self.schemas);
        forms_of(&schemas, schema, &mut forms);
        let kind = Kind::of(raw);
        let at = Some(self.offset(raw));
        if kind == Kind::Object
            && self.loc.len() == self.depth
            && forms.iter().any(|form| expected::takes(form, kind))
        {
            // The members are known also where a form takes any object.
            self.members = members_of(self.text, raw);
        }
        let Some(form) = forms.iter().find(|form| expected::takes(form, kind)) else {
            let msg = format!("{} is expected, not {}", expected::in_words(&forms), expected::found(raw));
            return self.report("type_error", msg, at);
        };
        match kind {
            Kind::Object => self.object(raw, form),
            Kind::List => self.list(raw, form),
            Kind::Text => {
                let Ok(text) = serde_json::from_str::<String>(raw) else {
                    return self.report("value_error", "half a surrogate pair is not text".to_owned(), at);
                };
                if let Err(msg) = expected::check_text(&text, &forms, form) {
                    self.report("value_error", msg, at);
                }
            }
            Kind::Number => {
                if let Err((kind, msg)) = expected::check_number(raw, &forms, form) {
                    self.report(kind, msg, at);
                }
            }
            Kind::Bool | Kind::Null => {}
        }
    }

    fn list(&mut self, raw: &'a str, form: &Value) {
        let at = Some(self.offset(raw));
        let most =
            form["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let mut count = 0;
        each_item(raw, |item| {
            count += 1;
            if count <= most && form["items"].is_object() {
                self.loc.push(Value::from(count - 1));
                self.value(item, &form["items"]);
                self.loc.pop();
            }
            !self.is_full() && count <= most
        });
        if count > most || form["minItems"].as_u64().is_some_and(|least| (count as u64) < least) {
            let found = if count > most { "more" } else { "fewer" };
            self.report(
                "value_error",
                format!("{} is expected, not {found}", expected::in_words(&[form])),
                at,
            );
        }
    }

    fn object(&mut self, raw: &'a str, form: &Value) {
        let at = Some(self.offset(raw));
        let others = form.get("additionalProperties");
        let is_closed = others == Some(&Value::Bool(false));
        let has_names = is_closed || others.is_some_and(Value::is_object);
        let most =
            form["maxProperties"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let mut seen = HashSet::new();
        let is_whole = each_member(raw, |name, value| {
            let loc = Value::from(shortened(&name, MAX_NAME));
            self.loc.push(loc);
            let at = Some(self.offset(value));
            if let Some(schema) = form["properties"].get(&name) {
                self.value(value, schema);
            } else if is_closed {
                let msg = expected::instead_of(&name, form, &self.schemas["Task"], &mut self.told_names);
                self.report("unknown_field", msg, at);
            } else if let Some(schema) = others.filter(|others| others.is_object()) {
                match form.get("propertyNames").map(|names| expected::check_name(&name, names)) {
                    Some(Err(msg)) => self.report("value_error", msg, at),
                    _ => self.value(value, schema),
                }
            }
            if has_names && (!is_closed || form["properties"].get(&name).is_some()) && !seen.insert(name) {
                self.report("value_error", "the field stands twice".to_owned(), at);
            }
            self.loc.pop();
            !self.is_full() && seen.len() <= most
        });
        if seen.len() > most {
            self.report("value_error", format!("at most {most} fields are expected"), at);
        }
        if !is_whole {
            return;
        }
        for name in form["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !seen.contains(name) {
                self.loc.push(Value::from(name));
                self.report("missing", "the field is required".to_owned(), None);
                self.loc.pop();
            }
        }
    }
}

/// The forms that a schema allows, with references and alternatives resolved.
fn forms_of<'s>(schemas: &'s Schemas, schema: &'s Value, forms: &mut Vec<&'s Value>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) {
        if let Some(schema) = schemas.get(name) {
            forms_of(schemas, schema, forms);
        }
    } else if let Some(several) = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
        for schema in several {
            forms_of(schemas, schema, forms);
        }
    } else {
        forms.push(schema);
    }
}

fn members_of<'a>(text: &str, raw: &'a str) -> Vec<(String, &'a str, usize)> {
    let mut members = Vec::new();
    each_member(raw, |name, value| {
        let at = (value.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        members.push((name, value, at));
        members.len() <= MAX_MEMBERS
    });
    members
}

/// Shows the items of a list in turn, until `show` has seen enough.
fn each_item<'a>(raw: &'a str, show: impl FnMut(&'a str) -> bool) {
    struct Items<F>(F);
    impl<'a, F: FnMut(&'a str) -> bool> Visitor<'a> for Items<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
            while let Some(item) = items.next_element::<&RawValue>()? {
                if !(self.0)(item.get()) {
                    return Err(A::Error::custom("enough"));
                }
            }
            Ok(())
        }
    }
    // An error only says that enough was seen: the text is JSON.
    let _ = serde_json::Deserializer::from_str(raw).deserialize_seq(Items(show));
}

/// Shows the members of an object in turn, until `show` has seen enough. Says whether all were shown.
fn each_member<'a>(raw: &'a str, show: impl FnMut(String, &'a str) -> bool) -> bool {
    struct Members<F>(F);
    impl<'a, F: FnMut(String, &'a str) -> bool> Visitor<'a> for Members<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
            while let Some(name) = members.next_key::<String>()? {
                if !(self.0)(name, members.next_value::<&RawValue>()?.get()) {
                    return Err(A::Error::custom("enough"));
                }
            }
            Ok(())
        }
    }
    // An error says that enough was seen, or that a name is half a surrogate pair, of which serde tells.
    serde_json::Deserializer::from_str(raw).deserialize_map(Members(show)).is_ok()
}

#[cfg(test)]
mod tests;
