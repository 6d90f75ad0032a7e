//! Reading bodies: what is no JSON, what is JSON that does not fit, and where exactly.

use garde::Validate;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use serde_path_to_error::Segment;
use task_repo_protocol::json::Object;
use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_protocol::{ErrorCode, Json, Violation};
use utoipa::ToSchema;

use super::violations::Violations;
use crate::http::problems::Rejection;
use crate::usecases::Failure;

/// What a body is read as: its form is known to serde, to garde and to the OpenAPI document.
pub(in crate::http) trait Body: DeserializeOwned + ToSchema {}

impl<T: DeserializeOwned + ToSchema> Body for T {}

/// A body that must fit `T` and keep to its rules.
///
/// # Errors
/// 400 when it is not JSON, 422 with all that is wrong when it does not fit.
pub(in crate::http) fn parse<T: Body + Validate<Context = ()>>(bytes: &[u8]) -> Result<T, Rejection> {
    // Only the way to an error pays for a second look.
    parse_text(serde_json::from_slice(bytes), || json_text(bytes), &["body".into()])
}

/// The same without rules beyond its form.
pub(in crate::http) fn read<T: Body>(bytes: &[u8]) -> Result<T, Rejection> {
    match serde_json::from_slice(bytes) {
        Ok(Object(value)) => Ok(value),
        Err(error) => {
            let (text, place) = (json_text(bytes)?, ["body".into()]);
            let mut violations = Violations::of::<T>(text, &place);
            violations.add([misfit::<T>(text, &place, &error)]);
            Err(refused(text, violations))
        }
    }
}

/// One item of a batch, at that place of the body.
///
/// # Errors
/// 422 when it does not fit.
pub(in crate::http) fn parse_item<T: Body + Validate<Context = ()>>(
    item: &Json,
    list: &str,
    index: usize,
) -> Result<T, Rejection> {
    let text = item.as_str();
    parse_text(serde_json::from_str(text), || Ok(text), &["body".into(), list.into(), index.into()])
}

/// Checks the rules of a part of a body that fits `T`, and says what else is wrong with the body.
///
/// # Errors
/// 422 when the part breaks a rule.
pub(in crate::http) fn check_part<T: Body>(
    bytes: &[u8],
    part: &impl Validate<Context = ()>,
    name: &str,
) -> Result<(), Rejection> {
    let place = ["body".into()];
    let broken = check(part, &["body".into(), name.into()]);
    if broken.is_empty() {
        return Ok(());
    }
    let text = json_text(bytes)?;
    let mut violations = Violations::of::<T>(text, &place);
    violations.add(broken);
    Err(refused(text, violations))
}

fn parse_text<'a, T: Body + Validate<Context = ()>>(
    decoded: Result<Object<T>, serde_json::Error>,
    text: impl FnOnce() -> Result<&'a str, Rejection>,
    place: &[Value],
) -> Result<T, Rejection> {
    match decoded {
        Ok(Object(value)) => {
            let broken = check(&value, place);
            if broken.is_empty() {
                return Ok(value);
            }
            let text = text()?;
            let mut violations = Violations::of::<T>(text, place);
            violations.add(broken);
            Err(refused(text, violations))
        }
        Err(error) => {
            let text = text()?;
            let mut violations = Violations::of::<T>(text, place);
            violations.add([misfit::<T>(text, place, &error)]);
            // Rules that the schema does not tell are checked on the members that fit.
            if let Some((sound, faulty)) = violations.sound_part()
                && let Ok(Object(value)) = serde_json::from_str::<Object<T>>(&sound)
            {
                let mut broken = check(&value, place);
                broken.retain(|one| violations.member_of(one).is_some_and(|member| !faulty.contains(member)));
                violations.add(broken);
            }
            Err(refused(text, violations))
        }
    }
}

/// A payload too large for any task is refused as that, whatever else is wrong with it.
fn refused(body: &str, violations: Violations<'_>) -> Rejection {
    #[derive(serde::Deserialize)]
    struct Payloads<'a> {
        #[serde(borrow)]
        request: Option<&'a RawValue>,
        #[serde(borrow)]
        template: Option<&'a RawValue>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    let bytes = serde_json::from_str::<Object<Payloads<'_>>>(body).map_or(0, |Object(it)| {
        [it.request, it.template, it.metadata, it.result]
            .into_iter()
            .flatten()
            .map(|json| json.get().len())
            .sum()
    });
    if bytes > MAX_TASK_BYTES {
        Failure::TooLarge.into()
    } else {
        Rejection::invalid(violations.into_violations())
    }
}

