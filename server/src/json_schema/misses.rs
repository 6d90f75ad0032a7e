//! What misses a schema, in the service's words.

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;
use task_repo_protocol::Violation;

use super::fault::shortened;

/// What of a value misses the schema: so many faults at most.
pub(super) fn misses(validator: &Validator, value: &Value, most: usize) -> Vec<Violation> {
    validator.iter_errors(value).flat_map(|error| told(&error, value, most)).take(most).collect()
}

/// The place that a pointer names in a value. A name that reads like a number is one only where there is a list.
pub(super) fn place(value: &Value, location: &Location) -> Vec<Value> {
    let (mut at, mut place) = (Some(value), Vec::new());
    for segment in location {
        let name = match segment {
            LocationSegment::Property(name) => name.into_owned(),
            LocationSegment::Index(index) => index.to_string(),
        };
        if let (Some(Value::Array(list)), Ok(index)) = (at, name.parse::<usize>()) {
            place.push(index.into());
            at = list.get(index);
        } else {
            at = at.and_then(|at| at.get(&name));
            place.push(name.into());
        }
    }
    place
}

fn told(error: &ValidationError<'_>, value: &Value, most: usize) -> Vec<Violation> {
    let at = || place(value, error.instance_path());
    let miss = |name: Option<Value>, msg: String, kind: &str| Violation {
        loc: at().into_iter().chain(name).collect(),
        msg,
        kind: kind.to_owned(),
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![miss(Some(property.clone()), "the field is required".to_owned(), "missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let names = unexpected.iter().take(most);
            let rule = "the schema has no such field";
            names.map(|name| miss(Some(name.as_str().into()), rule.to_owned(), "unknown_field")).collect()
        }
        kind => {
            let is_type = matches!(kind, ValidationErrorKind::Type { .. });
            let msg = shortened(&error.masked().to_string());
            vec![miss(None, msg, if is_type { "type_error" } else { "value_error" })]
        }
    }
}
