//! Reading bodies: what is no JSON, what is JSON that does not fit, and where exactly.

use garde::Validate;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use task_repo_protocol::json::Object;
use task_repo_protocol::task::MAX_TASK_BYTES;
use task_repo_protocol::{ErrorCode, Json, Violation};

use super::rejection::Rejection;
use crate::tasks::Failure;

/// A body, or a part of one, that must fit `T` and keep to its rules.
///
/// # Errors
/// 400 when it is not JSON, 422 when it does not fit.
pub(super) fn parse<T: DeserializeOwned + Validate<Context = ()>>(bytes: &[u8]) -> Result<T, Rejection> {
    let value: T = read(bytes)?;
    check(&value, &["body".into()]).map_err(|errors| refused(bytes, errors))?;
    Ok(value)
}

/// What is too large for any task is refused as that, whatever else is wrong with it.
fn refused(body: &[u8], errors: Vec<Violation>) -> Rejection {
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
    let bytes = serde_json::from_slice::<Object<Payloads<'_>>>(body).map_or(0, |Object(it)| {
        [it.request, it.template, it.metadata, it.result]
            .into_iter()
            .flatten()
            .map(|json| json.get().len())
            .sum()
    });
    if bytes > MAX_TASK_BYTES { Failure::TooLarge.into() } else { Rejection::invalid(errors) }
}

/// The same without rules beyond its form.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(bytes).map(|Object(value)| value).map_err(|error| {
        // Only the way to an error pays for a second look.
        if let Err(malformed) = serde_json::from_slice::<&RawValue>(bytes) {
            return Rejection::new(ErrorCode::MalformedJson, format!("the body is not JSON: {malformed}"));
        }
        refused(bytes, vec![misfit::<T>(bytes, &["body".into()], &error)])
    })
}

/// One item of a batch, at that place of the body.
///
/// # Errors
/// 422 when it does not fit.
pub(super) fn parse_item<T: DeserializeOwned + Validate<Context = ()>>(
    item: &Json,
    list: &str,
    index: usize,
) -> Result<T, Rejection> {
    let place = ["body".into(), list.into(), index.into()];
    let text = item.as_str();
    let Object(value): Object<T> = serde_json::from_str(text)
        .map_err(|error| refused(text.as_bytes(), vec![misfit::<T>(text.as_bytes(), &place, &error)]))?;
    check(&value, &place).map_err(|errors| refused(text.as_bytes(), errors))?;
    Ok(value)
}

/// Every rule that `value` breaks.
pub(super) fn check<T: Validate<Context = ()>>(value: &T, place: &[Value]) -> Result<(), Vec<Violation>> {
    let Err(report) = value.validate() else { return Ok(()) };
    let violations = report.iter().map(|(path, error)| Violation {
        loc: place.iter().cloned().chain(parts(&path.to_string())).collect(),
        msg: error.message().to_string(),
        kind: "value_error".to_owned(),
    });
    Err(violations.collect())
}

/// A single violation at that place of the body.
pub(super) fn violation(place: &[&str], rule: impl Into<String>) -> Vec<Violation> {
    let loc = std::iter::once("body").chain(place.iter().copied()).map(Value::from).collect();
    vec![Violation { loc, msg: rule.into(), kind: "value_error".to_owned() }]
}

/// Why JSON does not fit `T`, and where.
fn misfit<T: DeserializeOwned>(bytes: &[u8], place: &[Value], plain: &serde_json::Error) -> Violation {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let (path, message) = match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
        Err(error) => (error.path().to_string(), error.inner().to_string()),
        Ok(_) => (String::new(), plain.to_string()),
    };
    // serde_json adds the place in the text, which helps nobody beside the place in the JSON.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let named = message.split('`').nth(1);
    let (kind, name) = if message.starts_with("missing field") {
        ("missing", named)
    } else if message.starts_with("unknown field") {
        ("unknown_field", named.filter(|name| path.rsplit('.').next() != Some(name) || name.is_empty()))
    } else if message.starts_with("invalid type") {
        ("type_error", None)
    } else {
        ("value_error", None)
    };
    let path = if path == "." { String::new() } else { path };
    let loc = place.iter().cloned().chain(parts(&path)).chain(name.map(Value::from)).collect();
    Violation { loc, msg: message, kind: kind.to_owned() }
}

/// `a.b[3].c` as its parts.
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