/// The text of a body that is JSON.
fn json_text(bytes: &[u8]) -> Result<&str, Rejection> {
    serde_json::from_slice::<&RawValue>(bytes).map(RawValue::get).map_err(|malformed| {
        let why = match bytes {
            [0xef, 0xbb, 0xbf, ..] => {
                "it begins with a byte order mark (the bytes EF BB BF); leave it out".to_owned()
            }
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is in UTF-16; send it in UTF-8".to_owned(),
            _ => malformed.to_string(),
        };
        Rejection::new(ErrorCode::MalformedJson, format!("the body is not JSON: {why}"))
    })
}

/// Every rule that `value` breaks, at that place.
fn check(value: &impl Validate<Context = ()>, place: &[Value]) -> Vec<Violation> {
    let Err(report) = value.validate() else { return Vec::new() };
    let violations = report.iter().map(|(path, error)| Violation {
        loc: place.iter().cloned().chain(parts(&path.to_string())).collect(),
        msg: error.message().to_string(),
        kind: "value_error".to_owned(),
    });
    violations.collect()
}

/// A single violation at that place of the body.
pub(in crate::http) fn violation(place: &[&str], rule: impl Into<String>) -> Vec<Violation> {
    let loc = std::iter::once("body").chain(place.iter().copied()).map(Value::from).collect();
    vec![Violation { loc, msg: rule.into(), kind: "value_error".to_owned() }]
}

/// Why JSON does not fit `T`, and where, as serde says it: its first reason.
fn misfit<T: DeserializeOwned>(text: &str, place: &[Value], plain: &serde_json::Error) -> Violation {
    let mut reader = serde_json::Deserializer::from_str(text);
    let (path, message) = match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
        Err(error) => {
            let parts = error.path().iter().filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Value::from(*index)),
                Segment::Map { key } => Some(Value::from(key.as_str())),
                Segment::Enum { .. } | Segment::Unknown => None,
            });
            (parts.collect(), error.inner().to_string())
        }
        Ok(_) => (Vec::new(), plain.to_string()),
    };
    // serde_json adds the place in the text, which helps nobody beside the place in the JSON.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let named = message.split('`').nth(1);
    let (kind, name) = if message.starts_with("missing field") {
        ("missing", named)
    } else if message.starts_with("unknown field") {
        ("unknown_field", named.filter(|name| path.last().is_none_or(|last| last != name)))
    } else if message.starts_with("invalid type") {
        ("type_error", None)
    } else {
        ("value_error", None)
    };
    let loc = place.iter().cloned().chain(path).chain(name.map(Value::from)).collect();
    Violation { loc, msg: message, kind: kind.to_owned() }
}

/// `a.b[3].c` as its parts. The names are those of fields, which hold no dots.
fn parts(path: &str) -> Vec<Value> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<u64>().map_or_else(|_| Value::from(part), Value::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::NewTask;

    use super::*;

    #[test]
    fn a_violation_says_where() {
        let errors = |body: &str| match parse::<NewTask>(body.as_bytes()) {
            Ok(_) => panic!("{body} fits"),
            Err(rejection) => {
                let problem = rejection.problem("r");
                let first = problem.errors.and_then(|errors| errors.into_iter().next());
                (problem.code.as_str().to_owned(), first.map(|it| (Value::from(it.loc).to_string(), it.kind)))
            }
        };
        let invalid =
            |loc: &str, kind: &str| ("validation_failed".to_owned(), Some((loc.to_owned(), kind.to_owned())));
        assert_eq!(errors("{"), ("malformed_json".to_owned(), None));
        assert_eq!(errors("[]"), invalid(r#"["body"]"#, "type_error"));
        assert_eq!(errors("{}"), invalid(r#"["body","task_type"]"#, "missing"));
        assert_eq!(errors(r#"{"task_type":"a","id":1}"#), invalid(r#"["body","id"]"#, "unknown_field"));
        assert_eq!(
            errors(r#"{"task_type":"a","priority":101}"#),
            invalid(r#"["body","priority"]"#, "value_error")
        );
        assert_eq!(
            errors(r#"{"task_type":"a","max_attempts":0}"#),
            invalid(r#"["body","max_attempts"]"#, "value_error")
        );
        assert_eq!(
            errors(r#"{"task_type":"a","retry":{"jitter":2}}"#),
            invalid(r#"["body","retry","jitter"]"#, "value_error")
        );
    }
}
