//! Reading bodies: what is no JSON, what is JSON that does not fit, and where exactly.

use garde::Validate;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use task_repo_protocol::{ErrorCode, Json, Violation};

use super::rejection::Rejection;

/// A body, or a part of one, that must fit `T` and keep to its rules.
///
/// # Errors
/// 400 when it is not JSON, 422 when it does not fit.
pub(super) fn parse<T: DeserializeOwned + Validate<Context = ()>>(bytes: &[u8]) -> Result<T, Rejection> {
    let value: T = read(bytes)?;
    check(&value, &["body".into()]).map_err(Rejection::invalid)?;
    Ok(value)
}

/// The same without rules beyond its form.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(bytes).or_else(|error| {
        // Only the way to an error pays for a second look.
        if let Err(malformed) = serde_json::from_slice::<&RawValue>(bytes) {
            return Err(Rejection::new(ErrorCode::MalformedJson, format!("the body is not JSON: {malformed}")));
        }
        Err(Rejection::invalid(vec![misfit::<T>(bytes, &["body".into()], &error)]))
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
    let value: T = serde_json::from_str(text)
        .map_err(|error| Rejection::invalid(vec![misfit::<T>(text.as_bytes(), &place, &error)]))?;
    check(&value, &place).map_err(Rejection::invalid)?;
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
    let (path, message) = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) => (error.path().to_string(), error.inner().to_string()),
        Ok(_) => (String::new(), plain.to_string()),
    };
    // serde_json adds the place in the text, which helps nobody beside the place in the JSON.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let named = message.split('`').nth(1);
    let (kind, name) = if message.starts_with("missing field") {
        ("missing", named)
    } else if message.starts_with("unknown field") {
        ("unknown_field", named.filter(|name| !path.ends_with(name)))
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

/// A hash of the path and the JSON value of a body: spelling, white space and the order of keys do not count.
pub(super) fn fingerprint(path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path.as_bytes());
    hash.update(b"\0");
    if let Ok(value) = serde_json::from_slice::<&RawValue>(body) {
        digest(value, &mut hash);
    }
    hash.finalize().into()
}

fn digest(value: &RawValue, hash: &mut Sha256) {
    let text = value.get();
    // Each kind of value begins with a mark of its own, and all that varies in length says how long it is.
    let mut sized = |mark: &[u8], bytes: &[u8]| {
        hash.update(mark);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match text.as_bytes().first() {
        Some(b'{') => {
            let fields: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
            sized(b"{", &fields.len().to_be_bytes());
            for (key, field) in fields {
                hash.update((key.len() as u64).to_be_bytes());
                hash.update(key.as_bytes());
                digest(field, hash);
            }
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            sized(b"[", &items.len().to_be_bytes());
            items.into_iter().for_each(|item| digest(item, hash));
        }
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(string) => sized(b"\"", string.as_bytes()),
            Err(_) => sized(b"\"", text.as_bytes()),
        },
        Some(b'-' | b'0'..=b'9') => sized(b"0", plain_number(text).as_bytes()),
        _ => sized(b"l", text.as_bytes()),
    }
}

/// A number's sign, digits and exponent without anything that does not change its value: `1.50e1` is `15e0`.
fn plain_number(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.trim_start_matches('+').parse::<i64>() else { return format!("{sign}{text}") };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let shortest = significant.trim_end_matches('0');
    if shortest.is_empty() {
        return "0".to_owned();
    }
    let dropped = i64::try_from(significant.len() - shortest.len()).unwrap_or(0);
    let exponent = exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(0)).saturating_add(dropped);
    format!("{sign}{shortest}e{exponent}")
}

#[cfg(test)]
mod tests {
    use task_repo_protocol::NewTask;

    use super::*;

    #[test]
    fn the_same_value_has_the_same_fingerprint_however_it_is_spelled() {
        let print = |body: &str| fingerprint("/tasks", body.as_bytes());
        let plain = print(r#"{"a":1.5,"b":["x",{}]}"#);
        assert_eq!(plain, print("{ \"b\": [\"\\u0078\", { }],\n \"a\": 15e-1 }"));
        for other in [r#"{"a":1.51,"b":["x",{}]}"#, r#"{"a":1.5,"b":["x",[]]}"#, r#"{"a":"1.5","b":["x",{}]}"#] {
            assert_ne!(plain, print(other), "{other}");
        }
        assert_ne!(plain, fingerprint("/tasks/batch", br#"{"a":1.5,"b":["x",{}]}"#));
        assert_ne!(print("18446744073709551616"), print("18446744073709551617"));
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for (left, right) in [("1", "1.0"), ("100", "1e2"), ("-0.50", "-5E-1"), ("0", "-0.0e9")] {
            assert_eq!(plain_number(left), plain_number(right), "{left} {right}");
        }
        assert_ne!(plain_number("1"), plain_number("-1"));
        assert_ne!(plain_number("10"), plain_number("1"));
    }

    #[test]
    fn a_violation_says_where() {
        let errors = |body: &str| match parse::<NewTask>(body.as_bytes()) {
            Ok(_) => panic!("{body} fits"),
            Err(rejection) => {
                let problem = rejection.problem("r");
                let first = problem.errors.and_then(|errors| errors.into_iter().next());
                (problem.code.as_str(), first.map(|it| (Value::from(it.loc).to_string(), it.kind)))
            }
        };
        let invalid = |loc: &str, kind: &str| ("validation_failed", Some((loc.to_owned(), kind.to_owned())));
        assert_eq!(errors("{"), ("malformed_json", None));
        assert_eq!(errors("[]"), invalid(r#"["body"]"#, "type_error"));
        assert_eq!(errors("{}"), invalid(r#"["body","task_type"]"#, "missing"));
        assert_eq!(errors(r#"{"task_type":"a","id":1}"#), invalid(r#"["body","id"]"#, "unknown_field"));
        assert_eq!(errors(r#"{"task_type":"a","priority":101}"#), invalid(r#"["body","priority"]"#, "value_error"));
        assert_eq!(errors(r#"{"task_type":"a","max_attempts":0}"#), invalid(r#"["body","max_attempts"]"#, "value_error"));
        assert_eq!(
            errors(r#"{"task_type":"a","retry":{"jitter":2}}"#),
            invalid(r#"["body","retry","jitter"]"#, "value_error")
        );
    }
}
